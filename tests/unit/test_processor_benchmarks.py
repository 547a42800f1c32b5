"""The benchmarks of processors: what they would measure, and their tables."""

from __future__ import annotations

import pytest

from benchmarks import bfloat16, processors
from engine.assembly.processor_choices import Network, network_of
from engine.config import flags
from engine.runtime.processor import Processor

ZEN4 = Processor(features=frozenset({"avx2", "avx512f", "avx512_vnni", "avx512_bf16"}))


@pytest.mark.parametrize("options", bfloat16.NETWORKS.values(), ids=bfloat16.NETWORKS)
@pytest.mark.parametrize("setting", bfloat16.SETTINGS.values(), ids=bfloat16.SETTINGS)
def test_options_by_size(options, setting):
    assert network_of(flags.parse([*options, *setting])).kind in ("dense", "transformer")
    assert network_of(flags.parse(list(options))).products > 0


@pytest.mark.parametrize("name", processors.NETWORKS)
def test_options_by_processor(name):
    _, options = processors.NETWORKS[name]
    assert network_of(flags.parse(list(options))).kind != "unknown"


def test_row_by_size():
    """Ratios are those to float32 under XLA in the same round; what cannot train has a dash."""
    found = {
        "float32, XLA": [100.0, 200.0, 100.0],
        "float32": [50.0, 100.0, 60.0],
        "bfloat16": [150.0, 300.0, 150.0],
        "bfloat16, XLA": [],
    }
    line = bfloat16.row("a network", 26e6, "float32", "bfloat16", found)
    assert line == "| a network | 26.0 | 100 | x0.50 | x1.50 | - | float32 | bfloat16 |"


def test_row_by_processor():
    found = {("float32", True): [10.0, 20.0], ("float32", False): [5.0, 10.0]}
    (line,) = processors.rows("a network", Network("convolutional"), ZEN4, found)
    assert line == "| a network | float32 | 15 (x1.00) | 7.5 (x0.50) | on (x1.00) | no |"


def test_process_that_cannot_train():
    found = processors.measured({"bad": (["--model=not_there"], {})}, rounds=1, seconds=0.1)
    assert found == {"bad": []}


@pytest.mark.parametrize("module", [bfloat16, processors])
def test_unknown_network(module, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["", "--data_dir=/not/there", "--networks=none"])
    with pytest.raises(SystemExit):
        module.main()
    assert "--networks: none: give some of " in capsys.readouterr().err

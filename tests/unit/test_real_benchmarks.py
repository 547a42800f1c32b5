"""The networks of the benchmarks W5 to W8 are the same for all contenders.

Only then are the speeds comparable: the loop by hand trains what usual operations train, and the
engine ends with the weights of the loop by hand.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config as determinism

from benchmarks.real import arrays, check, comparison, engine_networks, specs
from benchmarks.real.bare import Bare
from benchmarks.real.specs import SPECS
from benchmarks.real.stock import Stock
from engine.config import flags
from tests import real_networks

SMALL = {
    "W5": {"batch": 16, "examples": 64, "side": 8, "width": 4},
    "W6": {"batch": 16, "examples": 64, "side": 8, "width": 4, "blocks": 1},
    "W7": {"batch": 4, "examples": 16, "depth": 1, "heads": 2, "units": 8, "context": 8},
    "W8": {"batch": 4, "examples": 16, "side": 8, "depth": 1, "heads": 2, "units": 8},
}
STEPS = 3


@pytest.fixture
def not_asked_to_be_deterministic():
    """Disables op determinism, with which TensorFlow's loss op is another one."""
    determinism.disable_op_determinism()
    yield
    determinism.enable_op_determinism()


SIZED = {  # networks whose built-in ones have no small sizes
    "resnet": ("small_resnet", ("width", "blocks")),
    "vit": ("small_vit", ("depth", "heads", "units", "patch")),
}


@pytest.fixture
def loaded(monkeypatch):
    """Leaves `--load` out of the options: the files are imported already, by this module."""
    assert engine_networks.real_plain and real_networks.small_vit
    given = specs.options

    def options(spec, precision):
        kept = [each for each in given(spec, precision) if not each.startswith("--load=")]
        if spec.network not in SIZED:
            return kept
        name, sizes = SIZED[spec.network]
        kept = [each for each in kept if not each.startswith("--model")]
        return [*kept, f"--model={name}", *(f"--model.{n}={spec.sizes[n]}" for n in sizes)]

    monkeypatch.setattr(specs, "options", options)


def small(name):
    """Returns a workload with a small network."""
    return SPECS[name].smaller(**SMALL[name])


@pytest.mark.parametrize("name", SPECS)
def test_matches_stock(name, not_asked_to_be_deterministic):
    spec = small(name)
    weights = arrays.initial(spec)
    bare, stock = Bare(spec, shuffled=False), Stock(spec, weights)
    losses = []
    for _ in range(STEPS):
        bare.take(1)
        losses.append(bare.loss)
    np.testing.assert_allclose(losses, stock.take(STEPS), rtol=1e-5)
    for key, before in weights.items():
        moved = stock.weights[key].numpy() - before
        off = bare.weights[key].numpy() - stock.weights[key].numpy()
        assert np.linalg.norm(off) <= 1e-3 * np.linalg.norm(moved), key


@pytest.mark.parametrize("name", SPECS)
def test_matches_engine(name, monkeypatch, loaded):
    """In the engine's order, with its augmentation, over the end of an epoch."""
    monkeypatch.setitem(SPECS, name, small(name))
    off, _ = check.engine_difference(SPECS[name], "float32", 5)
    assert off < 1e-6


def test_parameters():
    counts = {name: check.parameters(spec) for name, spec in SPECS.items()}
    assert counts == {"W5": 298_410, "W6": 269_722, "W7": 809_344, "W8": 5_360_458}


@pytest.mark.parametrize("name", SPECS)
def test_options(name, loaded):
    """The engine trains with the batch size and the optimizer of the workload."""
    spec = SPECS[name]
    config = flags.parse(["--dataset=digits", *specs.options(spec, "bfloat16")])
    assert config.optimizer.optimizer == spec.optimizer
    assert config.optimizer.clip_norm == spec.settings.get("clip", 0)
    assert config.precision.precision == "mixed_bfloat16"


def test_learnable():
    """The characters depend on those before them, so that a wrong target shows in the loss."""
    inputs, targets = arrays.examples_of(small("W7"))
    np.testing.assert_array_equal(inputs[:, 1:], targets[:, :-1])


def test_agrees():
    spec = SPECS["W7"]
    reference = {"parameters": 100, "losses": [4.0, 3.0]}
    assert check.agrees(spec, reference, {"parameters": 100 + 4 * 128, "losses": [4.0, 3.01]})
    assert not check.agrees(spec, reference, {"parameters": 101, "losses": [4.0, 3.0]})
    assert not check.agrees(spec, reference, {"parameters": 100, "losses": [4.01, 3.0]})


MACHINE = {
    "processor": "One",
    "family": "7",
    "features": "avx2",
    "instructions": "AVX2",
    "cores": 2,
    "system": "Linux",
}


def entry(**rates):
    """Returns an entry of real.json with a start for each rate of a contender."""
    starts = [
        {
            name: {"as": "", "rates": [float(rate)], "peak_mb": 100.0, "loss": 1.0}
            for name, rate in zip(rates, each, strict=True)
        }
        for each in zip(*rates.values(), strict=True)
    ]
    return {
        "what": "a network; its size",
        "machine": MACHINE,
        "chosen": dict.fromkeys(rates, ""),
        "starts": starts,
    }


def test_table():
    found = entry(**{comparison.ENGINE: (9, 10, 11), "PyTorch": (4, 5, 9)})
    assert comparison.figures(found)["PyTorch"]["rate"] == 5
    rows = comparison.rows(found)
    assert "| PyTorch | 5.00 (4.00 to 9.00) | 2.00 | 100 |" in rows[-1]
    lines = comparison.readme_rows({"entries": {"W5 float32": found}})
    assert lines[-1] == "| W5: a network, float32 | One (family 7) | 10.0 |  |  |  | 2.00 |  |"


def test_readme(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- networks -->\nold\n<!-- /networks -->\nb\n")
    results = {"entries": {"W5 float32": entry(**{comparison.ENGINE: (1, 2, 3)})}}
    for _ in range(2):
        comparison.write_readme(readme, results)
    text = readme.read_text()
    assert text.startswith("a\n<!-- networks -->\n\n| network") and text.endswith("-->\nb\n")
    assert "old" not in text and text.count("W5") == 1


def test_goes_on(tmp_path, monkeypatch):
    """What was measured is not measured again; another contender is added to it.

    Blocks in turn decide between variants that are as fast alone.
    """
    taken = []

    class Process:
        facts, steps = {"ready": True, "tensorflow": "2"}, 1

        def __init__(self, command, errors):
            self._name = command[0]

        def fit(self, seconds):
            return self.block()

        def block(self):
            taken.append(self._name)
            lucky = self._name == "lucky" and taken.count("lucky") <= 3  # as long as it is alone
            return {"quick": 2.0, "slow": 0.1, "lucky": 2.05 if lucky else 1.5}.get(self._name, 1.0)

        def end(self):
            return {"loss": 1.0, "peak_mb": 10.0}

    def contenders(spec, precision, place, quick):
        return [
            comparison.Contender(comparison.ENGINE, {"default": ["engine"]}),
            comparison.Contender(
                "bare loop", {"graph": ["slow"], "XLA": ["quick"], "L": ["lucky"]}
            ),
        ]

    monkeypatch.setattr(comparison, "Answering", Process)
    monkeypatch.setattr(comparison.rounds, "Answering", Process)
    monkeypatch.setattr(comparison.rounds, "_PAUSE", 0)
    monkeypatch.setattr(comparison, "contenders", contenders)
    monkeypatch.setattr(comparison, "_PAUSE", 0)
    args = {"out": tmp_path, "precisions": "float32", "starts": 2, "rounds": 1, "seconds": 1.0}
    args = comparison.Namespace(**args, only="engine", quick=False, place=tmp_path)
    comparison.run(args, ["W5"], None)
    assert taken.count("engine") == 4 and "quick" not in taken
    args.only = ""
    comparison.run(args, ["W5"], None)
    before = list(taken)
    assert before.count("slow") == 3
    comparison.run(args, ["W5"], None)
    assert taken == before
    found = json.loads((tmp_path / comparison.RAW).read_text())["entries"]["W5 float32"]
    assert found["chosen"]["bare loop"] == "XLA" and len(found["starts"]) == 2
    assert "W5 float32" in (tmp_path / "REAL.md").read_text()
    monkeypatch.setattr(comparison, "this_machine", lambda: MACHINE)
    with pytest.raises(ValueError, match=r"W5 float32 was measured on another machine"):
        comparison.run(args, ["W5"], None)
    assert taken == before


def test_bfloat16():
    """All but the sums is in bfloat16, and the weights stay float32."""
    bare = Bare(small("W8"), "bfloat16", shuffled=False)
    bare.take(1)
    assert {weight.dtype for weight in bare.weights.values()} == {tf.float32}
    exact = Bare(small("W8"), shuffled=False)
    exact.take(1)
    assert 0 < abs(bare.loss - exact.loss) < 0.05


@pytest.mark.parametrize("name", SPECS)
def test_contenders(name, tmp_path):
    """With --quick, contenders have some of the variants that they have without."""
    spec = SPECS[name]
    quick = comparison.contenders(spec, "float32", tmp_path, True)
    every = comparison.contenders(spec, "float32", tmp_path, False)
    names = [each for word, each in comparison.SHORT.items() if word != "fused" or name in "W5 W6"]
    assert [each.name for each in quick] == names
    for few, many in zip(quick, every, strict=True):
        assert few.variants.items() <= many.variants.items()
        assert all(name in command for command in many.variants.values())

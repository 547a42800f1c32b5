"""Options of the update together: resumed to the same bits, and the same on 1 and 2 devices."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.command import Run, Warm

OPTIONS = (
    *("--dataset=digits", "--model=airbench", "--model.widths=4,4", "--global_batch_size=64"),
    *("--train_split=train[:256]", "--shards=2", "--train_steps=12"),
    *("--optimizer=nesterov", "--learning_rate=0.3", "--weight_decay=0.01"),
    *("--weight_decay_kind=coupled", "--weight_decay_variables=.*/offset:0.1,.*"),
    *("--learning_rate_multipliers=.*/offset:8", "--freeze_after=layers/0/bias:7"),
    *("--lookahead=5", "--lookahead_power=3", "--clip_norm=2", "--augment=flip:alternating"),
    *("--schedule=piecewise_linear", "--schedule_points=0:0.2,0.25:1,1:0.1"),
)


@pytest.fixture(scope="module")
def whole(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run that was not interrupted, with a checkpoint of each step."""
    run_dir = tmp_path_factory.mktemp("update") / "whole"
    return warm.train(run_dir, *OPTIONS, "--checkpoint_every=1", "--keep=20", "--keep_best=3")


def test_resumed_to_the_same_bits(warm: Warm, tmp_path: Path, whole: Run):
    """As killed after step 6, between two synchronisations and before a variable is frozen."""
    shutil.copytree(whole.run_dir, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    for path in (tmp_path / "run" / "checkpoints").glob("ckpt-*.npz"):
        if int(path.stem.removeprefix("ckpt-")) > 7:  # the first is of step 0
            path.unlink()
    resumed = warm.train(tmp_path / "run", *OPTIONS)
    assert "resumed at step 6" in resumed.outcome.out
    assert resumed.result["weights_sha256"] == whole.result["weights_sha256"]


def test_two_devices(warm: Warm, tmp_path: Path, whole: Run):
    found = warm.train(tmp_path / "run", *OPTIONS, "--virtual_devices=2", "--strategy=mirrored")
    assert found.result["weights_sha256"] == whole.result["weights_sha256"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--freeze_after=layers/7/bias:3", "'layers/7/bias' matches no trainable variable; they"),
        ("--optimizer=adamw", "--weight_decay_kind=coupled: --optimizer=adamw has a weight decay"),
        ("--freeze_after=layers/0/bias", "'layers/0/bias' is not PATTERN:UPDATES with a whole"),
        ("--schedule_points=0:2", "'0:2' is not SHARE:FACTOR, both from 0 to 1, such as 0.5:0.1"),
    ],
)
def test_refused(warm: Warm, tmp_path: Path, option, message):
    """In one line, before the run directory is made."""
    outcome = warm.run(f"--run_dir={tmp_path / 'run'}", *OPTIONS, option)
    assert outcome.status == 2 and message in outcome.err, outcome.said()
    assert len(outcome.err.splitlines()) == 1 and not (tmp_path / "run").exists()

"""`benchmarks.first_epochs`, which trains beside PyTorch; without training, and without PyTorch."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import first_epochs, first_epochs_inputs, first_epochs_report
from benchmarks.environments import python_of
from benchmarks.first_epochs_report import CONTROL, PYTORCH, TAPELINE
from benchmarks.moves import moved
from engine.assembly.parts import assemble
from engine.config import flags
from engine.core.augmentation import augmenter
from pipelines import parse_augmentation, unpadded_batch

EXAMPLES, BATCH, SIDE, SEED = 40, 16, 8, 3
OPTIONS = [
    "--dataset=digits",
    "--model=resnet",
    "--model.depth=20",
    "--scale=standardize",
    "--validation_split=0.2",
    "--test_split=",
    "--augment=crop:2:zeros,flip",
    f"--global_batch_size={BATCH}",
    f"--seed={SEED}",
]


def result(*errors: float, losses: float = 2.0) -> dict:
    """Returns what a training is kept as, with its test errors after each three steps."""
    tests = [(3 * (place + 1), error) for place, error in enumerate(errors)]
    given = first_epochs_report.summary([losses] * 3 * len(errors), tests)
    versions = {"tapeline": "0"}
    return {**given, "command": "c", "seconds": 1.0, "parameters": 9, "versions": versions}


def line(who: str, seed: int, *errors: float, losses: float = 2.0) -> dict:
    """Returns a line of first_epochs.jsonl."""
    known = {"who": who, "seed": seed, "steps": 6, "date": "2026-11-30", "processor": "one"}
    return known | result(*errors, losses=losses)


def test_moves_are_those_of_the_engine():
    """The bits of images that NumPy crops and flips are those of the engine, in all epochs."""
    images = np.random.default_rng(0).integers(0, 256, (EXAMPLES, SIDE, SIDE, 3), np.uint8)
    config = flags.parse([*OPTIONS, "--train_steps=6"])
    orders, moves = first_epochs_inputs.order_and_moves(config, EXAMPLES)
    assert orders.shape == (2, EXAMPLES) and moves.shape == (2, EXAMPLES, 3)
    augmented = augmenter(parse_augmentation(config.data.augment, (SIDE, SIDE, 3)), 10, SEED)
    for epoch in range(2):
        for start in range(0, EXAMPLES, BATCH):
            some = slice(start, start + BATCH)
            ours = moved(images[orders[epoch][some]], moves[epoch][some], 2)
            given = images[orders[epoch][some]]
            batch = unpadded_batch(given, np.zeros(len(given)), len(given), epoch)
            batch = batch._replace(position=tf.constant(start, tf.int64))
            expected = np.rint(augmented(batch).inputs.numpy() * 255)
            np.testing.assert_array_equal(ours, expected)
    assert set(moves[..., 2].ravel()) == {0, 1} and set(moves[..., 0].ravel()) == set(range(5))


def test_inputs_are_those_of_a_run(tmp_path):
    """Images, scale, initial weights and order are those that a run of the engine starts with."""
    path = tmp_path / "inputs.npz"
    given = [*OPTIONS, "--train_steps=4", f"--run_dir={tmp_path / 'run'}"]
    first_epochs_inputs.write(given, path)
    parts = assemble(flags.parse(given))
    with np.load(path) as found:
        weights = [found[name] for name in sorted(found.files) if name.startswith("weight_")]
        expected = [variable.numpy() for variable in parts.model.trainable_variables]
        assert sum(each.size for each in weights) == sum(each.size for each in expected)
        left = [each.tobytes() for each in expected]
        for each in weights:
            left.remove(each.tobytes())
        assert not left
        steps = parts.feeds.training.open(0, 1)
        batch = parts.feeds.training.batch(
            parts.feeds.training.next(steps.given), tf.constant(0, tf.int64), 0, 0
        )
        rows = found["orders"][0][:BATCH]
        np.testing.assert_array_equal(batch.inputs, found["images"][rows])
        np.testing.assert_array_equal(batch.targets, found["labels"][rows])
        scaled = (found["images"] - found["mean"]) / found["deviation"]
        np.testing.assert_allclose(scaled.mean((0, 1, 2)), 0, atol=1e-5)
        assert len(found["test_images"]) == len(found["test_labels"])
    parts.close()


@pytest.mark.parametrize(
    "augment", ["crop:2,flip", "flip", "crop:2:zeros", "crop:2:zeros,flip:both"]
)
def test_other_augmentation_is_refused(augment):
    config = flags.parse([*OPTIONS, f"--augment={augment}", "--train_steps=1"])
    with pytest.raises(ValueError, match="crop:PADDING:zeros,flip"):
        first_epochs_inputs.order_and_moves(config, EXAMPLES)


def test_summary():
    """The curve has means of ten steps; a test has the mean loss since the one before."""
    found = first_epochs_report.summary(list(range(23)), [(12, 50.0), (23, 40.0)])
    assert found["curve"] == [[10, 4.5], [20, 14.5], [23, 21.0]]
    assert found["epochs"] == [[12, 50.0, 5.5], [23, 40.0, 17.0]]
    assert first_epochs_report.summary([1.0] * 20, [])["curve"] == [[10, 1.0], [20, 1.0]]


@pytest.mark.parametrize("factor, agrees", [(1 + 9e-5, True), (1 + 2e-4, False), (np.nan, False)])
def test_first_losses_agree(factor, agrees):
    pair = line(TAPELINE, 0, 50.0, 40.0, losses=2 * factor), line(PYTORCH, 0, 50.0, 40.0)
    assert (first_epochs_report.disagreement(pair) == "") == agrees


def test_table():
    """A row has means over the seeds that both have; the sentence tells the differences."""
    runs = [line(TAPELINE, 1, 42.0, 30.0), line(PYTORCH, 0, 41.0, 31.0)]
    runs += [line(TAPELINE, 0, 40.0, 31.0), line(PYTORCH, 1, 40.0, 30.0), line(TAPELINE, 2, 9.0, 9)]
    found = list(first_epochs_report.table(runs))
    assert found[2].startswith("| 3 | 41.00 ± 1.41 | 40.50 ± 0.71 | -1.00, +2.00 | +0.50 ± 2.12 |")
    assert found[3].startswith("| 6 | 30.50 ± 0.71 | 30.50 ± 0.71 | +0.00, +0.00 |")
    assert (
        "+0.25 on average, 0.75 in size (at most 2.00); two seeds of Tapeline differ by 1.50,"
        in found[-1]
    )
    assert "of PyTorch by 1.00. " in found[-1] and "step 7 or later" in found[-1]
    runs.append(line(CONTROL, 1, 44.0, 30.0, losses=2.1))
    said = list(first_epochs_report.table(runs))
    assert said[:-2] == found
    assert "test errors differ by 2.00 in size (at most 4.00), for seed 1," in said[-1]
    assert said[-1].endswith("that of step 1.")


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Returns a function that runs the command without training; `trained` lists what it trains."""
    trained: list[tuple[str, int]] = []
    losses = {TAPELINE: 2.0, PYTORCH: 2.0}

    def told(who):
        def train(_, seed, *more):
            trained.append((CONTROL if more == ("bit",) else who, seed))
            return result(50.0, 40.0, losses=losses[who])

        return train

    monkeypatch.setattr(first_epochs, "train", told(TAPELINE))
    monkeypatch.setattr(first_epochs, "train_with_torch", told(PYTORCH))
    python = python_of(tmp_path, "torch")
    python.parent.mkdir(parents=True)
    python.touch()
    (tmp_path / "README.md").write_text("a\n<!-- first epochs -->\n<!-- /first epochs -->\nb\n")
    given = ["--data_dir=none", f"--out={tmp_path}", f"--place={tmp_path}", "--steps=6"]
    return lambda *more: first_epochs.main([*given, *more]), trained, losses


def test_known_trainings_are_not_repeated(command, tmp_path):
    """What was kept before a stop, or with fewer seeds, is not trained again."""
    main, trained, _ = command
    kept = line(TAPELINE, 0, 50.0, 40.0)
    other = line(PYTORCH, 0, 50.0, 40.0) | {"steps": 7}  # another length
    (tmp_path / first_epochs.RAW).write_text(f"{json.dumps(kept)}\n{json.dumps(other)}\n")
    assert main("--seeds=1") == 0
    assert trained == [(PYTORCH, 0)]
    assert main("--seeds=2") == 0
    assert trained == [(PYTORCH, 0), (TAPELINE, 1), (PYTORCH, 1)]
    assert main("--seeds=2", "--control") == 0
    assert trained[3:] == [(CONTROL, 0), (CONTROL, 1)]
    written = (tmp_path / "README.md").read_text()
    assert written.startswith("a\n") and "| 6 | 40.00 ± 0.00 | 40.00 ± 0.00 |" in written
    assert (tmp_path / first_epochs.PICTURE).read_bytes()[1:4] == b"PNG"


def test_other_first_losses_end_the_command(command, tmp_path, capsys):
    main, trained, losses = command
    losses[TAPELINE] = 2.1
    assert main("--seeds=2") == 1
    assert "the first losses" in capsys.readouterr().err
    assert trained == [(TAPELINE, 0), (PYTORCH, 0)]
    assert "40.00" not in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("given", ["--seeds=0", "--steps=4", "--place=none", "--out=none"])
def test_bad_options(command, given, capsys):
    main, trained, _ = command
    assert main(given) == 1
    assert given.partition("=")[0] in capsys.readouterr().err and not trained

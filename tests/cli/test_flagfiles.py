"""Tests that flagfiles parse and train, and that recipes have the authors' hyperparameters."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from engine.config import flags, schema
from engine.config.registry import Registry
from tapeline import models
from tests.cli.command import HANG, REPOSITORY, Command, Outcome, Warm

FLAGFILES = sorted(REPOSITORY.glob("*.flags")) + sorted(REPOSITORY.glob("recipes/*.flags"))

# network: epochs, batch, validation split
SEEDS = {
    "seed_000": (11, 32, "0"),
    "seed_001": (5, 64, "0.2"),
    "seed_002": (10, 32, "0.2"),
    "seed_003": (15, 128, "0.1"),
    "seed_004": (5, 32, "0.3"),
}


def recipe(seed: str) -> schema.Config:
    return flags.parse([f"--flagfile={REPOSITORY / 'recipes' / f'{seed}.flags'}"])


# Parsing


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.name)
def test_flagfile_is_complete(path: Path):
    parsed = flags.parse([f"--flagfile={path}"])
    assert parsed.run.mode == "train"
    assert "--dataset=" in path.read_text() and "--model=" in path.read_text()
    # Nothing specific to a machine: users choose the directories of data and runs.
    assert (parsed.data.data_dir, parsed.data.cache_dir) == ("", "")
    assert parsed.run.run_dir == f"runs/{parsed.data.dataset}-{parsed.model.model}"


def test_readme_flagfiles_exist():
    names = {path.name for path in FLAGFILES}
    assert names >= {"cpu.flags", "gpu.flags", "multi_gpu.flags", "quickstart.flags"}
    assert names >= {f"{seed}.flags" for seed in SEEDS}


@pytest.mark.parametrize("seed", SEEDS)
def test_recipe_matches_author(seed: str):
    """A recipe has the hyperparameters of the network's author."""
    epochs, batch, validation = SEEDS[seed]
    chosen = recipe(seed)
    assert (chosen.data.dataset, chosen.model.model) == ("mnist", seed)
    assert chosen.training.epochs == epochs and chosen.training.train_steps == 0
    assert chosen.training.global_batch_size == batch
    assert chosen.data.validation_split == validation
    assert (chosen.data.train_split, chosen.data.test_split) == ("train", "auto")
    # Keras's defaults of Adam; a beta_2 of 0 means the optimizer's default, 0.999.
    rule, rate = chosen.optimizer, chosen.schedule
    assert (rule.optimizer, rate.schedule, rate.warmup_steps) == ("adam", "constant", 0)
    assert (rate.learning_rate, rule.beta_1, rule.beta_2) == (0.001, 0.9, 0.0)
    assert rule.epsilon == 1e-7


def test_early_stopping_only_seed_004():
    for seed in SEEDS:
        stopping = recipe(seed).stopping
        if seed == "seed_004":
            assert stopping.monitor == "validation_accuracy"
            assert (stopping.min_delta, stopping.patience) == (0.01, 4)
            assert stopping.restore_best
        else:
            assert stopping.patience == -1 and not stopping.restore_best


@pytest.mark.parametrize("seed", SEEDS)
def test_tuned_recipe(seed: str):
    """A tuned recipe has the network and data of the original, and no more epochs."""
    tuned = recipe(f"{seed}_tuned")
    assert (tuned.data.dataset, tuned.model.model) == ("mnist", seed)
    assert 0 < tuned.training.epochs <= SEEDS[seed][0] and tuned.training.train_steps == 0
    assert (tuned.data.train_split, tuned.data.test_split) == ("train", "auto")


def test_recipe_steps_per_epoch():
    """An epoch has 422 and 1,313 steps, as in the authors' logs, including a last partial batch."""
    import pipelines

    for seed, train, steps in (("seed_003", 54_000, 422), ("seed_004", 42_000, 1_313)):
        batch = recipe(seed).training.global_batch_size
        assert pipelines.steps_per_epoch(train, batch) == steps


# Help


def test_help_without_tensorflow(command: Command, tmp_path: Path):
    """Help lists every option without importing TensorFlow."""
    for name in ("tensorflow", "tensorflow_datasets"):
        (tmp_path / f"{name}.py").write_text("import os; os._exit(77)\n")
    outcome = command.run("--help", PYTHONPATH=str(tmp_path))
    assert (outcome.status, outcome.err) == (0, ""), outcome.said()
    lines = outcome.out.splitlines()
    assert lines[0].startswith("usage: python run.py") and "--flagfile" in lines[0]
    for _, section in schema.sections():
        for field in dataclasses.fields(section):
            (at,) = (i for i, line in enumerate(lines) if line.startswith(f"  --{field.name}="))
            assert field.metadata["help"] in lines[at + 1]
            choices = field.metadata["choices"]  # other tests register more networks here
            for choice in choices.built_in if isinstance(choices, Registry) else choices:
                assert choice in lines[at + 1]


def test_help_closed_pipe(command: Command):
    """A reader that closes the pipe early causes no traceback."""
    with command.started("--help") as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
        process.wait(HANG)


# seed_003's network


def assert_seed_003s_table(table: list[str]) -> None:
    """Asserts that a table has the six layers of seed_003 and 34,826 parameters in total."""
    header, *layers, total = [line.split() for line in table]
    assert header == ["layer", "output", "shape", "parameters"]
    shapes = ["(26, 26, 32)", "(13, 13, 32)", "(11, 11, 64)", "(5, 5, 64)", "(1600,)", "(10,)"]
    parameters = ["320", "0", "18,496", "0", "0", "16,010"]
    assert [words[-1] for words in layers] == parameters
    assert all(shape in line for shape, line in zip(shapes, table[1:-1], strict=True))
    assert (total[0], total[-1]) == ("total", "34,826")


def test_seed_003_table():
    model = models.build("seed_003", input_shape=(28, 28, 1), output_shape=(10,), seed=0)
    assert_seed_003s_table(models.table(model).splitlines())


@pytest.mark.data
def test_seed_003_prints_table(warm: Warm, real_data: str, tmp_path: Path):
    """Training of seed_003, on small splits, prints its table of layers."""
    small = "--train_split=train[:2%]", "--test_split=test[:200]", "--epochs=1"
    outcome = warm.run(
        f"--flagfile={REPOSITORY / 'recipes' / 'seed_003.flags'}",
        f"--data_dir={real_data}",
        f"--run_dir={tmp_path / 'run'}",
        *small,
    )
    assert outcome.status == 0, outcome.said()
    lines = [line.removeprefix("       ") for line in outcome.out.splitlines()]
    at = lines.index("model  seed_003") + 1
    assert_seed_003s_table(lines[at : at + 8])


# cpu.flags


def assert_thirty_steps_were_taken(outcome: Outcome, dataset: str) -> None:
    assert (outcome.status, outcome.err) == (0, ""), outcome.said()
    assert f"data   {dataset} 3.0.1: train 54,000, validation 6,000, test 10,000" in outcome.out
    assert "train  30 steps, 422 an epoch" in outcome.out
    (line,) = (line for line in outcome.out.splitlines() if line.startswith("test "))
    assert "of 10,000 examples" in line
    assert float(line.split("accuracy ")[1].split("%")[0]) > 50


@pytest.mark.data
def test_cpu_flags_mnist(warm: Warm, real_data: str, tmp_path: Path):
    outcome = warm.run(
        "--flagfile=cpu.flags",
        f"--data_dir={real_data}",
        "--train_steps=30",
        f"--run_dir={tmp_path / 'run'}",
    )
    assert_thirty_steps_were_taken(outcome, "mnist")


@pytest.mark.data
@pytest.mark.full
def test_cpu_flags_fashion_mnist(warm: Warm, real_data: str, tmp_path: Path):
    outcome = warm.run(
        "--flagfile=cpu.flags",
        f"--data_dir={real_data}",
        "--dataset=fashion_mnist",
        "--train_steps=30",
        f"--run_dir={tmp_path / 'run'}",
    )
    assert_thirty_steps_were_taken(outcome, "fashion_mnist")


def test_quickstart_virtual_devices(warm: Warm, tmp_path: Path):
    run_dir = tmp_path / "run"
    outcome = warm.run(
        f"--flagfile={REPOSITORY / 'quickstart.flags'}",
        f"--run_dir={run_dir}",
        "--virtual_devices=2",
        "--epochs=1",
        "--report=false",
    )
    assert outcome.status == 0, outcome.said()
    assert "on 2 virtual CPU devices, mirrored" in outcome.out

"""The flagfiles: each is read, the recipes are the seeds', and what they name runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import models
from engine import config, flags
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


def recipe(seed: str) -> config.Config:
    return flags.parse([f"--flagfile={REPOSITORY / 'recipes' / f'{seed}.flags'}"])


# Reading


@pytest.mark.parametrize("path", FLAGFILES, ids=lambda path: path.name)
def test_a_flagfile_says_everything_by_itself(path: Path):
    parsed = flags.parse([f"--flagfile={path}"])
    assert parsed.run.mode == "train"
    assert "--dataset=" in path.read_text() and "--model=" in path.read_text()
    # Nothing of one machine: where data and runs are is the user's to say.
    assert (parsed.data.data_dir, parsed.data.cache_dir) == ("", "")
    assert parsed.run.run_dir == f"runs/{parsed.data.dataset}-{parsed.network.model}"


def test_the_flagfiles_that_the_readme_names_are_there():
    names = {path.name for path in FLAGFILES}
    assert names >= {"cpu.flags", "gpu.flags", "multi_gpu.flags", "quickstart.flags"}
    assert names >= {f"{seed}.flags" for seed in SEEDS}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_recipe_trains_as_its_author_did(seed: str):
    epochs, batch, validation = SEEDS[seed]
    chosen = recipe(seed)
    assert (chosen.data.dataset, chosen.network.model) == ("mnist", seed)
    assert chosen.training.epochs == epochs and chosen.training.train_steps == 0
    assert chosen.training.global_batch_size == batch
    assert chosen.data.validation_split == validation
    assert (chosen.data.train_split, chosen.data.test_split) == ("train", "auto")
    # Adam as Keras has it.
    rule = chosen.optimization
    assert (rule.optimizer, rule.schedule, rule.warmup_steps) == ("adam", "constant", 0)
    assert (rule.learning_rate, rule.beta_1, rule.beta_2) == (0.001, 0.9, 0.0)  # 0: its own, 0.999
    assert rule.epsilon == 1e-7


def test_only_seed_004_stops_early_and_tests_its_best_weights():
    for seed in SEEDS:
        stopping = recipe(seed).stopping
        if seed == "seed_004":
            assert stopping.monitor == "validation_accuracy"
            assert (stopping.min_delta, stopping.patience) == (0.01, 4)
            assert stopping.restore_best
        else:
            assert stopping.patience == -1 and not stopping.restore_best


@pytest.mark.parametrize("seed", SEEDS)
def test_a_tuned_recipe_has_the_same_network_and_no_more_epochs(seed: str):
    tuned = recipe(f"{seed}_tuned")
    assert (tuned.data.dataset, tuned.network.model) == ("mnist", seed)
    assert 0 < tuned.training.epochs <= SEEDS[seed][0] and tuned.training.train_steps == 0
    assert (tuned.data.train_split, tuned.data.test_split) == ("train", "auto")


def test_the_recipes_take_the_steps_that_their_authors_logged():
    """422 and 1,313 an epoch: the cut of the validation split, and no remainder dropped."""
    import pipelines

    for seed, train, steps in (("seed_003", 54_000, 422), ("seed_004", 42_000, 1_313)):
        batch = recipe(seed).training.global_batch_size
        assert pipelines.steps_per_epoch(train, batch) == steps


# Help


def test_help_lists_every_option_without_tensorflow(command: Command, tmp_path: Path):
    for name in ("tensorflow", "tensorflow_datasets"):
        (tmp_path / f"{name}.py").write_text("import os; os._exit(77)\n")
    outcome = command.run("--help", PYTHONPATH=str(tmp_path))
    assert (outcome.status, outcome.err) == (0, ""), outcome.said()
    lines = outcome.out.splitlines()
    assert lines[0].startswith("usage: python run.py") and "--flagfile" in lines[0]
    for _, section in config.sections():
        for field in dataclasses.fields(section):
            (at,) = (i for i, line in enumerate(lines) if line.startswith(f"  --{field.name}="))
            assert field.metadata["help"] in lines[at + 1]
            for choice in field.metadata["choices"]:
                assert choice in lines[at + 1]


def test_who_reads_only_the_first_lines_of_the_help_sees_no_traceback(command: Command):
    with command.started("--help") as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
        process.wait(HANG)


# seed_003's network


def assert_seed_003s_table(table: list[str]) -> None:
    """Six layers, and 34,826 parameters in all."""
    header, *layers, total = [line.split() for line in table]
    assert header == ["layer", "output", "shape", "parameters"]
    shapes = ["(26, 26, 32)", "(13, 13, 32)", "(11, 11, 64)", "(5, 5, 64)", "(1600,)", "(10,)"]
    parameters = ["320", "0", "18,496", "0", "0", "16,010"]
    assert [words[-1] for words in layers] == parameters
    assert all(shape in line for shape, line in zip(shapes, table[1:-1], strict=True))
    assert (total[0], total[-1]) == ("total", "34,826")


def test_seed_003_has_six_layers_and_34826_parameters():
    model = models.build("seed_003", input_shape=(28, 28, 1), classes=10, seed=0)
    assert_seed_003s_table(models.table(model).splitlines())


@pytest.mark.data
def test_seed_003_on_mnist_prints_that_table(warm: Warm, real_data: str, tmp_path: Path):
    """With the splits made small: the recipe itself is a matter of minutes."""
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
def test_cpu_flags_trains_on_mnist(warm: Warm, real_data: str, tmp_path: Path):
    outcome = warm.run(
        "--flagfile=cpu.flags",
        f"--data_dir={real_data}",
        "--train_steps=30",
        f"--run_dir={tmp_path / 'run'}",
    )
    assert_thirty_steps_were_taken(outcome, "mnist")


@pytest.mark.data
def test_cpu_flags_trains_on_another_data_set_by_its_name(
    warm: Warm, real_data: str, tmp_path: Path
):
    outcome = warm.run(
        "--flagfile=cpu.flags",
        f"--data_dir={real_data}",
        "--dataset=fashion_mnist",
        "--train_steps=30",
        f"--run_dir={tmp_path / 'run'}",
    )
    assert_thirty_steps_were_taken(outcome, "fashion_mnist")

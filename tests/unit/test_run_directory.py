"""The run directory: used only as requested, and resumed only with the same trajectory."""

import dataclasses
import os

import pytest

from engine.assembly import factories, run_directory
from engine.config import flags


def config(run_dir, *arguments):
    return flags.parse([f"--run_dir={run_dir}", *arguments])


def started(run_dir, *arguments, saved=True):
    """Creates the directory of a run, with a checkpoint if `saved`; returns its options."""
    kept = config(run_dir, *arguments)
    os.makedirs(run_dir, exist_ok=True)
    run_directory.write_options(kept)
    if saved:
        checkpoints = os.path.join(run_dir, "checkpoints")
        os.makedirs(checkpoints)
        with open(os.path.join(checkpoints, "ckpt-1.npz"), "wb"):
            pass
    return kept


def refusal(configuration):
    with pytest.raises(ValueError) as caught:
        run_directory.open_for_training(configuration)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("resume", ["auto", "never"])
@pytest.mark.parametrize("exists", [True, False])
def test_empty_directory(tmp_path, resume, exists):
    run_dir = tmp_path / "deep" / "run"
    if exists:
        run_dir.mkdir(parents=True)
    assert run_directory.open_for_training(config(run_dir, f"--resume={resume}")) is None
    assert os.listdir(tmp_path) == (["deep"] if exists else [])  # inspected, not written


def test_must_needs_checkpoint(tmp_path):
    assert "--resume=must" in refusal(config(tmp_path, "--resume=must"))
    started(tmp_path, saved=False)
    assert "--resume=must" in refusal(config(tmp_path, "--resume=must"))


@pytest.mark.parametrize("saved", [True, False])
def test_never_refuses_existing_run(tmp_path, saved):
    started(tmp_path, saved=saved)
    message = refusal(config(tmp_path, "--resume=never"))
    assert "--resume=never" in message and str(tmp_path) in message


@pytest.mark.parametrize("resume", ["auto", "must"])
def test_resumes_saved_run(tmp_path, resume):
    options = "--seed=3", "--learning_rate=0.25", "--hidden=7,9"
    kept = started(tmp_path, *options)
    found = run_directory.open_for_training(config(tmp_path, *options, f"--resume={resume}"))
    assert found == kept
    assert "--seed=4 (was 3)" in refusal(config(tmp_path, *options, "--seed=4"))


def test_killed_before_first_checkpoint(tmp_path):
    started(tmp_path, "--seed=3", saved=False)
    assert run_directory.open_for_training(config(tmp_path, "--seed=4")) is None


def test_refuses_file_as_run_dir(tmp_path):
    path = tmp_path / "run"
    path.write_text("a file")
    message = refusal(config(path))
    assert f"--run_dir={path}" in message and "is a file" in message


def test_refuses_run_dir_below_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("a file")
    message = refusal(config(path / "deep" / "run"))
    assert f"{path} is a file" in message


def test_refuses_unwritable_directory(tmp_path, monkeypatch):
    tmp_path.chmod(0o500)
    # Root may write everywhere, so that the answer for other users is patched in.
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    assert "not writable" in refusal(config(tmp_path / "run"))


@pytest.mark.parametrize(
    "content", [b"--no_such_option=1\n", b"--epochs=many\n", b"stray words\n", b"\xff\xfe\x00"]
)
def test_names_unreadable_options(tmp_path, content):
    started(tmp_path)
    path = tmp_path / "config.flags"
    path.write_bytes(content)
    assert str(path) in refusal(config(tmp_path))


def test_checkpoint_without_options(tmp_path):
    """A checkpoint without config.flags is an error, not a new run."""
    started(tmp_path)
    path = tmp_path / "config.flags"
    path.unlink()
    assert str(path) in refusal(config(tmp_path, "--seed=5"))


def continued(before, now, steps_per_epoch=10, step=0):
    """Returns the error message of resuming with the options `now`; "" if that is allowed."""
    try:
        run_directory.check_trajectory(now, before)
        depends = factories.build_schedule(now, now.training.steps(10)).depends_on_length
        run_directory.check_length(
            now,
            before,
            steps_per_epoch,
            step,
            needs_length=f"the {now.schedule.schedule} schedule" if depends else "",
        )
    except ValueError as error:
        return str(error)
    return ""


def test_new_run_takes_any_options(tmp_path):
    assert continued(None, config(tmp_path, "--seed=8")) == ""


@pytest.mark.parametrize(
    ("argument", "both"),
    [
        ("--seed=4", "--seed=4 (was 0)"),
        ("--learning_rate=0.5", "--learning_rate=0.5 (was 0.001)"),
        ("--model=mlp", "--model=mlp (was cnn)"),
        ("--hidden=64,32", "--hidden=64,32 (was 512,512)"),
        ("--global_batch_size=64", "--global_batch_size=64 (was 128)"),
        ("--patience=2", "--patience=2 (was -1)"),
    ],
)
def test_refuses_other_trajectory(tmp_path, argument, both):
    message = continued(config(tmp_path), config(tmp_path, argument))
    assert both in message and str(tmp_path) in message


def test_names_every_changed_option(tmp_path):
    message = continued(config(tmp_path), config(tmp_path, "--seed=4", "--optimizer=sgd"))
    assert "--seed=4 (was 0)" in message and "--optimizer=sgd (was adam)" in message


@pytest.mark.parametrize(
    "argument",
    [
        *("--keep=9", "--checkpoint_every=3", "--log_every=2", "--progress=on", "--feed=stream"),
        *("--strategy=cpu", "--steps_per_loop=4", "--evaluation_batch_size=7", "--resume=must"),
        *("--data_dir=elsewhere", "--restore_best", "--test_split="),
    ],
)
def test_allows_other_changes(tmp_path, argument):
    """Options that do not affect the trajectory may change."""
    assert continued(config(tmp_path), config(tmp_path, argument)) == ""


@pytest.mark.parametrize(
    ("schedule", "longer_is_another_run"),
    [
        (["--schedule=constant"], False),
        (["--schedule=constant", "--warmup_steps=5"], False),
        (["--schedule=step", "--decay_steps=7"], False),
        (["--schedule=step"], True),
        (["--schedule=exponential"], True),
        (["--schedule=cosine"], True),
        (["--schedule=one_cycle"], True),
    ],
)
@pytest.mark.parametrize("longer", ["--epochs=9", "--train_steps=90"])
def test_longer_run(tmp_path, schedule, longer_is_another_run, longer):
    """A run may be extended if its schedule does not depend on the length."""
    message = continued(config(tmp_path, *schedule), config(tmp_path, *schedule, longer))
    if longer_is_another_run:
        assert "90 steps" in message and "50" in message and schedule[0][11:] in message
    else:
        assert message == ""


def test_same_length_by_other_option(tmp_path):
    before, now = (config(tmp_path, "--schedule=cosine", x) for x in ("--epochs=5", "--epochs=8"))
    now = dataclasses.replace(now, training=dataclasses.replace(now.training, train_steps=50))
    assert continued(before, now) == ""


def test_new_options_remove_result(tmp_path):
    run_dir = tmp_path / "deep" / "run"
    started(run_dir, saved=False)
    (run_dir / "result.json").write_text("{}")
    (run_dir / "metrics.jsonl").write_text("kept")
    kept = config(run_dir, "--seed=5")
    run_directory.write_options(kept)
    assert run_directory.read_options(str(run_dir)) == kept
    assert sorted(os.listdir(run_dir)) == ["config.flags", "metrics.jsonl"]


@pytest.mark.parametrize(
    ("length", "step", "enough"),
    [
        ("--epochs=2", 21, "--epochs=3"),
        ("--epochs=2", 30, "--epochs=3"),
        ("--train_steps=9", 10, "=10"),
    ],
)
def test_refuses_passed_length(tmp_path, length, step, enough):
    now = config(tmp_path, length)
    message = continued(config(tmp_path, "--epochs=7"), now, step=step)
    assert length in message and f"step {step}" in message and enough in message
    assert continued(config(tmp_path, "--epochs=7"), now, step=now.training.steps(10)) == ""


def test_result_removed_before_options(tmp_path, monkeypatch):
    """If a run is killed while options are written, no result of other options remains."""
    run_dir = tmp_path / "run"
    kept = started(run_dir)
    (run_dir / "result.json").write_text("{}")

    def killed(path, content, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(run_directory, "replace_file", killed)
    with pytest.raises(KeyboardInterrupt):
        run_directory.write_options(config(run_dir, "--epochs=9"))
    assert not (run_dir / "result.json").exists()
    assert run_directory.read_options(str(run_dir)) == kept


def test_resume_with_legacy_values(tmp_path):
    """A run that predates an option resumes with the value that it was trained with."""
    started(tmp_path, "--image_size=14,28", "--fit=stretch", "--antialias=false")
    path = tmp_path / "config.flags"
    kept = [
        line
        for line in path.read_text().splitlines(keepends=True)
        if not line.startswith(("--fit", "--antialias"))
    ]
    path.write_text("".join(kept))
    default = config(tmp_path, "--image_size=14,28")
    assert "--fit=pad (was stretch), --antialias=true (was false)" in refusal(default)
    same = config(tmp_path, "--image_size=14,28", "--fit=stretch", "--antialias=false")
    assert run_directory.open_for_training(same) == same


def test_resume_without_resizing(tmp_path):
    """A run that predates options of resizing, and does not resize, resumes with their defaults."""
    started(tmp_path)
    path = tmp_path / "config.flags"
    path.write_text(path.read_text().replace("--fit=pad\n", "").replace("--antialias=true\n", ""))
    now = config(tmp_path)
    assert run_directory.open_for_training(now) == now

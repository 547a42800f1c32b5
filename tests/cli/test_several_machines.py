"""Tests of runs on several machines, simulated by two processes on the loopback address."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests import measured
from tests.choices import seldom
from tests.cli.command import HANG, Command, Forked, Run, Runner, Warm, await_rows
from tests.examples.jobs import JOBS
from tests.harness import tf_configs
from tests.tensorflow_log import without_log

SHORT = (
    "--flagfile=quickstart.flags",
    "--strategy=multi_worker",
    "--shards=2",
    "--epochs=8",
    "--log_every=5",
    "--checkpoint_every=7",
    "--feed=stream",
    "--progress=off",
    f"--load={Path(__file__).with_name('ordered_rank.py')}",
    "--metrics=accuracy,ordered_rank",  # the second is collected from the whole split
    "--monitor=validation_ordered_rank",
)


@contextlib.contextmanager
def workers(runner: Runner, run_dir: Path, *options: str, count: int = 2, start: int = 2):
    """Yields the running processes of the first `start` of `count` workers; kills them at the end.

    Args:
      runner: starts the processes.
      run_dir: the run directory of all workers.
      *options: options of all workers.
      count: number of workers in TF_CONFIG.
      start: number of workers that are started.
    """
    options = (f"--run_dir={run_dir}", *options)
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(runner.started(*options, TF_CONFIG=config))
            for config in tf_configs(count)[:start]
        ]


def ended(worker: subprocess.Popen[str] | Forked) -> tuple[int, str, str]:
    out, err = worker.communicate(timeout=HANG)
    return worker.returncode, out, without_log(err)


@pytest.fixture(scope="module")
def together(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run that was trained on two workers without interruption."""
    run_dir = tmp_path_factory.mktemp("together") / "run"
    with workers(command, run_dir, *SHORT) as started:
        (status, out, err), (other, other_out, other_err) = map(ended, started)
    assert (status, err, other, other_out, other_err) == (0, "", 0, "", "")
    assert "2 x CPU of several workers" in out
    return Run(run_dir, None)


def test_two_workers_match_one_process(together: Run, warm, tmp_path):
    options = [option for option in SHORT if "strategy" not in option]
    alone = warm.train(tmp_path / "run", *options, "--strategy=cpu")
    assert together.result["weights_sha256"] == alone.result["weights_sha256"]
    assert together.curves == alone.curves
    assert together.result["best"] == alone.result["best"]
    assert 0 < together.result["test"]["ordered_rank"] < 1
    assert set(together.result["traces"].values()) == {1}


@pytest.mark.parametrize("signalled", [seldom(0), 1])
def test_signal_then_resume(warm: Warm, together: Run, tmp_path, signalled):
    """A signal to either worker stops both, and the resumed run ends bitwise equal."""
    run_dir = tmp_path / "run"
    with workers(warm, run_dir, *SHORT) as started:
        await_rows(started[0], run_dir, 6)
        started[signalled].send_signal(signal.SIGTERM)
        (status, out, err), (other, _, other_err) = map(ended, started)
    assert (status, err, other, other_err) == (143, "", 143, "")
    assert "saved; run the same command to resume" in out
    with workers(warm, run_dir, *SHORT) as started:
        assert [ended(worker)[0] for worker in started] == [0, 0]
    resumed = Run(run_dir, None)
    assert resumed.result["restarts"] == 1
    assert resumed.result["weights_sha256"] == together.result["weights_sha256"]
    assert resumed.curves == together.curves


@pytest.mark.full
def test_bad_step_on_workers(warm: Warm, tmp_path: Path):
    """All workers roll back and skip a bad step, bitwise as one process does."""
    data = f"--dataset={measured.prepared(tmp_path / 'data')}"
    options = (data, "--model=cnn", "--global_batch_size=10", "--epochs=3")
    with workers(warm, tmp_path / "two", *SHORT, *options) as started:
        outcomes = [ended(worker) for worker in started]
    assert [(status, err) for status, _, err in outcomes] == [(0, ""), (0, "")]
    assert outcomes[0][1].count("(gradient not finite): rolled back to step") == 3
    alone = [option for option in SHORT if "strategy" not in option]
    one = warm.train(tmp_path / "one", *alone, *options, "--strategy=cpu")
    two = Run(tmp_path / "two", None)
    assert len(one.result["left_out"]) == 3
    for name in ("left_out", "skipped_steps", "weights_sha256"):
        assert two.result[name] == one.result[name]
    assert two.curves == one.curves


def test_segmentation_on_workers(warm: Warm, tmp_path: Path):
    """With a user's data, network and task, two workers end bitwise equal to one process."""
    alone = [*JOBS["segmentation"].small(tmp_path), "--shards=2", "--feed=stream"]
    with workers(warm, tmp_path / "two", *alone, "--strategy=multi_worker") as started:
        outcomes = [ended(worker) for worker in started]
    assert [(status, err) for status, _, err in outcomes] == [(0, ""), (0, "")]
    one, two = warm.train(tmp_path / "one", *alone, "--strategy=cpu"), Run(tmp_path / "two", None)
    assert two.result["weights_sha256"] == one.result["weights_sha256"]
    assert two.curves == one.curves and two.result["test"] == one.result["test"]


@pytest.mark.parametrize("victim", [0, seldom(1)])
def test_killed_worker(warm: Warm, together: Run, tmp_path, victim):
    """If a worker is killed, the other ends with one error line, and the run can be resumed."""
    run_dir = tmp_path / "run"
    with workers(warm, run_dir, *SHORT) as started:
        await_rows(started[0], run_dir, 6)
        started[victim].kill()
        since = time.monotonic()
        status, _, err = ended(started[1 - victim])
        assert time.monotonic() - since < 60
    assert status == 1
    assert err.startswith(f"error: worker {victim} (127.0.0.1:") and err.count("\n") == 1
    assert "is gone" in err
    with workers(warm, run_dir, *SHORT) as started:
        assert [ended(worker)[0] for worker in started] == [0, 0]
    assert Run(run_dir, None).result["weights_sha256"] == together.result["weights_sha256"]


@pytest.mark.parametrize(("started", "absent"), [(1, 1)])
def test_absent_worker(warm, tmp_path, started, absent):
    """The chief names a worker that does not start within the timeout."""
    run_dir = tmp_path / "run"
    with workers(warm, run_dir, *SHORT, "--cluster_timeout=3", start=started) as (chief,):
        since = time.monotonic()
        status, out, err = ended(chief)
        assert time.monotonic() - since < 60
    assert (status, out) == (1, "")
    assert err.startswith(f"error: worker {absent} (127.0.0.1:") and err.count("\n") == 1
    assert "did not come within 3 s" in err
    assert not run_dir.exists()


def test_absent_chief(warm: Warm, tmp_path):
    options = (f"--run_dir={tmp_path / 'run'}", *SHORT, "--cluster_timeout=2")
    with warm.started(*options, TF_CONFIG=tf_configs(2)[1]) as worker:
        status, _, err = ended(worker)
    assert status == 1
    assert err.startswith("error: worker 0 (127.0.0.1:") and "did not answer within 2 s" in err


def test_different_options_refused(warm, tmp_path):
    configs = tf_configs(2)
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(
                warm.started(
                    f"--run_dir={tmp_path / 'run'}", *SHORT, f"--seed={task}", TF_CONFIG=config
                )
            )
            for task, config in enumerate(configs)
        ]
        outcomes = list(map(ended, started))
    for status, _, err in outcomes:
        assert status == 1
        assert "was started with other options" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        ((), {}, "TF_CONFIG is not set"),
        ((), {"TF_CONFIG": "{"}, "TF_CONFIG: cannot be read"),
        (("--cluster=slurm",), {}, "start the command by srun"),
        (("--cluster=pbs",), {}, "--cluster=pbs: choose one of tf_config, slurm"),
    ],
)
def test_bad_cluster(warm, tmp_path, options, environment, message):
    arguments = (f"--run_dir={tmp_path / 'run'}", "--strategy=multi_worker", *options)
    outcome = warm.run(*arguments, **environment)
    assert outcome.status == 2
    assert message in outcome.err and outcome.err.count("\n") == 1


def test_evaluate_on_one_machine(together: Run, warm):
    outcome = warm.run("--mode=evaluate", f"--run_dir={together.run_dir}")
    assert outcome.status == 0, outcome.err
    scored = json.loads(outcome.out.splitlines()[-1])
    assert scored["test"] == together.result["test"]

"""Tests of `--load`: a user's file in all modes and processes, with options, errors and digests."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.checkpoint.catalog import newest_checkpoint
from tests.cli.command import HANG, REPOSITORY, Command, Outcome, Run, Warm, await_rows
from tests.cli.test_several_machines import ended, tf_configs
from tests.tensorflow_log import without_log

OPTIMIZER = """
@tl.optimizer
class SignDescent(tf.Module):
    '''Descends along the sign of the mean gradient.

    Args:
      decay: share of the old mean,
        in every step.
    '''

    def __init__(self, *, decay: float = 0.9):
        self.decay = decay

    def create_slots(self, variables):
        self.means = [tf.Variable(tf.zeros_like(v), trainable=False) for v in variables]

    def apply(self, gradients, variables, learning_rate, update):
        for gradient, variable, mean in zip(gradients, variables, self.means):
            mean.assign(self.decay * mean + (1 - self.decay) * gradient)
            variable.assign_sub(tf.cast(learning_rate, tf.float32) * tf.sign(mean))
"""

SCHEDULE = """
@tl.schedule
def waves(*, period: int = 20):
    return lambda step: height(tf.sin(step / period))
"""

MODEL = """
@tl.model
def wide(outputs, hidden):
    units = outputs.shape[-1]
    return [tl.models.Flatten(), tl.models.Dense(hidden[0], "relu"), tl.models.Dense(units)]
"""

START = """
import tensorflow as tf

import tapeline as tl
from heights import height
"""

OWN = ("--optimizer=sign_descent", "--optimizer.decay=0.8", "--schedule=waves")
OWN_MODEL = ("--model=wide", "--hidden=16")
BRIEF = ("--global_batch_size=64", "--epochs=3", "--log_every=3", "--checkpoint_every=8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes a user's file, my.py, and heights.py, which my.py imports; returns the folder."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "heights.py").write_text("def height(x):\n    return 1.0 + 0.5 * x\n")
    (folder / "my.py").write_text(f"{START}{OPTIMIZER}{SCHEDULE}{MODEL}\n\ntl.main()\n")
    return folder


@pytest.fixture(scope="module")
def own(warm: Warm, folder: Path) -> Run:
    """Returns an uninterrupted run with the user's optimizer, schedule and network."""
    return warm.train(folder / "run", f"--load={folder / 'my.py'}", *OWN, *OWN_MODEL, *BRIEF)


def refused(outcome: Outcome) -> str:
    """Asserts that a command ended with status 2 and one error line; returns the line."""
    assert outcome.status == 2, outcome.said()
    assert outcome.err.startswith("error: ") and outcome.err.count("\n") == 1, outcome.said()
    return outcome.err


def script(command: Command, file: Path, *arguments: str, folder: Path | None = None) -> Outcome:
    """Runs `python FILE ARGUMENTS`; returns the outcome, without TensorFlow's log."""
    done = subprocess.run(
        [sys.executable, str(file), f"--cache_dir={command.cache_dir}", *arguments],
        cwd=folder or file.parent,
        env=command.environment | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=HANG,
    )
    return Outcome(done.returncode, done.stdout, without_log(done.stderr))


@pytest.mark.parametrize("text", [OPTIMIZER, SCHEDULE])
def test_own_parts_are_short(text):
    """A user's optimizer and schedule take at most 10 lines each."""
    code = re.sub(r"'''.*?'''", "", text, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 10


def test_flags_are_kept(own: Run, folder: Path):
    options = (own.run_dir / "config.flags").read_text().splitlines()
    assert {f"--load={folder / 'my.py'}", "--optimizer.decay=0.8", "--schedule.period=20"} <= set(
        options
    )
    assert [each["file"] for each in own.result["load"]] == ["my.py", "heights.py"]


def test_every_mode_finds_the_code(own: Run, warm: Warm, tmp_path: Path):
    """Modes that use a run load the file of the run, without `--load`."""
    run = f"--run_dir={own.run_dir}"
    outcome = warm.run("--mode=evaluate", run)
    assert outcome.status == 0, outcome.said()
    assert json.loads(outcome.out.splitlines()[-1])["test"] == own.result["test"]
    for options in (["predict", "--split=test[:5]"], ["export"], ["report"]):
        outcome = warm.run(f"--mode={options[0]}", run, *options[1:])
        assert outcome.status == 0, outcome.said()
    page = (own.run_dir / "report.html").read_text()
    assert "--optimizer.decay" in page and "--schedule.period=20" in page


def test_killed_run_resumes_to_the_same_bits(warm: Warm, own: Run, tmp_path):
    """A killed run resumed without `--load` loads the user's file and ends bitwise equal."""
    run_dir = tmp_path / "run"
    load = f"--load={Path(own.run_dir).parent / 'my.py'}"
    with warm.started(f"--run_dir={run_dir}", load, *OWN, *OWN_MODEL, *BRIEF) as process:
        await_rows(process, run_dir, 4)
        while not newest_checkpoint(str(run_dir)) and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    assert newest_checkpoint(str(run_dir))
    resumed = warm.train(run_dir, *OWN, *OWN_MODEL, *BRIEF)
    assert resumed.result["weights_sha256"] == own.result["weights_sha256"]
    assert resumed.curves == own.curves


def test_changed_argument_refuses_resume(own: Run, warm: Warm):
    again = (*OWN, *OWN_MODEL, *BRIEF, "--epochs=4", f"--run_dir={own.run_dir}")
    line = refused(warm.run(*again, "--optimizer.decay=0.7", "--schedule.period=9"))
    assert "--optimizer.decay=0.7 (was 0.8), --schedule.period=9 (was 20)" in line
    line = refused(warm.run(*again, "--schedule=constant"))
    assert "--schedule=constant (was waves); give" in line


def copied(own: Run, tmp_path: Path) -> Path:
    """Copies a finished run and the user's files to a new folder; returns the folder."""
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(own.run_dir.parent, folder)
    return folder


def test_changed_contents_are_told_and_recorded(own: Run, warm: Warm, tmp_path: Path):
    folder = copied(own, tmp_path)
    load = f"--load={folder / 'my.py'}"
    longer = (load, *OWN, *OWN_MODEL, *BRIEF, "--epochs=4")
    same = warm.train(folder / "run", *longer)
    assert "has changed" not in same.outcome.out
    with open(folder / "heights.py", "a") as file:
        file.write("# another line\n")
    outcome = warm.train(folder / "run", *longer, "--epochs=5").outcome
    (line,) = [line for line in outcome.out.splitlines() if "has changed" in line]
    assert line.startswith("heights.py has changed since ") and "going on" in line
    before, now = (Run(each, outcome).result["load"] for each in (own.run_dir, folder / "run"))
    assert before[0] == now[0] and before[1] != now[1]


def test_moved_file(own: Run, warm: Warm, tmp_path: Path):
    folder = copied(own, tmp_path)
    options = folder / "run" / "config.flags"
    options.write_text(options.read_text().replace(f"--load={own.run_dir.parent}", "--load=/gone"))
    run = f"--run_dir={folder / 'run'}"
    line = refused(warm.run("--mode=evaluate", run))
    assert "config.flags: --load=/gone/my.py: there is no such file; give --load=FILE" in line
    outcome = warm.run("--mode=evaluate", run, f"--load={folder / 'my.py'}")
    assert outcome.status == 0, outcome.said()


TUNE = """
import sys
from engine.tune import choices, contest
from tapeline.command import main

contest.ROUNDS = 1
choices.first = lambda *_: []
choices.around = lambda *_: []
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.full
def test_tune_loads_the_file(command: Command, folder: Path, tmp_path: Path):
    """The processes of `--mode=tune` load the user's file, and report its errors."""
    broken = tmp_path / "broken.py"
    broken.write_text(f"{MODEL_HEAD}    return [1 / 0]\n")
    program = tmp_path / "tune.py"
    program.write_text(TUNE)
    tuned = (f"--tuned_flags={tmp_path / 'tuned.flags'}", "--mode=tune", "--jit=off")
    outcome = script(command, program, f"--load={broken}", "--model=net", *tuned)
    assert refused(outcome) == f"error: broken.py:7: {DIVIDED}\n"
    outcome = script(command, program, f"--load={folder / 'my.py'}", *OWN, *OWN_MODEL, *tuned)
    assert (outcome.status, outcome.err) == (0, ""), outcome.said()
    assert "steps/s  x1.000  as it is" in (tmp_path / "tuned.flags").read_text()


@pytest.mark.full
def test_two_workers(command: Command, own: Run, folder: Path, tmp_path: Path):
    """All workers load the file, and a worker whose file has other contents is refused."""
    options = (*OWN, *OWN_MODEL, *BRIEF, "--strategy=multi_worker")
    other = copied(own, tmp_path)  # another place, the same contents

    def outcomes(name: str) -> list[tuple[int, str, str]]:
        with contextlib.ExitStack() as stack:
            started = [
                stack.enter_context(
                    command.started(
                        f"--load={place / 'my.py'}",
                        f"--run_dir={tmp_path / name}",
                        *options,
                        TF_CONFIG=config,
                    )
                )
                for place, config in zip((folder, other), tf_configs(2), strict=True)
            ]
            return [ended(worker) for worker in started]

    assert [(status, err) for status, _, err in outcomes("same")] == [(0, ""), (0, "")]
    with open(other / "heights.py", "a") as file:
        file.write("# another line\n")
    for status, _, err in outcomes("other"):
        assert status == 1 and "was started with other options" in err


def test_script(command: Command, folder: Path, tmp_path: Path):
    """A script that calls `tl.main()` trains, and later modes load the code of the script."""
    run = f"--run_dir={tmp_path / 'run'}"
    outcome = script(command, folder / "my.py", run, *OWN, *OWN_MODEL, *BRIEF, "--report=false")
    assert outcome.status == 0 and "Traceback" not in outcome.err, outcome.said()
    assert f"--load={folder / 'my.py'}\n" in (tmp_path / "run" / "config.flags").read_text()
    for outcome in (
        script(command, folder / "my.py", run, "--mode=evaluate", folder=tmp_path),
        command.run("--mode=evaluate", run),
    ):
        assert outcome.status == 0, outcome.said()
        result = Run(tmp_path / "run", outcome).result
        assert json.loads(outcome.out.splitlines()[-1])["test"] == result["test"]
    outcome = script(command, folder / "my.py", "--epochs=0")
    assert outcome.status == 2 and "\nerror: --epochs=0" in f"\n{outcome.err}", outcome.said()


MAINS = {
    "print(tl.main(['--epochs=0']))": (0, "2\n"),
    "if True:\n    sys.exit(tl.main(sys.argv[1:]))": (2, ""),
    "import again\ntl.main()": (2, ""),
    "import again\nprint('nothing is run')": (0, "nothing is run\n"),
}


@pytest.mark.parametrize("end", MAINS)
def test_main(command: Command, tmp_path: Path, end: str):
    """`tl.main` returns the exit status if it gets a list of arguments; otherwise it exits.

    In a module that another program imports, `tl.main()` does nothing.
    """
    text = "import sys\n\nimport tapeline as tl\n\n\n@tl.schedule\ndef %s():\n    ...\n\n\n%s\n"
    (tmp_path / "again.py").write_text(text % ("other", "tl.main()"))
    (tmp_path / "own.py").write_text(text % ("own", end))
    outcome = script(command, tmp_path / "own.py", "--epochs=0")
    assert (outcome.status, outcome.out) == MAINS[end], outcome.said()


MODEL_HEAD = "import tensorflow as tf\nimport tapeline as tl\n\n\n@tl.model\ndef net(outputs):\n"
DIVIDED = "ZeroDivisionError: division by zero"
NO_MODEL = "import tapeline as tl\n"
IN_STEP = """import tapeline as tl


@tl.schedule
def net():
    return lambda step: step * height
"""
WRONG = {
    "def f(:\n": "my.py:1: SyntaxError: ",
    "import no_such_module\n": "my.py:1: ModuleNotFoundError: No module named 'no_such_module'",
    "\n\n1 / 0\n": f"my.py:3: {DIVIDED}",
    "import sys\nsys.exit(3)\n": "my.py:2: SystemExit: 3",
    "import neighbour\n": f"neighbour.py:2: {DIVIDED}",
    "import broken\n": "broken.py:3: SyntaxError: ",
    f"{NO_MODEL}@tl.modle\ndef net(): ...\n": "my.py:2: AttributeError: module 'tapeline' has no",
    f"{NO_MODEL}@tl.model\ndef cnn(): ...\n": "my.py:2: ValueError: a model named 'cnn' is regis",
    NO_MODEL: "--model=net: choose one of logistic",
    f"{MODEL_HEAD}    return [1 / 0]\n": f"my.py:7: {DIVIDED}",
    f"{MODEL_HEAD}    return {{}}['x']\n": "my.py:7: KeyError: 'x'",
    f"{MODEL_HEAD}    return [tl.models.Dropout(2.0)]\n": "my.py:7: ValueError: ",
    f"{MODEL_HEAD}    tf.ones([2]) @ tf.ones([3])\n": "my.py:7: RuntimeError: cannot set the run",
    f"{MODEL_HEAD}    open('/no/such/file')\n": "my.py:7: FileNotFoundError: ",
    IN_STEP: "my.py:6: NameError: name 'height' is not defined",
    MODEL_HEAD.replace("outputs", "outputs, depth") + "    ...\n": "my.py:5: --model=net: paramet",
    MODEL_HEAD.replace("outputs", "outputs, *, depth") + "    ...\n": "annotate it with int",
}


@pytest.mark.parametrize("text", WRONG)
def test_errors_of_a_file_are_one_line(warm: Warm, tmp_path: Path, text: str):
    (tmp_path / "neighbour.py").write_text("def f():\n    1 / 0\n\n\nf()\n")
    (tmp_path / "broken.py").write_text("#\n#\nx = = 1\n")
    (tmp_path / "my.py").write_text(text)
    load = f"--load={tmp_path / 'my.py'}"
    option = "schedule" if text == IN_STEP else "model"
    line = refused(warm.run(load, f"--{option}=net", f"--run_dir={tmp_path / 'run'}"))
    assert WRONG[text] in line, line


def test_neighbours_hide_nothing(command: Command, tmp_path: Path):
    """Files beside a user's file hide no module of Python, installed packages or the engine."""
    for name in ("engine", "pipelines", "random", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError(__file__)\n")
    (tmp_path / "json.py").write_text(
        "import json, numpy, user\nassert json.dumps and user.x == 3\n"
    )
    (tmp_path / "user.py").write_text("x = 3\n")
    load = f"--load={tmp_path / 'json.py'},{tmp_path / 'user.py'}"
    outcome = command.run(load, "--help")
    assert (outcome.status, outcome.err) == (0, ""), outcome.said()


DIGESTS = """
import sys
from engine.config import flags
from engine.runtime import user_code

flags.parse(sys.argv[1:])
print([each["file"] for each in user_code.digests()])
"""


def test_local_imports(command: Command, tmp_path: Path):
    """Digests cover a file and its imports from its folder, except installed packages.

    The main program is not covered, although it is in that folder.
    """
    (tmp_path / "program.py").write_text(DIGESTS)
    for name in ("nets/blocks.py", "venv/site-packages/installed.py", "late.py", "unused.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 3\n")
    (tmp_path / "my.py").write_text(
        "import sys, tapeline as tl, nets.blocks\nfrom pathlib import Path\n"
        "sys.path.append(str(Path(__file__).parent / 'venv/site-packages'))\n"
        "import installed, late\ntl.models\n"
    )
    outcome = script(command, tmp_path / "program.py", f"--load={tmp_path / 'my.py'}")
    assert (outcome.status, outcome.err) == (0, ""), outcome.said()
    assert outcome.out == "['my.py', 'late.py', 'nets/blocks.py']\n"


LINES = """
import sys
from engine.config import flags
from engine.runtime import user_code

flags.parse(sys.argv[1:])
import my

print(user_code.calling_line(), my.line().text)
"""


def test_program_beside_file_is_not_user_code(command: Command, tmp_path: Path):
    """A main program that is not loaded, such as run.py, is never named as the user's code."""
    (tmp_path / "program.py").write_text(LINES)
    (tmp_path / "my.py").write_text(
        "from engine.runtime import user_code\ndef line():\n    return user_code.calling_line()\n"
    )
    outcome = script(command, tmp_path / "program.py", f"--load={tmp_path / 'my.py'}")
    assert (outcome.status, outcome.err) == (0, ""), outcome.said()
    assert outcome.out == "None my.py:3\n"


def test_missing_file(warm: Warm, tmp_path: Path):
    line = refused(warm.run(f"--load={tmp_path / 'absent.py'}"))
    assert f"--load={tmp_path / 'absent.py'}: there is no such file; give a Python file" in line
    assert "is no file" in refused(warm.run(f"--load={tmp_path}"))


def test_errors_of_ours_show_a_traceback(command: Command, tmp_path: Path):
    """An exception that has no frame in the user's file is shown with a traceback, as a bug."""
    file = tmp_path / "my.py"
    file.write_text(
        "from engine.assembly import parts\n\nfrom functools import partial\n\n"
        "parts.data.open_source = partial(int, 'x', 'y')\n"
    )
    outcome = command.run(f"--load={file}", f"--run_dir={tmp_path / 'run'}")
    assert outcome.status == 1 and "Traceback" in outcome.err and "TypeError" in outcome.err


ARGUMENTS = """
from __future__ import annotations

from typing import Literal, Sequence

import tapeline as tl


@tl.schedule
def many(
    final_fraction,
    *,
    depth: int = 4,
    rate=0.5,
    wide=False,
    name: str = "a",
    sizes=(1, 2),
    steps: Sequence[float] = (),
    kind: Literal["sum", "mean"] = "sum",
    limit: int | None = None,
    hook=print,
):
    print(depth, rate, wide, name, sizes, steps, kind, limit)
    return lambda step: 1.0 + 0.0 * step


@tl.schedule
def needs(*, depth: float):
    '''Returns a schedule that has a required argument.'''
    print(depth)
    return lambda step: 1.0 + 0.0 * step
"""
VALUES = {
    (): "4 0.5 False a (1, 2) () sum None",
    (
        "--schedule.depth=7",
        "--schedule.wide",
        "--schedule.sizes=3",
    ): "7 0.5 True a (3,) () sum None",
    ("--schedule.depth", "7", "--schedule.name=b c"): "7 0.5 False b c (1, 2) () sum None",
    ("--schedule.wide", "--noschedule.wide"): "4 0.5 False a (1, 2) () sum None",
    ("--schedule.sizes=", "--schedule.steps=1,2.5"): "4 0.5 False a () (1.0, 2.5) sum None",
    ("--schedule.kind=mean", "--schedule.limit=3"): "4 0.5 False a (1, 2) () mean 3",
}


@pytest.fixture(scope="module")
def arguments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Writes a file of schedules with arguments of each type; returns its path."""
    path = tmp_path_factory.mktemp("arguments") / "my.py"
    path.write_text(ARGUMENTS)
    return path


@pytest.mark.parametrize("given", VALUES)
def test_typed_arguments(warm: Warm, arguments: Path, tmp_path: Path, given):
    """A function gets typed values from options, and again from config.flags of the run."""
    options = (f"--load={arguments}", "--train_steps=1", "--validation_split=0")
    run = warm.train(tmp_path / "run", *options, "--schedule=many", *given)
    assert run.outcome.out.splitlines()[0] == VALUES[given]
    kept = f"--flagfile={run.run_dir / 'config.flags'}"
    outcome = warm.run(kept, f"--run_dir={tmp_path / 'again'}")
    assert outcome.out.splitlines()[0] == VALUES[given], outcome.said()


BAD = {
    "--schedule.depth=x": "--schedule.depth=x: give a whole number",
    "--schedule.rate=nan": "--schedule.rate=nan: give a number",
    "--schedule.sizes=1,b": "--schedule.sizes=1,b: give whole numbers separated by commas",
    "--schedule.depth=9223372036854775808": "must fit in 64 bits",
    "--schedule.kind=men": "choose one of sum, mean; did you mean 'mean'?",
    "--schedule.name= a": "--schedule.name: must be one line without space around it",
    "--schedule.dept=3": "unknown flag --schedule.dept; did you mean 'schedule.depth'?",
    "--schedule.hook=3": "unknown flag --schedule.hook",
    "--schedule=needs": "--schedule.depth: give it; --schedule=needs needs it",
    "--model.rows=3": "unknown flag --model.rows",
    "--depht=3": "unknown flag --depht",
}


@pytest.mark.parametrize("argument", BAD)
def test_wrong_arguments(warm: Warm, arguments: Path, tmp_path: Path, argument: str):
    options = (f"--load={arguments}", "--schedule=many", argument, f"--run_dir={tmp_path / 'run'}")
    assert BAD[argument] in refused(warm.run(*options))


def test_arguments_of_what_is_not_selected(warm: Warm, arguments: Path, tmp_path: Path):
    """Arguments of a function that is not selected are refused, and ignored in a flagfile.

    A run whose config.flags holds such an argument resumes.
    """
    file, run_dir = tmp_path / "my.flags", tmp_path / "run"
    file.write_text("--schedule=many\n--schedule.rate=3\n--schedule.depth=2\n")
    options = (f"--load={arguments}", "--train_steps=1", f"--flagfile={file}")
    run = warm.train(run_dir, *options, "--schedule=constant")
    kept = run.run_dir / "config.flags"
    assert "--schedule.rate" not in kept.read_text()
    kept.write_text(kept.read_text() + "--schedule.rate=3\n")
    resumed = warm.train(run_dir, *options, "--schedule=constant", "--train_steps=2")
    assert resumed.result["step"] == 2
    run = warm.train(tmp_path / "needs", *options, "--schedule=needs")
    assert run.outcome.out.splitlines()[0] == "2.0"
    given = ("--schedule=needs", "--schedule.rate=3", f"--run_dir={tmp_path / 'none'}")
    line = refused(warm.run(*options, *given))
    assert "--schedule.rate: --schedule=needs has no such argument; it takes --schedule.de" in line
    line = refused(warm.run("--mode=evaluate", f"--run_dir={run_dir}", "--schedule.rate=3"))
    assert "--schedule=constant has no such argument; it takes none" in line


def test_help(warm: Warm, folder: Path, arguments: Path):
    outcome = warm.run("--help", f"--load={folder / 'my.py'},{arguments}")
    assert outcome.status == 0, outcome.said()
    mine = "Arguments of --optimizer=sign_descent: Descends along the sign of the mean gradient."
    assert f"{mine}\n  --optimizer.decay=0.9\n      share of the old mean, in every step." in (
        outcome.out
    )
    assert "\n  --schedule.depth=\n      depth of needs" in outcome.out
    assert (
        "constant, cosine, linear, piecewise_linear, piecewise_constant, step, exponential, "
        "one_cycle, plateau, waves, many, needs" in outcome.out
    )


def test_help_imports_no_tensorflow():
    code = (
        "import sys\nfrom tapeline.command import main\nassert main(['--help']) == 0\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True)
    assert done.returncode == 0, done.stderr

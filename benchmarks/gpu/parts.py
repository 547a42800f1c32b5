"""The parts of the GPU benchmark, most important first.

The order says what is lost when time runs out: the last parts.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu.workloads import FULL

_PYTHON = (sys.executable, "-m")
REFUSES = 2  # exit status of a command that refuses its options


class Part(NamedTuple):
    """A measurement, which is made in a process of its own.

    Attributes:
      name: unique name; those of a workload start with its name and a dot.
      command: command line, whose last line of JSON on standard output is the result.
      limit: seconds after which the process is killed.
      package: package that must be installed; "": none.
      may_refuse: whether exit status 2 is an answer, such as that XLA cannot compile a network.
      same_as: name of another part, which this one repeats if the other has found that
        `--jit=auto` is `jit`; "": none.
      jit: see `same_as`.
    """

    name: str
    command: tuple[str, ...]
    limit: float
    package: str = ""
    may_refuse: bool = False
    same_as: str = ""
    jit: str = ""


def parts(out: Path, *, rehearse: bool, data_dir: str) -> list[Part]:
    """Returns all parts in the order in which they run.

    Args:
      out: directory of the results; run directories and decoded data are made in it.
      rehearse: whether the parts run in tiny sizes on the CPU.
      data_dir: directory of prepared TFDS data sets; MNIST is used if it is there, and not in a
        rehearsal; otherwise the embedded digits.
    """
    rehearsed = ("--rehearse",) if rehearse else ()
    data = (*_dataset(rehearse, data_dir), f"--cache_dir={out / 'cache'}")
    if rehearse:
        data = (*data, "--strategy=cpu")

    def module(name: str, *arguments: str) -> tuple[str, ...]:
        return (*_PYTHON, f"benchmarks.gpu.{name}", *arguments)

    def steps(workload: str, contender: str, *arguments: str) -> tuple[str, ...]:
        return module(f"{contender}_steps", workload, *rehearsed, *arguments)

    def verify(precision: str) -> tuple[str, ...]:
        options = f"--run_dir={out / 'verify'}", f"--precision={precision}", "--progress=off"
        command = sys.executable, "run.py", "--mode=verify", "--flagfile=gpu.flags"
        return (*command, *data, *options)

    found = [
        Part("environment", module("environment"), 60),
        Part("gpu_flags", module("resume", str(out / "runs"), *data), 120),
        Part("verify_float32", verify("float32"), 75),
        Part("verify_bfloat16", verify("mixed_bfloat16"), 75),
    ]
    for contenders in (("engine", "bare"), ("keras",)):
        for name in FULL:
            for contender in contenders:
                found.append(Part(f"{name}.{contender}", steps(name, contender), 100))
    for name in reversed(FULL):
        for jit in ("off", "step", "loop"):
            command = steps(name, "engine", f"--jit={jit}")
            same = {"same_as": f"{name}.engine", "jit": jit}
            found.append(Part(f"{name}.jit_{jit}", command, 75, may_refuse=True, **same))
    return [*found, *_determinism(steps), *_others(steps)]


def _dataset(rehearse: bool, data_dir: str) -> tuple[str, ...]:
    if data_dir and not rehearse and (Path(data_dir) / "mnist").is_dir():
        return ("--dataset=mnist", f"--data_dir={Path(data_dir).absolute()}")
    return ("--dataset=digits", f"--epochs={20 if rehearse else 40}")


def _determinism(steps) -> list[Part]:
    """Returns the parts that show what op determinism costs, in the engine and the loop by hand.

    TensorFlow has no deterministic gradient of a max pool under XLA, and the loop by hand of
    ResNet-50 uses it: that is measured without XLA.
    """
    graph = "resnet50", "bare", "--jit=off"
    may_differ = [
        Part(f"{name}.engine_not_deterministic", steps(name, "engine", "--deterministic=no"), 60)
        for name in ("resnet50", "gpt2")
    ]
    return [
        *may_differ,
        Part("resnet50.bare_graph", steps(*graph), 60),
        Part("resnet50.bare_graph_deterministic", steps(*graph, "--deterministic"), 60),
        Part("gpt2.bare_deterministic", steps("gpt2", "bare", "--deterministic"), 60),
    ]


def _others(steps) -> list[Part]:
    """Returns the parts that measure float16, the feeds, and other frameworks."""
    half = "--precision=mixed_float16"
    real = "--benchmark_data=real"
    found = [
        Part(f"{name}.float16", steps(name, "engine", half), 60) for name in ("resnet50", "gpt2")
    ]
    for name, feed in (("W1", "stream"), ("resnet50", "resident"), ("resnet50", "stream")):
        command = steps(name, "engine", real, f"--feed={feed}", "--profile")
        found.append(Part(f"{name}.{feed}", command, 60))
    found += [
        Part("gpt2.torch", steps("gpt2", "torch"), 90, package="torch"),
        Part("gpt2.jax", steps("gpt2", "jax"), 90, package="jax"),
    ]
    return found

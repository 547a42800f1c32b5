"""Tests of the compilation cache: what XLA compiled is reused, and never changes a result."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
import tensorflow as tf

import pipelines
from engine.assembly.parts import Parts, assemble
from engine.config import flags
from engine.trainer import compilation_cache
from tests.cli.command import Run, Warm, await_rows

# 3 epochs of 11 steps; XLA compiles the loop.
COMPILED = ("--model=mlp", "--hidden=24", "--jit=auto", "--epochs=3", "--log_every=5")


class Cached:
    """Runs with one cache directory, and programs that XLA compiled in the last one."""

    def __init__(self, warm: Warm, folder: Path) -> None:
        self._warm, self._folder, self.cache_dir = warm, folder, folder / "cache"
        self._dumped = folder / "dumped"

    @property
    def options(self) -> list[str]:
        return [*COMPILED, f"--cache_dir={self.cache_dir}"]

    @property
    def environment(self) -> dict[str, str]:
        return {"XLA_FLAGS": f"--xla_dump_to={self._dumped}"}

    def train(self, name: str, *options: str, **environment: str) -> Run:
        """Trains a run, and returns it; asserts that nothing is left of its process."""
        shutil.rmtree(self._dumped, ignore_errors=True)
        run_dir = self._folder / name
        arguments = [f"--run_dir={run_dir}", *self.options, *options]
        outcome = self._warm.run(*arguments, **(self.environment | environment))
        assert (outcome.status, outcome.err) == (0, ""), outcome.said()
        assert not self.processes()
        return Run(run_dir, outcome)

    def compiled(self) -> bool:
        """Returns whether XLA compiled the training loop of the last run."""
        return bool(list(self._dumped.glob("*_steps_*after_optimizations.txt")))

    def programs(self) -> list[Path]:
        return sorted(self.cache_dir.glob("*.program"))

    def processes(self) -> list[Path]:
        return sorted(self.cache_dir.glob("programs-*"))


@pytest.fixture
def cached(warm: Warm, tmp_path: Path) -> Cached:
    return Cached(warm, tmp_path)


def test_resume_does_not_compile_again(cached: Cached):
    """Nor does the same run again, also one that is longer; the bits are those without a cache."""
    cached.train("run")
    (program,) = cached.programs()
    assert cached.compiled()
    resumed = cached.train("run", "--epochs=5")
    assert not cached.compiled()
    again = cached.train("again", "--epochs=5")
    assert not cached.compiled() and cached.programs() == [program]
    without = cached.train("without", "--epochs=5", "--compilation_cache=false")
    assert cached.compiled()
    bits = {run.result["weights_sha256"] for run in (resumed, again, without)}
    assert len(bits) == 1
    assert resumed.curves == without.curves


def test_damaged_program_is_compiled_again(cached: Cached):
    first = cached.train("first")
    (program,) = cached.programs()
    content = bytearray(program.read_bytes())
    content[len(content) // 2] ^= 1
    program.write_bytes(content)
    second = cached.train("second")
    assert cached.compiled()
    assert second.result["weights_sha256"] == first.result["weights_sha256"]
    cached.train("third")  # the damaged program was replaced
    assert not cached.compiled()


@pytest.mark.parametrize("size", [0, 10, 60, -1])
def test_damaged_files_are_left_out(tmp_path: Path, size: int):
    pipelines.store_program(str(tmp_path), "key", "a.pb", b"program")
    pipelines.store_program(str(tmp_path), "key", "b.pb", b"other")
    pipelines.store_program(str(tmp_path), "another", "c.pb", b"third")
    assert dict(pipelines.load_programs(str(tmp_path), "key")) == {
        "a.pb": b"program",
        "b.pb": b"other",
    }
    for path in tmp_path.glob("key-*"):
        path.write_bytes(path.read_bytes()[:size])
    assert not dict(pipelines.load_programs(str(tmp_path), "key"))


def test_other_options_have_other_programs(cached: Cached):
    cached.train("one")
    cached.train("other", "--hidden=25")
    assert cached.compiled() and len(cached.programs()) == 2
    cached.train("executor", "--jit=off")
    assert len(cached.programs()) == 2


def test_directory_of_a_killed_process_is_deleted(cached: Cached, warm: Warm, tmp_path: Path):
    options = [f"--run_dir={tmp_path / 'killed'}", *cached.options, "--epochs=100000"]
    with warm.started(*options, **cached.environment) as process:
        await_rows(process, tmp_path / "killed", 1)
        assert len(cached.processes()) == 1
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(cached.processes()) == 1
    cached.train("next")  # asserts that nothing is left


def test_directory_of_the_user_has_precedence(cached: Cached, tmp_path: Path):
    mine = tmp_path / "mine"
    cached.train("run", TF_XLA_FLAGS=f"--tf_xla_persistent_cache_directory={mine}")
    assert not cached.programs() and len(list(mine.iterdir())) == 1


def test_directory_that_cannot_be_made(tmp_path: Path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(compilation_cache, "_directories", {})
    monkeypatch.delenv("TF_XLA_FLAGS", raising=False)
    config = flags.parse([*COMPILED, f"--cache_dir={tmp_path / 'file'}"])
    with compilation_cache.CompilationCache(config).enabled():
        assert "TF_XLA_FLAGS" not in os.environ


def test_no_directory_on_a_full_disk(tmp_path: Path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=(1 << 30) - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(compilation_cache, "_directories", {})
    assert compilation_cache._process_directory(str(tmp_path)) is None
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def parts(cache_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Parts:
    run_dir = tmp_path_factory.mktemp("run")
    config = flags.parse([*COMPILED, f"--cache_dir={cache_dir}", f"--run_dir={run_dir}"])
    parts = assemble(config)
    parts.trace()
    return parts


@pytest.mark.parametrize("what", ["version", "processor", "cores", "variable"])
def test_key_of_another_machine(parts: Parts, monkeypatch, what: str):
    """A program of another TensorFlow, processor or setting of XLA is never loaded."""
    here = compilation_cache.key(parts)
    assert compilation_cache.key(parts) == here
    if what == "version":
        monkeypatch.setattr(tf.version, "VERSION", "2.99.0")
    elif what == "processor":
        monkeypatch.setattr(compilation_cache, "_processor", lambda: "flags : sse2")
    elif what == "cores":
        monkeypatch.setattr(pipelines, "usable_cores", lambda: 3)
    else:
        before = os.environ.get("XLA_FLAGS", "")
        monkeypatch.setenv("XLA_FLAGS", f"{before} --xla_cpu_enable_fast_math=true")
    assert compilation_cache.key(parts) != here

"""Persistent compilation cache: programs that XLA compiled are reused by later processes.

TensorFlow can write each compiled program to a directory and load it from there. It does not record
which version or processor a program is for, does not detect changed bytes, and fails if a file
cannot be parsed. So each process has its own directory, to which only programs with the right key
and digest are copied before the first step, and from which new ones are copied to the cache
afterwards. A cached program is the one that XLA would compile, so it does not change a result.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tensorflow as tf
from tensorflow.python.framework import ops

import pipelines
from engine.assembly.data import cache_dir
from engine.assembly.parts import Parts
from engine.config.schema import Config
from engine.runtime import onednn

_FLAGS = "TF_XLA_FLAGS"
_OPTION = "--tf_xla_persistent_cache_directory="
_PREFIX = "programs-"  # of the name of a process's directory, followed by its process ID
_MIN_FREE = 1 << 30  # free bytes of the disk below which there is no cache: a write must not fail
_NAMES = 100_000
_VARIABLES = re.compile(r"(TF_)?XLA_|TF_ENABLE_|ONEDNN_|DNNL_|OMP_|TF_NUM_")

_directories: dict[str, Path] = {}  # the directory of this process, by its process ID


class CompilationCache:
    """Compilation cache of a training run on one CPU device; of other runs, it does nothing.

    Args:
      config: options of the run.
    """

    def __init__(self, config: Config) -> None:
        self._cache_dir = cache_dir(config)
        self._wanted = config.loop.compilation_cache and config.loop.jit != "off"
        self._directory: Path | None = None
        self._key = ""
        self._known: set[str] = set()

    @contextlib.contextmanager
    def enabled(self) -> Iterator[None]:
        """Makes TensorFlow use the directory of this process, if it starts in the `with` block.

        TensorFlow reads the environment variable when it runs its first operation. A variable that
        names a directory for compiled programs has precedence: then there is no cache.
        """
        before = os.environ.get(_FLAGS)
        if self._wanted and "persistent_cache" not in (before or ""):
            with contextlib.suppress(OSError):  # without a directory, XLA compiles as usual
                self._directory = _process_directory(self._cache_dir)
        if self._directory is None:
            yield
            return
        os.environ[_FLAGS] = " ".join(filter(None, [before, f"{_OPTION}{self._directory}"]))
        try:
            yield
        finally:  # processes that this one starts have directories of their own
            if before is None:
                del os.environ[_FLAGS]
            else:
                os.environ[_FLAGS] = before

    def before_trace(self) -> None:
        """Makes the names in the graph that is traced next independent of earlier traces.

        XLA's programs depend on the names of functions, which end with a number that TensorFlow
        counts up, and a first run traces functions that decode the data. So the count continues at
        the next multiple of 100,000.
        """
        if self._directory is not None:
            while ops.uid() % _NAMES:
                pass

    def restore(self, parts: Parts) -> None:
        """Copies the cached programs of the traced training loop to the directory of this process.

        Does nothing if XLA does not compile the run. Errors of files are ignored.
        """
        if parts.jit == "off" or parts.device != "CPU":
            self._directory = None
        if self._directory is None:
            return
        self._key = key(parts)
        for name, program in pipelines.load_programs(self._cache_dir, self._key):
            with contextlib.suppress(OSError):
                (self._directory / name).write_bytes(program)
                self._known.add(name)

    def store(self) -> None:
        """Copies programs that XLA compiled since `restore` to the cache; ignores OSError."""
        if self._directory is None:
            return
        with contextlib.suppress(OSError):
            for path in sorted(self._directory.iterdir()):
                if path.suffix == ".pb" and path.name not in self._known:
                    self._known.add(path.name)
                    pipelines.store_program(
                        self._cache_dir, self._key, path.name, path.read_bytes()
                    )


def key(parts: Parts) -> str:
    """Returns the cache key of the programs of a run: a hash of all that they depend on.

    These are the graph of the traced training loop, the build of TensorFlow, the processor, the
    number of threads, the environment variables of XLA and oneDNN, and whether oneDNN is on.
    """
    graph = parts.loop.graph().graph.as_graph_def().SerializeToString(deterministic=True)
    texts = [
        *(tf.version.VERSION, tf.version.GIT_VERSION, tf.version.COMPILER_VERSION),
        *(platform.machine(), _processor(), str(pipelines.usable_cores())),
        str(tf.config.threading.get_intra_op_parallelism_threads()),
        *(f"{n}={value}" for n, value in sorted(os.environ.items()) if _VARIABLES.match(n)),
        onednn.state(),
        hashlib.sha256(graph).hexdigest(),
    ]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:32]


def _processor() -> str:
    """Returns the model and the instruction sets of the processor, as the system tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    kept = (line for line in lines if re.match(r"(model name|flags|Features|CPU part)\s*:", line))
    return "\n".join(dict.fromkeys(kept))


def _process_directory(parent: str) -> Path | None:
    """Returns the directory of this process in `parent`, which is deleted when the process exits.

    Deletes directories of processes that no longer run.

    Returns:
      The directory; None if the disk has too little space for a cache.

    Raises:
      OSError: if a directory cannot be created.
    """
    process = str(os.getpid())
    if process not in _directories:
        os.makedirs(parent, exist_ok=True)
        for left in Path(parent).glob(f"{_PREFIX}*"):
            if not _runs(left.name.removeprefix(_PREFIX).partition("-")[0]):
                shutil.rmtree(left, ignore_errors=True)
        if shutil.disk_usage(parent).free < _MIN_FREE:
            return None
        path = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{process}-", dir=parent))
        _directories[process] = path
        atexit.register(_delete, path, process)
    return _directories[process]


def _delete(path: Path, process: str) -> None:
    if str(os.getpid()) == process:  # a forked process also runs this
        shutil.rmtree(path, ignore_errors=True)


def _runs(process: str) -> bool:
    """Returns whether a process with this ID runs; also True if `process` is no ID."""
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OSError):
        return True
    return True

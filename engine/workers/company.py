"""A process and those it trains with, from before TensorFlow is imported to the end."""

from __future__ import annotations

import hashlib
import time
from types import TracebackType

import engine
from engine import flags
from engine.config import Config
from engine.workers import cluster as clusters
from engine.workers.cluster import Cluster
from engine.workers.meeting import meet
from engine.workers.peers import Peers

_OWN = ("run_dir", "data_dir", "cache_dir", "progress")  # options that may differ between machines


class Company:
    """While entered, all workers are there; leaving waits until all are done.

    A worker that fails tells the others why, and the loss of one ends all, with one line that says
    which. Alone, none of this happens.

    Args:
      config: all options; `--strategy=multi_worker` says that there are others.
      environment: of the process, which says who.
    """

    def __init__(self, config: Config, environment: dict[str, str]) -> None:
        self.cluster: Cluster | None = None
        self.peers: Peers | None = None
        self._config = config
        if config.training.strategy == "multi_worker":
            self.cluster = clusters.read(config.training.cluster, environment)

    def __enter__(self) -> Company:
        if self.cluster is not None:
            seconds = self._config.training.cluster_timeout
            connections = meet(self.cluster, _digest(self._config), seconds)
            self.peers = Peers(self.cluster, connections)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.peers is None:
            return
        if error is None:
            self.peers.leave()
        elif isinstance(error, RuntimeError) and (lost := self._lost()):
            raise RuntimeError(lost) from error
        else:
            self.peers.fail(" ".join(str(error).split()) or type(error).__name__)

    @property
    def is_chief(self) -> bool:
        """Whether this process writes what the run keeps."""
        return self.cluster is None or self.cluster.is_chief

    def _lost(self) -> str | None:
        """Which worker was lost; TensorFlow may notice sooner than the one who watches."""
        assert self.peers is not None
        deadline = time.monotonic() + 3
        while self.peers.lost is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.peers.lost


def _digest(config: Config) -> str:
    """Of what all workers must have in common."""
    lines = flags.flagfile(config).splitlines()
    shared = [line for line in lines if not line.startswith(tuple(f"--{name}=" for name in _OWN))]
    return hashlib.sha256("\n".join([engine.__version__, *shared]).encode()).hexdigest()

"""The workers that train together, from before TensorFlow is imported to the end."""

from __future__ import annotations

import hashlib
import time
from types import TracebackType

import engine
from engine.config import flags
from engine.config.schema import Config
from engine.distributed import cluster_config as clusters
from engine.distributed.cluster_config import ClusterConfig
from engine.distributed.liveness import LivenessMonitor
from engine.distributed.rendezvous import join_cluster

_OWN = ("run_dir", "data_dir", "cache_dir", "progress")  # options that may differ between machines


class Cluster:
    """Connects the workers: entering waits until all have joined, leaving until all are done.

    A worker that fails sends the reason to the others. The loss of a worker ends all of them, with
    one line that names it. With a single worker, entering and leaving do nothing.

    Args:
      config: all options; `--strategy=multi_worker` means that there are other workers.
      environment: environment variables of the process, which describe the cluster.
    """

    def __init__(self, config: Config, environment: dict[str, str]) -> None:
        self.cluster: ClusterConfig | None = None
        self.peers: LivenessMonitor | None = None
        self._config = config
        if config.training.strategy == "multi_worker":
            self.cluster = clusters.read(config.training.cluster, environment)

    def __enter__(self) -> Cluster:
        if self.cluster is not None:
            seconds = self._config.training.cluster_timeout
            connections = join_cluster(self.cluster, _digest(self._config), seconds)
            self.peers = LivenessMonitor(self.cluster, connections)
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
        """Whether this process is the chief, which writes the run directory."""
        return self.cluster is None or self.cluster.is_chief

    def _lost(self) -> str | None:
        """Returns why a worker was lost, or None if none was.

        Waits up to 3 s, because TensorFlow may notice the loss before the liveness monitor does.
        """
        assert self.peers is not None
        deadline = time.monotonic() + 3
        while self.peers.lost is None and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.peers.lost


def _digest(config: Config) -> str:
    """Returns a digest of the version and of the options that all workers must share."""
    lines = flags.flagfile(config).splitlines()
    shared = [line for line in lines if not line.startswith(tuple(f"--{name}=" for name in _OWN))]
    return hashlib.sha256("\n".join([engine.__version__, *shared]).encode()).hexdigest()

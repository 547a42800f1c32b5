"""Options of the devices, the cluster and the threads."""

from __future__ import annotations

import dataclasses

from engine.config.option import OptionGroup, option


@dataclasses.dataclass(frozen=True)
class DeviceOptions(OptionGroup):
    """Devices, machines and threads.

    The first line is the heading of these options in `--help`.

    Raises:
      ValueError: if a value is invalid, see `OptionGroup`, or for virtual devices with a strategy
        of "gpu" or "multi_worker".
    """

    strategy: str = option(
        "auto",
        "auto: the one device there is, or all GPUs; cpu; gpu: one GPU; mirrored: all GPUs, "
        "or the virtual devices; multi_worker: the GPUs, or the CPU, of several machines",
        choices=("auto", "cpu", "gpu", "mirrored", "multi_worker"),
    )
    virtual_devices: int = option(
        0,
        "split the CPU into this many virtual devices, to try replicas on any machine; not "
        "with --strategy=gpu or multi_worker",
        minimum=0,
        below=65,
    )
    cluster: str = option(
        "tf_config",
        "where multi_worker reads the cluster from. tf_config: the variable TF_CONFIG; slurm: "
        "the variables of a Slurm job step",
        choices=("tf_config", "slurm"),
    )
    cluster_timeout: int = option(
        300, "seconds that multi_worker waits for the other workers at the start", minimum=1
    )
    shards: int = option(
        0,
        "virtual shards of a global batch, so that any number of devices gives the same bits; "
        "a power of 2; 0: off",
        minimum=0,
        below=1025,
        power_of_2=True,
        trajectory=True,
    )
    intra_op_threads: int = option(
        0,
        "threads of one TensorFlow operation; another number may round sums differently; 0: "
        "one per core, or a single one for a network so small that it is faster",
        minimum=0,
        below=4097,
    )
    inter_op_threads: int = option(
        0, "TensorFlow operations in parallel; 0: one per core", minimum=0, below=4097
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.virtual_devices and self.strategy in ("gpu", "multi_worker"):
            raise ValueError(
                f"--strategy={self.strategy} is one device a machine and --virtual_devices="
                f"{self.virtual_devices} asks for several: leave one of them out"
            )

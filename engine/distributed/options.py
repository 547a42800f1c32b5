"""Options of the devices, the cluster and the threads."""

from __future__ import annotations

import dataclasses

from engine.config.option import OptionGroup, option

# What --deterministic=no gives up, for messages.
GIVEN_UP = (
    "the same bits: on a GPU, two runs of one seed differ by rounding, and a resumed run from one "
    "that was not interrupted"
)
LEAST_GPU_MEMORY_MB = 256  # of --gpu_memory_mb, MiB


@dataclasses.dataclass(frozen=True)
class DeviceOptions(OptionGroup):
    """Devices, machines and threads.

    The first line is the heading of these options in `--help`.

    Raises:
      ValueError: if a value is invalid, see `OptionGroup`; for virtual devices with a strategy of
        "gpu" or "multi_worker"; or for a `gpu_memory_mb` that is too small, or where no GPU is
        used.
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
    # A part of the trajectory, as --jit: kernels that need not be deterministic are other kernels,
    # which round differently, and `deterministic` in result.json must hold for all steps of a run.
    deterministic: str = option(
        "auto",
        "whether operations on a GPU give the same bits each time. yes: they do; no: faster for "
        "some networks, and two runs of one seed, or a resumed run, differ by rounding; auto: yes. "
        "A CPU is deterministic always",
        choices=("auto", "yes", "no"),
        same={"auto": "yes"},
        trajectory=True,
    )
    # A part of the trajectory, as --jit. A run keeps what auto was resolved to.
    onednn: str = option(
        "auto",
        "whether TensorFlow uses the kernels of oneDNN on a CPU, which round differently. on; off; "
        "auto: as is faster for the network on this processor. The variable TF_ENABLE_ONEDNN_OPTS "
        "has precedence, and a resume keeps what was chosen",
        choices=("auto", "on", "off"),
        trajectory=True,
    )
    gpu_memory_mb: int = option(
        0,
        "most memory that TensorFlow takes of each GPU, in MiB, 256 or more; 0: as much as it "
        "needs. It takes memory when it needs it, and keeps it",
        minimum=0,
        below=1 << 24,
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
        memory = f"--gpu_memory_mb={self.gpu_memory_mb}"
        if 0 < self.gpu_memory_mb < LEAST_GPU_MEMORY_MB:
            raise ValueError(
                f"{memory}: is too little for TensorFlow; give {LEAST_GPU_MEMORY_MB} or more, or 0 "
                "for no limit"
            )
        if self.gpu_memory_mb and (self.virtual_devices or self.strategy == "cpu"):
            other = f"--virtual_devices={self.virtual_devices}"
            if self.strategy == "cpu":
                other = "--strategy=cpu"
            raise ValueError(
                f"{memory}: limits the memory of GPUs, and {other} uses none: leave one of them out"
            )

    @property
    def is_deterministic(self) -> bool:
        """Whether a run of these options promises the same bits each time on the same devices."""
        return self.deterministic != "no"

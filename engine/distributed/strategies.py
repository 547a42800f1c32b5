"""Selection of the `tf.distribute` strategy and its devices."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from engine.distributed import gpus
from engine.distributed.collectives import HostCollectives
from engine.distributed.options import DeviceOptions


class Devices(NamedTuple):
    """The distribution strategy of a run, and a description of its devices for display."""

    strategy: tf.distribute.Strategy
    description: str

    @property
    def replicas(self) -> int:
        """Number of replicas, among which a global batch is divided."""
        return self.strategy.num_replicas_in_sync

    @property
    def are_gpus(self) -> bool:
        """Whether the devices are GPUs."""
        return "GPU" in self.description


class Topologies(NamedTuple):
    """Devices on which a configuration is verified.

    Attributes:
      configured: devices that the configuration trains on, or their replacements on this machine.
      one: a single device; a CPU where training uses a single GPU.
      many: several devices: virtual CPU devices if `one` is a CPU, GPUs if it is a GPU.
      note: differences between these devices and those of the configuration; empty: no differences.
    """

    configured: Devices
    one: Devices
    many: Devices
    note: str


def choose(options: DeviceOptions, collectives: HostCollectives) -> Devices:
    """Configures TensorFlow's devices and op determinism; returns the strategy and its devices.

    Args:
      options: strategy, virtual devices, determinism and limit of the memory of GPUs.
      collectives: collective operations; with a cluster, the strategy is `collectives.strategy()`.

    Raises:
      ValueError: if the strategy is "gpu" or "mirrored", without virtual devices, or the memory of
        GPUs is limited, and there is no GPU; or if TensorFlow has started with too few CPU devices,
        or with another limit.
      RuntimeError: if TensorFlow cannot start its server at the address of this worker.
    """
    name, virtual_devices = options.strategy, options.virtual_devices
    gpus.check(name, virtual_devices, options.gpu_memory_mb)
    _prepare(options, virtual_devices, hide_gpus=name == "cpu" or virtual_devices > 0)
    if collectives:
        strategy = collectives.strategy()
        count, kind = strategy.num_replicas_in_sync, _gpu_name() if gpus.physical() else "CPU"
        return Devices(strategy, f"{count} x {kind} of several workers")
    visible = tf.config.list_logical_devices("GPU")
    if virtual_devices > 1 or (virtual_devices and name == "mirrored"):
        return _mirrored_cpu(virtual_devices)
    if name == "mirrored" or (name == "auto" and len(visible) > 1):
        return _mirrored_gpus(len(visible))
    return _single(bool(visible))


def set_threads(intra_op: int, inter_op: int) -> None:
    """Sets TensorFlow's numbers of threads; must be called before the first tensor is created.

    Args:
      intra_op: number of threads of one operation; 0: unchanged.
      inter_op: number of operations that run in parallel; 0: unchanged.

    Raises:
      ValueError: if TensorFlow has started with other numbers of threads.
    """
    threading = tf.config.threading
    for name, count in (("intra", intra_op), ("inter", inter_op)):
        try:
            if count and count != getattr(threading, f"get_{name}_op_parallelism_threads")():
                getattr(threading, f"set_{name}_op_parallelism_threads")(count)
        except RuntimeError:
            raise ValueError(
                f"--{name}_op_threads={count}: TensorFlow has started with other threads; ask for "
                "them before anything makes a tensor"
            ) from None


def topologies(options: DeviceOptions) -> Topologies:
    """Configures TensorFlow's devices; returns those on which a configuration is verified.

    These are the devices of training with this `--strategy` and `--virtual_devices`, and one device
    and several, on which a step is compared: the GPUs, if training uses several, otherwise at least
    two virtual CPU devices. A CPU replaces a missing GPU, and this machine replaces other workers.

    Args:
      options: strategy, virtual devices, determinism and limit of the memory of GPUs.

    Raises:
      ValueError: if TensorFlow has started already, with too few CPU devices, or another limit of
        the memory of GPUs.
    """
    name, virtual_devices = options.strategy, options.virtual_devices
    use_cpu = name == "cpu" or (virtual_devices > 0 and name != "gpu")
    count = 0 if use_cpu else len(gpus.physical())
    _prepare(options, max(virtual_devices, 2), hide_gpus=not count)
    many = _mirrored_cpu(max(virtual_devices, 2))
    notes = []
    if name == "multi_worker":
        notes.append(
            "--strategy=multi_worker: replicas on this machine stand in for the other machines"
        )
    if count > 1 and name != "gpu":
        configured = many = _mirrored_gpus(count)
        one = _single(True)
    elif count:
        one = Devices(tf.distribute.OneDeviceStrategy("CPU:0"), "CPU")
        configured = _mirrored_gpus(1) if name == "mirrored" else _single(True)
        notes.append(f"one GPU is used: replicas are compared on the CPU, {many.description}")
    else:
        one = _single(False)
        configured = many if name == "mirrored" or (virtual_devices > 1 and name != "gpu") else one
        if name in ("gpu", "mirrored") and not use_cpu:
            notes.append(
                f"--strategy={name} asks for a GPU and TensorFlow finds none: the CPU stands in"
            )
    return Topologies(configured, one, many, "; ".join(notes))


def check_shards(shards: int, strategy: tf.distribute.Strategy) -> int:
    """Returns `shards`, the number of virtual shards, after a check; 0 stands for none.

    Raises:
      ValueError: if there are shards, and the number of replicas is not a power of 2 or does not
        divide the number of shards.
    """
    replicas = strategy.num_replicas_in_sync
    if shards and (shards % replicas or replicas & (replicas - 1)):
        raise ValueError(
            f"--shards={shards}: {replicas} devices cannot share them equally; give a power of 2 "
            "from the number of devices up, and train on 1, 2, 4, 8, ... devices"
        )
    return shards


def mirrored(kind: str, count: int) -> tf.distribute.MirroredStrategy:
    """Returns a MirroredStrategy over the first `count` devices; `kind` is "CPU" or "GPU"."""
    # NCCL, the default, supports only GPUs; TensorFlow's substitute for virtual CPU devices allows
    # only one number of devices per process. A reduction to one device sums in a fixed order.
    operations = tf.distribute.ReductionToOneDevice() if kind == "CPU" else None
    devices = [f"{kind}:{i}" for i in range(count)]
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=operations)


def _mirrored_cpu(count: int) -> Devices:
    return Devices(mirrored("CPU", count), f"{count} virtual CPU devices, mirrored")


def _mirrored_gpus(count: int) -> Devices:
    return Devices(mirrored("GPU", count), f"{count} x {_gpu_name()}, mirrored")


def _single(gpu: bool) -> Devices:
    """Returns the default strategy, which runs on one device, with a description of the device.

    `gpu` is whether TensorFlow sees a GPU; the device is the first GPU, or otherwise the CPU.
    """
    return Devices(tf.distribute.get_strategy(), _gpu_name() if gpu else "CPU")


def _gpu_name() -> str:
    details = tf.config.experimental.get_device_details(gpus.physical()[0])
    return f"GPU {details.get('device_name', '')}".strip()


def _prepare(options: DeviceOptions, virtual_devices: int, *, hide_gpus: bool) -> None:
    """Configures TensorFlow's devices, their memory, and op determinism.

    Args:
      options: determinism and limit of the memory of GPUs.
      virtual_devices: number of devices to split the CPU into; 0: the CPU is not split.
      hide_gpus: whether to hide all GPUs; otherwise TensorFlow allocates GPU memory as needed.

    Raises:
      ValueError: if TensorFlow has started already, with too few CPU devices, or another limit of
        the memory of GPUs.
    """
    # L3: bitwise identical runs, also on a GPU. On the CPU, where it costs nothing, always.
    on_gpus = not hide_gpus and bool(gpus.physical())
    gpus.set_determinism(options.is_deterministic or not on_gpus)
    try:
        if hide_gpus:
            tf.config.set_visible_devices([], "GPU")
        gpus.configure(tf.config.get_visible_devices("GPU"), options.gpu_memory_mb)
        if virtual_devices:
            tf.config.set_logical_device_configuration(
                tf.config.list_physical_devices("CPU")[0],
                [tf.config.LogicalDeviceConfiguration()] * virtual_devices,
            )
    except RuntimeError:
        # TensorFlow has started, as in a notebook or a test: its devices may be sufficient.
        if len(tf.config.list_logical_devices("CPU")) < max(virtual_devices, 1):
            raise ValueError(
                f"--virtual_devices={virtual_devices}: TensorFlow has started with fewer devices; "
                "ask for them before anything makes a tensor"
            ) from None

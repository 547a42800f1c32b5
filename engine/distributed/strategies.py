"""Selection of the `tf.distribute` strategy and its devices."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from engine.distributed.collectives import HostCollectives


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


def choose(name: str, virtual_devices: int, collectives: HostCollectives) -> Devices:
    """Configures TensorFlow's devices and op determinism; returns the strategy and its devices.

    Args:
      name: value of `--strategy`.
      virtual_devices: number of devices to split the CPU into; 0: the CPU is not split.
      collectives: collective operations; with a cluster, the strategy is `collectives.strategy()`.

    Raises:
      ValueError: if `name` is "gpu" or "mirrored", `virtual_devices` is 0 and there is no GPU, or
        if TensorFlow has started with too few CPU devices.
      RuntimeError: if TensorFlow cannot start its server at the address of this worker.
    """
    if name in ("gpu", "mirrored") and not virtual_devices and not _gpus():
        raise ValueError(
            f"--strategy={name}: TensorFlow finds no GPU on this machine; install the driver and "
            "tensorflow[and-cuda], or run on the CPU with --flagfile=cpu.flags"
            + (" or --virtual_devices=2" if name == "mirrored" else "")
        )
    _prepare(virtual_devices, hide_gpus=name == "cpu" or virtual_devices > 0)
    if collectives:
        strategy = collectives.strategy()
        count, kind = strategy.num_replicas_in_sync, _gpu_name() if _gpus() else "CPU"
        return Devices(strategy, f"{count} x {kind} of several workers")
    gpus = tf.config.list_logical_devices("GPU")
    if virtual_devices > 1 or (virtual_devices and name == "mirrored"):
        return _mirrored_cpu(virtual_devices)
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        return _mirrored_gpus(len(gpus))
    return _single(bool(gpus))


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


def topologies(name: str, virtual_devices: int) -> Topologies:
    """Configures TensorFlow's devices; returns those on which a configuration is verified.

    These are the devices of training with this `--strategy` and `--virtual_devices`, and one device
    and several, on which a step is compared: the GPUs, if training uses several, otherwise at least
    two virtual CPU devices. A CPU replaces a missing GPU, and this machine replaces other workers.

    Args:
      name: value of `--strategy`.
      virtual_devices: value of `--virtual_devices`.

    Raises:
      ValueError: if TensorFlow has started already, with too few CPU devices.
    """
    use_cpu = name == "cpu" or (virtual_devices > 0 and name != "gpu")
    gpus = 0 if use_cpu else len(_gpus())
    _prepare(max(virtual_devices, 2), hide_gpus=not gpus)
    many = _mirrored_cpu(max(virtual_devices, 2))
    notes = []
    if name == "multi_worker":
        notes.append(
            "--strategy=multi_worker: replicas on this machine stand in for the other machines"
        )
    if gpus > 1 and name != "gpu":
        configured = many = _mirrored_gpus(gpus)
        one = _single(True)
    elif gpus:
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


def _gpus() -> list:
    return tf.config.list_physical_devices("GPU")


def _gpu_name() -> str:
    details = tf.config.experimental.get_device_details(_gpus()[0])
    return f"GPU {details.get('device_name', '')}".strip()


def _prepare(virtual_devices: int, *, hide_gpus: bool) -> None:
    """Configures TensorFlow's devices, and enables op determinism.

    Args:
      virtual_devices: number of devices to split the CPU into; 0: the CPU is not split.
      hide_gpus: whether to hide all GPUs; otherwise TensorFlow allocates GPU memory as needed.

    Raises:
      ValueError: if TensorFlow has started already, with too few CPU devices.
    """
    tf.config.experimental.enable_op_determinism()  # L3: bitwise identical runs, also on a GPU
    try:
        if hide_gpus:
            tf.config.set_visible_devices([], "GPU")
        for gpu in tf.config.get_visible_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
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

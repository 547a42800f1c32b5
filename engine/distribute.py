"""Which strategy, on which devices."""

from __future__ import annotations

import tensorflow as tf

from engine.workers.crew import Crew


def choose(name: str, virtual_devices: int, crew: Crew) -> tuple[tf.distribute.Strategy, str]:
    """Picks the strategy; a device that was asked for and is not there is an error.

    Args:
      name: auto, cpu, gpu, mirrored or multi_worker.
      virtual_devices: into how many devices the CPU is split; 0: it is not.
      crew: the workers, where there are several.

    Returns:
      The strategy, and in words what it runs on.

    Raises:
      ValueError: when there is no such device.
    """
    if name in ("gpu", "mirrored") and not virtual_devices and not _gpus():
        raise ValueError(
            f"--strategy={name}: TensorFlow finds no GPU on this machine; install the driver and "
            "tensorflow[and-cuda], or run on the CPU with --flagfile=cpu.flags"
            + (" or --virtual_devices=2" if name == "mirrored" else "")
        )
    _prepare(virtual_devices, hide_gpus=name == "cpu" or virtual_devices > 0)
    if crew:
        strategy = crew.strategy()
        count, kind = strategy.num_replicas_in_sync, _gpu_name() if _gpus() else "CPU"
        return strategy, f"{count} x {kind} of several workers"
    gpus = tf.config.list_logical_devices("GPU")
    if virtual_devices > 1 or (virtual_devices and name == "mirrored"):
        return mirrored("CPU", virtual_devices), f"{virtual_devices} virtual CPU devices, mirrored"
    if name == "mirrored" or (name == "auto" and len(gpus) > 1):
        return mirrored("GPU", len(gpus)), f"{len(gpus)} x {_gpu_name()}, mirrored"
    # The default strategy is one device without any machinery: the first GPU, or the CPU.
    return tf.distribute.get_strategy(), _gpu_name() if gpus else "CPU"


def check_shards(shards: int, strategy: tf.distribute.Strategy) -> int:
    """The number of virtual shards, when the replicas can share them equally.

    Raises:
      ValueError: when they cannot.
    """
    replicas = strategy.num_replicas_in_sync
    if shards and (shards % replicas or replicas & (replicas - 1)):
        raise ValueError(
            f"--shards={shards}: {replicas} devices cannot share them equally; give a power of 2 "
            "from the number of devices up, and train on 1, 2, 4, 8, ... devices"
        )
    return shards


def mirrored(kind: str, count: int) -> tf.distribute.MirroredStrategy:
    """Mirrors variables over the first `count` devices of a kind, "CPU" or "GPU"."""
    # NCCL, the default, is for GPUs. On virtual CPU devices its stand-in allows one number of
    # devices a process, and there is nothing to gain: adding up on one device is a plain sum in
    # a fixed order.
    operations = tf.distribute.ReductionToOneDevice() if kind == "CPU" else None
    devices = [f"{kind}:{i}" for i in range(count)]
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=operations)


def _gpus() -> list:
    return tf.config.list_physical_devices("GPU")


def _gpu_name() -> str:
    details = tf.config.experimental.get_device_details(_gpus()[0])
    return f"GPU {details.get('device_name', '')}".strip()


def _prepare(virtual_devices: int, *, hide_gpus: bool) -> None:
    """Sets TensorFlow's devices up, which it allows once, before the first tensor."""
    tf.config.experimental.enable_op_determinism()  # L3: the same bits again, on a GPU too
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
    except RuntimeError as error:
        # Already started, as in a notebook or a test: what there is may still do.
        if len(tf.config.list_logical_devices("CPU")) < max(virtual_devices, 1):
            raise ValueError(f"--virtual_devices={virtual_devices}: {error}") from None

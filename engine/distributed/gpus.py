"""The GPUs of this machine: which TensorFlow finds, limits of their memory, and op determinism."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping

import tensorflow as tf
from tensorflow.python.framework import config as determinism

_GROWTH = "TF_FORCE_GPU_ALLOW_GROWTH"
_VISIBLE = "CUDA_VISIBLE_DEVICES"
_MIB = 1 << 20


def physical() -> list:
    """Returns TensorFlow's physical GPUs, of which `CUDA_VISIBLE_DEVICES` may hide some."""
    return tf.config.list_physical_devices("GPU")


def hidden_by(environment: Mapping[str, str]) -> str:
    """Returns the part of an error message about `CUDA_VISIBLE_DEVICES`; "" if it is not set.

    An empty value, or "-1", hides all GPUs; another one may name GPUs that do not exist.
    """
    value = environment.get(_VISIBLE)
    if value is None:
        return ""
    if value.strip() in ("", "-1", "NoDevFiles"):
        return f"the variable {_VISIBLE}={value} hides all GPUs: unset it, "
    return f"the variable {_VISIBLE}={value} may name GPUs that do not exist: correct it, "


def check(strategy: str, virtual_devices: int, memory_mb: int) -> None:
    """Raises ValueError if the options need a GPU and TensorFlow finds none.

    Args:
      strategy: value of `--strategy`.
      virtual_devices: value of `--virtual_devices`.
      memory_mb: value of `--gpu_memory_mb`.
    """
    if physical():
        return
    hidden = hidden_by(os.environ)
    if strategy in ("gpu", "mirrored") and not virtual_devices:
        raise ValueError(
            f"--strategy={strategy}: TensorFlow finds no GPU on this machine; {hidden}install the "
            "driver and tensorflow[and-cuda], or run on the CPU with --flagfile=cpu.flags"
            + (" or --virtual_devices=2" if strategy == "mirrored" else "")
        )
    if memory_mb:
        raise ValueError(
            f"--gpu_memory_mb={memory_mb}: TensorFlow finds no GPU on this machine; "
            f"{hidden and f'{hidden}or '}leave the option out"
        )


def configure(gpus: Iterable, memory_mb: int) -> None:
    """Makes TensorFlow allocate GPU memory as needed, and at most `memory_mb` of each GPU.

    Args:
      gpus: visible physical GPUs.
      memory_mb: maximum memory of each GPU, MiB; 0: no maximum.

    Raises:
      ValueError: if TensorFlow has started with another maximum.
    """
    # `set_memory_growth` has no effect where a device, be it the CPU, has a logical configuration.
    os.environ.setdefault(_GROWTH, "true")
    limit = [tf.config.LogicalDeviceConfiguration(memory_limit=memory_mb)]
    for gpu in gpus:
        now = tf.config.get_logical_device_configuration(gpu)
        if not memory_mb and not now:
            tf.config.experimental.set_memory_growth(gpu, True)
        elif memory_mb and now != limit:
            try:
                tf.config.set_logical_device_configuration(gpu, limit)
            except RuntimeError:
                raise ValueError(
                    f"--gpu_memory_mb={memory_mb}: TensorFlow has started with another limit; ask "
                    "for it before anything makes a tensor"
                ) from None


def set_determinism(deterministic: bool) -> None:
    """Enables TensorFlow's op determinism, or disables it where `deterministic` is False."""
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    elif determinism.is_op_determinism_enabled():  # by an earlier run in this process
        determinism.disable_op_determinism()


def memory_limit(memory_mb: int) -> int | None:
    """Returns the memory of the GPU that has the least, in bytes; None if that is not known.

    Args:
      memory_mb: value of `--gpu_memory_mb`, the limit if it is not 0.
    """
    totals = [memory_mb * _MIB] if memory_mb else [total for total, _ in _measured()]
    return min(totals, default=None)


def free_memory(memory_mb: int) -> int | None:
    """Returns the memory that TensorFlow may still allocate on the fullest GPU, in bytes.

    None if TensorFlow uses no GPU, or if `nvidia-smi` does not tell.

    Args:
      memory_mb: value of `--gpu_memory_mb`.
    """
    names = [gpu.name.removeprefix("/device:") for gpu in tf.config.list_logical_devices("GPU")]
    if not names:
        return None
    free = [each for _, each in _measured()]
    if memory_mb:
        used = (tf.config.experimental.get_memory_info(name)["current"] for name in names)
        free += [memory_mb * _MIB - each for each in used]
    return max(0, min(free)) if free else None


def parsed_memory(text: str, visible: str | None) -> list[tuple[int, int]]:
    """Returns (total, free) bytes of each GPU that is visible, from the output of `nvidia-smi`.

    Args:
      text: lines of index, UUID, total and free MiB, separated by commas.
      visible: value of `CUDA_VISIBLE_DEVICES`: indices or UUIDs; None: all are visible.
    """
    rows = [[field.strip() for field in line.split(",")] for line in text.splitlines()]
    wanted = None if visible is None else [each.strip() for each in visible.split(",")]
    found = []
    for fields in rows:
        if len(fields) != 4 or not (fields[2].isdigit() and fields[3].isdigit()):
            continue
        index, uuid, total, free = fields
        if wanted is None or any(w == index or (w and uuid.startswith(w)) for w in wanted):
            found.append((int(total) * _MIB, int(free) * _MIB))
    return found


def _measured() -> list[tuple[int, int]]:
    """Returns (total, free) bytes of the visible GPUs; [] if `nvidia-smi` cannot be run."""
    query = "--query-gpu=index,uuid,memory.total,memory.free"
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return parsed_memory(done.stdout, os.environ.get(_VISIBLE))

"""Choice of the code that XLA compiles, and of whether gradients are a separate function.

On two CPU cores, XLA is 1.5 to 2 times faster than the executor for a step of many small
operations, and several times slower for a step of a few convolutions. A compiled program cannot
contain the communication between replicas: with several, only what each replica computes before and
after it is compiled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import tensorflow as tf

from engine.distributed.reduction import Reduction, Tensors
from engine.distributed.strategies import Devices
from engine.models import properties
from engine.models.layers import MaxPool

USER_DEFINED = "the model, the task, a metric or the optimizer is user-defined"
_CONVOLUTION = 4  # rank of a convolution's kernel
# Under op determinism, XLA's kernels of these refuse to be compiled, on any device.
_UNCOMPILED = ("MaxPoolGrad", "MaxPoolGradV2")


class Conditions(NamedTuple):
    """What the choice of `--jit=auto` depends on."""

    on_gpu: bool
    replicas: int
    shards: int  # number of virtual shards; 0: none
    augments: bool  # whether training examples are augmented
    parts: str  # model, task, metrics and optimizer: "own", "keras" (the model alone) or "foreign"
    convolutions: bool  # whether a trainable variable has a rank of 4 or more
    obstacle: str = ""  # on a CPU: what speaks against compiling the step; "": nothing


class Choice(NamedTuple):
    """What XLA compiles, and why."""

    jit: str  # "off" (nothing), "step" or "loop"
    why: str  # the reason of `--jit=auto`; "" if the option decides


def automatic(conditions: Conditions) -> Choice:
    """Returns what `--jit=auto` stands for.

    On one CPU it is "loop" where nothing is a convolution, which is what was measured to be faster
    (benchmarks/NOTES.md), unless there is an obstacle: an operation of user-defined classes or of
    layers of Keras that XLA does not compile (engine/core/compilable.py), or a precision in which
    oneDNN is faster (engine/assembly/compiled_step.py). On one GPU it is "step",
    also for a network of Keras's layers. That choice follows from what is known of XLA, and was not
    measured: XLA fuses the elementwise operations between convolutions and products, calls the same
    libraries for these, and is deterministic under op determinism; and it is not "loop", because
    XLA reads the condition of a loop on the host in every step. Shards, augmentation and several
    replicas leave it "off", as do user-defined classes on a GPU, where their operations are not
    examined.
    """
    if conditions.replicas > 1:
        return Choice("off", "there are several devices")
    if conditions.shards:
        return Choice("off", "there are shards")
    if conditions.augments:
        return Choice("off", "there is augmentation")
    if conditions.on_gpu:
        if conditions.parts == "foreign":
            return Choice("off", USER_DEFINED)
        return Choice("step", "on a GPU, XLA fuses the operations of a step")
    if conditions.convolutions:
        return Choice("off", "XLA for CPUs is slower for convolutions")
    if conditions.obstacle:
        return Choice("off", conditions.obstacle)
    return Choice("loop", "there are no convolutions, and XLA compiles all operations")


def choose(
    jit: str,
    devices: Devices,
    model: tf.Module,
    others: Iterable[object],
    *,
    shards: int,
    augments: bool,
    obstacle: Callable[[bool], str] = lambda own: "" if own else USER_DEFINED,
) -> Choice:
    """Resolves `--jit`: XLA compiles nothing ("off"), each "step" or the whole "loop".

    The choice does not depend on the feed: XLA rounds differently, and a run must be bitwise
    identical whether its data is in memory or streamed.

    Args:
      jit: value of `--jit`: "auto", "off", "step" or "loop".
      devices: devices of the run.
      model: model to train.
      others: the task, its metrics and the optimizer.
      shards: number of virtual shards; 0: none.
      augments: whether training examples are augmented.
      obstacle: returns `Conditions.obstacle`, and is called only if the choice depends on it, with
        whether model, task, metrics and optimizer are all Tapeline's.

    Returns:
      The value, and the reason if `jit` is "auto".

    Raises:
      ValueError: if `jit` is "loop", and there are several replicas or virtual shards.
    """
    if jit == "auto":
        ranks = [variable.shape.rank for variable in model.trainable_variables]
        conditions = Conditions(
            on_gpu=devices.are_gpus,
            replicas=devices.replicas,
            shards=shards,
            augments=augments,
            parts=_origin(model, others),
            convolutions=max(ranks, default=0) >= _CONVOLUTION,
        )
        found = automatic(conditions)
        if found.jit == "loop":
            return automatic(conditions._replace(obstacle=obstacle(conditions.parts == "own")))
        return found
    if jit == "loop" and devices.replicas > 1:
        raise ValueError(
            f"--jit=loop: is for one device, and there are {devices.replicas}; give --jit=step"
        )
    if jit == "loop" and shards:
        raise ValueError(
            "--jit=loop: several devices cannot compile the loop, and --shards promises the same "
            "bits on any number of them; give --jit=step"
        )
    return Choice(jit, "")


def scope_of_parts(jit: str, strategy: tf.distribute.Strategy) -> AbstractContextManager:
    """Returns the scope in which to build a task and a schedule, which may have variables.

    What XLA compiles for a replica cannot read a variable of another device: with `--jit=step` and
    several replicas, each replica has its own copy of the variables, as of those of the model.

    Args:
      jit: value of `--jit`.
      strategy: strategy of the run.
    """
    several = strategy.num_replicas_in_sync > 1
    return strategy.scope() if jit == "step" and several else contextlib.nullcontext()


def failure(jit: str, cause: str) -> str:
    """Returns what to add to the message of a failed step, such as that XLA compiles it.

    Args:
      jit: result of `choose`.
      cause: message of the error.
    """
    if jit == "off":
        return ""
    if "Trying to access resource" in cause:
        return (
            " (XLA compiles the step of each device, which can read no variable of another device: "
            "make it in the __init__ of the task or of a layer of the model, or give --jit=off)"
        )
    return f" (XLA compiles the {jit}; --jit=off: not)"


def compiles_gradients(model: tf.Module, replicas: int, shards: int) -> bool:
    """Returns whether `--jit=step` compiles the gradients, and not only the update.

    The gradients of a model with statistics, such as those of a batch norm, are not compiled on
    several replicas without shards: the forward pass reduces over the replicas.

    Args:
      model: model to train.
      replicas: number of replicas.
      shards: number of virtual shards; 0: none.
    """
    return replicas == 1 or bool(shards) or not properties.statistics(model)


def refused_reduction(tensors: Any) -> Tensors:
    """Refuses a reduction over several replicas in a forward pass that XLA compiles.

    Raises:
      ValueError: always.
    """
    raise ValueError(
        "--jit=step: the model reduces over the replicas in its forward pass, which XLA cannot "
        "compile; give --jit=off, or --shards, with which each shard is computed by itself"
    )


def synchronise(reduction: Reduction, replicas: int, compiled: bool) -> Reduction:
    """Returns the reduction over replicas in a forward pass that XLA may compile.

    Args:
      reduction: that of an uncompiled forward pass.
      replicas: number of replicas.
      compiled: whether XLA compiles the forward pass.
    """
    return refused_reduction if compiled and replicas > 1 and reduction is not list else reduction


def refuse_max_pools() -> None:
    """Refuses a graph with a gradient of a max pool that XLA does not compile.

    Called in the graph of the gradients. Tapeline's max pools and those of Keras that
    `engine.models.keras_layers` replaces have another gradient.

    Raises:
      ValueError: if there is such an operation; the message names it.
    """
    for op in tf.compat.v1.get_default_graph().get_operations():
        if op.type in _UNCOMPILED:
            name = op.name.removeprefix("gradient_tape/").rpartition("/")[0]
            raise ValueError(
                f"--jit: XLA has no deterministic gradient of TensorFlow's max pool ({name}): use "
                "tl.models.MaxPool, or a max pool of Keras with the channels last and known sides; "
                "or give --jit=off"
            )


def apart(jit: str, devices: Devices, model: tf.Module) -> bool:
    """Returns whether `compute_gradients` should be a separate function, which is not inlined.

    This is so on one CPU device without XLA, for a model with convolutions and with max pools or
    user-defined parts, which may contain max pools. TensorFlow uses oneDNN's kernel for the
    gradient of a max pool only if it visits the pool before the gradient. In the cyclic graph of a
    loop, the order depends on memory addresses: in one of four starts, a network of two
    convolutions trains a seventh slower. The graph of a separate function is acyclic; a call of
    this function takes about 0.05 ms.

    Args:
      jit: what XLA compiles.
      devices: devices of the run.
      model: model to train.
    """
    if jit != "off" or devices.are_gpus or devices.replicas > 1:
        return False
    convolutions = any(v.shape.rank == _CONVOLUTION for v in model.trainable_variables)
    # A user-defined layer may contain a max pool.
    return convolutions and any(isinstance(m, MaxPool) or not is_own(m) for m in model.submodules)


def _origin(model: tf.Module, others: Iterable[object]) -> str:
    """Returns `Conditions.parts` of a run with this model and these other parts."""
    if not all(map(is_own, others)):
        return "foreign"
    modules = [model, *model.submodules]
    if all(map(is_own, modules)):
        return "own"
    layers = [layer for each in modules for layer in getattr(each, "keras_layers", {}).values()]
    known = [_package(layer) == "keras" and layer.supports_jit for layer in layers]
    rest = [module for module in modules if not hasattr(module, "keras_layers")]
    return "keras" if layers and all(known) and all(map(is_own, rest)) else "foreign"


def is_own(part: object) -> bool:
    """Returns whether a module, task, metric or optimizer is built in."""
    return _package(part) == "engine"


def _package(part: object) -> str:
    part = getattr(part, "task", part)  # of a wrapper of a task, the task that it wraps
    return getattr(part, "function", type(part)).__module__.partition(".")[0]

"""What `--onednn=auto` and `--precision=auto` choose, by tables, as pure functions.

What the tables say was measured by `python -m benchmarks.processors` and `benchmarks.bfloat16`,
unless a row says otherwise.
Imports no TensorFlow. `engine.assembly.automatic_options` applies the choices to a process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from engine.config.schema import Config
from engine.models.registry import kind
from engine.runtime.processor import Processor

# Multiplications of a matrix product from which on a dense network or transformer is faster in
# bfloat16, without XLA, than in float32 with XLA (benchmarks/NOTES.md).
_LARGE_PRODUCTS = 50e6
_NATIVE_BFLOAT16 = (8, 0)  # compute capability from which on GPUs compute in bfloat16 (Ampere)
_NATIVE_FLOAT16 = (5, 3)  # the same of float16


class ComputeDevices(NamedTuple):
    """What computes a run.

    Attributes:
      processor: the processor, which computes if there are no GPUs.
      capability: least compute capability of the GPUs that compute, such as (8, 0); None: the
        processor computes.
    """

    processor: Processor
    capability: tuple[int, int] | None = None


class Network(NamedTuple):
    """What the choices depend on of a network and its training.

    Attributes:
      kind: kind of the network, as `engine.models.registry.kind` returns it.
      products: approximate number of multiplications of a matrix product of its hidden layers; 0 if
        it is not known, or if XLA compiles the products, whose speed then does not depend on it.
    """

    kind: str
    products: float = 0.0


class ChoiceRow(NamedTuple):
    """A row of a table of choices; the first row that applies counts.

    Attributes:
      applies: whether the row applies, of devices, the network and another choice.
      choice: what is chosen then.
      why: the condition and the reason, for readers.
    """

    applies: Callable[[ComputeDevices, Network, str], bool]
    choice: str
    why: str


# The third argument of `applies` is the value of --precision.
ONEDNN = (
    ChoiceRow(
        lambda on, network, precision: not on.processor.has_onednn,
        "off",
        "TensorFlow has oneDNN on Linux only",
    ),
    ChoiceRow(
        lambda on, network, precision: on.processor.onednn_aborts(precision.removeprefix("mixed_")),
        "off",
        "oneDNN is held below what it needs for this precision, and would abort the process",
    ),
    ChoiceRow(
        lambda on, network, precision: on.processor.is_neural,
        "on",
        "the processor has instructions for neural networks: TensorFlow's default, too",
    ),
    ChoiceRow(
        lambda on, network, precision: "avx2" in on.processor.usable and network.kind == "dense",
        "off",
        "AVX2 or AVX-512 without those: matrix products of float32 are faster without",
    ),
    ChoiceRow(
        lambda on, network, precision: "avx2" in on.processor.usable,
        "on",
        "AVX2 or AVX-512 without those: convolutions, norms and attention are faster with oneDNN",
    ),
    ChoiceRow(lambda on, network, precision: True, "off", "as TensorFlow decides; not measured"),
)

# The third argument of `applies` says whether oneDNN is "on" or "off".
PRECISION = (
    ChoiceRow(
        lambda on, network, onednn: on.capability is not None and on.capability >= _NATIVE_BFLOAT16,
        "mixed_bfloat16",
        "GPUs with tensor cores for bfloat16; by what NVIDIA states, not measured",
    ),
    ChoiceRow(
        lambda on, network, onednn: on.capability is not None,
        "float32",
        "GPUs without them",
    ),
    ChoiceRow(
        lambda on, network, onednn: onednn == "off" or not on.processor.computes_in("bfloat16"),
        "float32",
        "bfloat16 is emulated: the processor does not compute in it, or oneDNN is off",
    ),
    ChoiceRow(
        lambda on, network, onednn: network.kind in ("convolutional", "vit"),
        "mixed_bfloat16",
        "AVX512_BF16 or AMX: convolutions and vision transformers are faster",
    ),
    ChoiceRow(
        lambda on, network, onednn: network.products >= _LARGE_PRODUCTS,
        "mixed_bfloat16",
        "AVX512_BF16 or AMX: large matrix products are faster",
    ),
    ChoiceRow(
        lambda on, network, onednn: network.kind in ("dense", "transformer"),
        "float32",
        "AVX512_BF16 or AMX: small matrix products are slower",
    ),
    ChoiceRow(
        lambda on, network, onednn: True,
        "float32",
        "AVX512_BF16 or AMX: of networks of a user's own it is not known",
    ),
)


# What the emulation of a dtype costs on x86, for display. The cnn, batch 128, on two cores: 2.6
# steps/s in bfloat16 and 29 in float32 with AVX2 alone; 4.5 and 89 with AVX512_BF16, in bfloat16
# with oneDNN off; 12 and 90 in float16 and float32 with AVX512_BF16.
_COST = {
    "bfloat16": "the cnn then trains at a tenth of the speed of float32 or less",
    "float16": "the cnn then trains at an eighth of the speed of float32",
}


def network_of(config: Config) -> Network:
    """Returns what the choices depend on of the network of a configuration.

    The products are those of the rows, or tokens, of a micro-batch with a square kernel: of the
    widest hidden layer of the `mlp`, and twice that of the width of the `transformer`, which is the
    mean of a block's six kernels.
    """
    which, loop = kind(config.model.model), config.loop.jit
    rows = config.training.global_batch_size // config.training.accumulate
    if loop not in ("auto", "off"):
        return Network(which)
    if config.model.model == "mlp":
        return Network(which, float(rows * max(config.model.hidden) ** 2))
    if which == "transformer":
        width = config.arguments_of("model")["width"]
        return Network(which, 2.0 * rows * config.data.context * width**2)
    return Network(which)


def chosen(
    table: Sequence[ChoiceRow], devices: ComputeDevices, network: Network, other: str
) -> str:
    """Returns the choice of the first row of a table that applies.

    Args:
      table: `ONEDNN` or `PRECISION`.
      devices: what computes.
      network: the network and its training.
      other: value of --precision for `ONEDNN`, state of oneDNN for `PRECISION`.
    """
    return next(row.choice for row in table if row.applies(devices, network, other))


def is_native(precision: str, devices: ComputeDevices, onednn: str) -> bool:
    """Returns whether a processor computes in the dtype of a precision by oneDNN.

    Args:
      precision: value of --precision, not "auto".
      devices: what computes.
      onednn: whether oneDNN is "on" or "off".
    """
    computes = devices.processor.computes_in(precision.removeprefix("mixed_"))
    return bool(devices.capability is None and computes and onednn == "on")


def emulation(
    precision: str, devices: ComputeDevices, onednn: str, *, compiled: bool = False
) -> str:
    """Returns a line that says that a precision is emulated, and the cost; "" if it is not.

    Args:
      precision: value of --precision, not "auto".
      devices: what computes; nothing is said of a processor whose features are unknown.
      onednn: whether oneDNN is "on" or "off".
      compiled: whether XLA compiles the gradients, which does not need oneDNN.
    """
    dtype = precision.removeprefix("mixed_")
    if dtype == "float32":
        return ""
    if devices.capability is not None:
        least = _NATIVE_BFLOAT16 if dtype == "bfloat16" else _NATIVE_FLOAT16
        if devices.capability >= least:
            return ""
        has, needed = (".".join(map(str, each)) for each in (devices.capability, least))
        return (
            f"{precision} is emulated: the GPU has compute capability {has}, and {dtype} needs "
            f"{needed}; --precision=float32 is faster"
        )
    computes = devices.processor.computes_in(dtype)
    if computes is None or is_native(precision, devices, onednn) or (computes and compiled):
        return ""
    cause = "the processor does not compute in it"
    if computes:
        cause = "TensorFlow computes in it by oneDNN only, which is off"
    measured = "avx" in devices.processor.features and not compiled
    cost = f"{_COST[dtype]}; " if measured else ""
    return f"{precision} is emulated: {cause}; {cost}--precision=float32 is faster"

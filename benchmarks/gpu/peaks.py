"""Peak rates of GPUs, and the model FLOPs utilization (MFU) of a training step.

The MFU is the rate of a step's floating-point operations, as the mathematics needs them, over the
peak rate of the device (Chowdhery et al. 2022, "PaLM", appendix B).
"""

from __future__ import annotations

from typing import NamedTuple


class Peaks(NamedTuple):
    """Peak rates of one GPU in TFLOP/s, from NVIDIA's data sheets: dense, without sparsity.

    None: the device has no such units. The 16-bit rates are those of tensor cores that accumulate
    in float32.
    """

    bfloat16: float | None
    float16: float
    tensor_float_32: float | None
    float32: float


_H100_SXM = Peaks(989.4, 989.4, 494.7, 66.9)
_H100_NVL = Peaks(835.5, 835.5, 417.5, 60.0)
_A100 = Peaks(312.0, 312.0, 156.0, 19.5)
_V100_SXM2 = Peaks(None, 125.0, None, 15.7)
_V100_PCIE = Peaks(None, 112.0, None, 14.0)

# By the name that TensorFlow reports. A slice of a GPU (MIG) has another name: its peak is unknown.
PEAKS = {
    "NVIDIA H100 80GB HBM3": _H100_SXM,
    "NVIDIA H100 PCIe": Peaks(756.0, 756.0, 378.0, 51.0),
    "NVIDIA H100 NVL": _H100_NVL,
    "NVIDIA H200": _H100_SXM,
    "NVIDIA H200 NVL": _H100_NVL,
    "NVIDIA A100-SXM4-40GB": _A100,
    "NVIDIA A100-SXM4-80GB": _A100,
    "NVIDIA A100-PCIE-40GB": _A100,
    "NVIDIA A100 80GB PCIe": _A100,
    "NVIDIA L40S": Peaks(362.0, 362.0, 183.0, 91.6),
    "NVIDIA L4": Peaks(121.0, 121.0, 60.0, 30.3),
    "NVIDIA A10": Peaks(125.0, 125.0, 62.5, 31.2),
    "Tesla V100-SXM2-16GB": _V100_SXM2,
    "Tesla V100-SXM2-32GB": _V100_SXM2,
    "Tesla V100-PCIE-16GB": _V100_PCIE,
    "Tesla V100-PCIE-32GB": _V100_PCIE,
    "Tesla T4": Peaks(None, 65.0, None, 8.1),
}


def peak_tflops(device: str | None, precision: str, tf32: bool) -> float | None:
    """Returns the peak rate of a device in TFLOP/s; None if it is not in the table.

    Args:
      device: name of the GPU as TensorFlow reports it; None: a CPU.
      precision: "float32", "mixed_bfloat16" or "mixed_float16".
      tf32: whether TensorFlow may compute float32 products in TensorFloat-32, as by default.

    Raises:
      ValueError: for an unknown precision.
    """
    peaks = PEAKS.get(device or "")
    if precision == "float32":
        if peaks is None:
            return None
        return peaks.tensor_float_32 if tf32 and peaks.tensor_float_32 else peaks.float32
    if precision not in ("mixed_bfloat16", "mixed_float16"):
        raise ValueError(f"precision {precision!r}: give float32, mixed_bfloat16, mixed_float16")
    return getattr(peaks, precision.removeprefix("mixed_"), None)


def mfu(
    gflop_per_step: float | None, steps_per_second: float | None, peak: float | None
) -> float | None:
    """Returns the MFU, a fraction; None if one of the arguments is None.

    Args:
      gflop_per_step: floating-point operations of a step, in 10^9.
      steps_per_second: rate of the steps.
      peak: peak rate of the device in TFLOP/s.
    """
    if gflop_per_step is None or steps_per_second is None or peak is None:
        return None
    return gflop_per_step * steps_per_second / (1000 * peak)

"""The table of GPU peaks, and the MFU that is computed from it."""

from __future__ import annotations

import pytest

from benchmarks.gpu.peaks import PEAKS, mfu, peak_tflops


@pytest.mark.parametrize(
    ("device", "precision", "tf32", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "mixed_bfloat16", True, 989.4),
        ("NVIDIA H100 80GB HBM3", "mixed_float16", True, 989.4),
        ("NVIDIA H100 80GB HBM3", "float32", True, 494.7),
        ("NVIDIA H100 80GB HBM3", "float32", False, 66.9),
        ("NVIDIA A100-SXM4-80GB", "mixed_bfloat16", True, 312.0),
        ("Tesla V100-SXM2-16GB", "float32", True, 15.7),  # has no TensorFloat-32
        ("Tesla V100-SXM2-16GB", "mixed_float16", True, 125.0),
        ("Tesla T4", "mixed_bfloat16", True, None),  # has no bfloat16
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "float32", True, None),
        ("a GPU of next year", "mixed_bfloat16", True, None),
        (None, "float32", True, None),
    ],
)
def test_peak(device, precision, tf32, peak):
    assert peak_tflops(device, precision, tf32) == peak


def test_unknown_precision():
    with pytest.raises(ValueError, match="mixed_bfloat16"):
        peak_tflops("Tesla T4", "int8", True)


def test_peaks_are_ordered():
    """The rates of a device do not fall with fewer bits, and float32 is never faster than TF32."""
    for peaks in PEAKS.values():
        assert peaks.float16 >= (peaks.tensor_float_32 or peaks.float32) >= peaks.float32 > 0
        assert peaks.bfloat16 in (None, peaks.float16)


def test_mfu():
    # 6 * 124e6 weights * 8,192 tokens of a step, ten steps a second, on an H100
    gflop = 6 * 124e6 * 8192 / 1e9
    assert mfu(gflop, 10.0, 989.4) == pytest.approx(0.0616, abs=1e-4)
    assert mfu(1000.0, 100.0, 100.0) == 1
    for unknown in ((None, 1.0, 1.0), (1.0, None, 1.0), (1.0, 1.0, None)):
        assert mfu(*unknown) is None

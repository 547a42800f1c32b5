"""Base class of the convolution layers for images."""

from __future__ import annotations

from typing import Literal

from engine.models.base import Shape
from engine.models.layers.checks import at_least_one
from engine.models.layers.kernel import STDDEV, WithKernel

Padding = Literal["VALID", "SAME"]


class ConvolutionBase(WithKernel):
    """Base class of convolutions: checks their settings and formats their label."""

    def __init__(
        self,
        size: int,
        stride: int,
        padding: Padding | int,
        activation: str | None,
        use_bias: bool,
        kernel_initializer: str,
        kernel_stddev: float = STDDEV,
    ):
        super().__init__(activation, use_bias, kernel_initializer, kernel_stddev)
        self.size = at_least_one(f"the size of a {self.kind}", size)
        self.stride = at_least_one(f"the stride of a {self.kind}", stride)
        self.padding = padding

    def format_label(self, size: str, *settings: str) -> str:
        """Returns the kind, `size`, the stride, `settings` and the activation, where not empty."""
        stride = f"stride {self.stride}" if self.stride > 1 else ""
        parts = [f"{self.kind} {size}", stride, *settings, self.activation]
        return " ".join(part for part in parts if part)

    def smallest_side(self, extent: int) -> int:
        """Returns the smallest side of an image, for kernels of a given extent."""
        if isinstance(self.padding, int):
            return max(extent - 2 * self.padding, 1)
        return extent if self.padding == "VALID" else 1

    def positions(self, height: int, width: int, extent: int) -> Shape:
        """Returns the height and width of the output, for kernels of a given extent."""
        added = 2 * self.padding if isinstance(self.padding, int) else 0
        covered = 1 if self.padding == "SAME" else extent
        return tuple((side + added - covered) // self.stride + 1 for side in (height, width))

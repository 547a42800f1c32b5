"""Preprocessing of decoded inputs for the model: the scaling that a source declares.

The scaling runs in the graph, on a batch, and is saved with a run as JSON::

    preprocess = Preprocessing({"": Scale("unit")})
    preprocess(images)  # uint8 [rows, H, W, C] -> float32 in 0..1
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines import nests
from pipelines.nests import Nest, Spec

SCALES = ("auto", "none", "unit", "standardize")  # values of --scale


@dataclasses.dataclass(frozen=True)
class Scale:
    """The scaling of one tensor of the inputs, by `kind`.

    "none": unchanged. "unit": cast to float32 and divided by 255. "standardize": cast to float32,
    minus `mean`, divided by `deviation`. Mean and standard deviation are of the training split and
    have one number for each index of an example's last axis, such as each channel of an image, and
    one number for a scalar. They are empty for other kinds, and before they are computed.
    """

    kind: str = "none"
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()

    @property
    def fitted(self) -> bool:
        """Whether the mean and deviation of the training split are known, or not needed."""
        return self.kind != "standardize" or bool(self.mean)

    def __call__(self, values: tf.Tensor) -> tf.Tensor:
        """Scales a batch of any numeric dtype, [rows, ...], in the graph, to float32.

        For the kind "none", returns the batch unchanged.
        """
        if self.kind == "unit":
            return tf.cast(values, tf.float32) / 255.0
        if self.kind == "standardize":
            assert self.mean, "the mean of the training split is unknown"
            mean = tf.constant(self.mean, tf.float32)
            return (tf.cast(values, tf.float32) - mean) / tf.constant(self.deviation, tf.float32)
        return values

    def spec(self, decoded: tf.TensorSpec) -> tf.TensorSpec:
        """Returns the spec of the scaled tensor of one example."""
        return decoded if self.kind == "none" else tf.TensorSpec(decoded.shape, tf.float32)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Scaling of each tensor of the decoded inputs; a tensor without an entry is unchanged."""

    # By path of the leaf; a mapping has no hash.
    scales: Mapping[str, Scale] = dataclasses.field(default_factory=dict, hash=False)

    @property
    def fitted(self) -> bool:
        """Whether all scales that need means and deviations of the training split have them."""
        return all(scale.fitted for scale in self.scales.values())

    def __call__(self, inputs: Nest) -> Nest:
        """Maps decoded inputs, a nest of [rows, ...], to the model's inputs in the graph.

        Floating-point images in 0..255, as augmentation creates them, are scaled as uint8 ones are.
        """
        leaves = zip(self._each(inputs), tf.nest.flatten(inputs), strict=True)
        return tf.nest.pack_sequence_as(inputs, [scale(values) for scale, values in leaves])

    def specs(self, decoded: Spec) -> Spec:
        """Returns the spec of the model's inputs for the spec of decoded inputs."""
        leaves = zip(self._each(decoded), tf.nest.flatten(decoded), strict=True)
        return tf.nest.pack_sequence_as(decoded, [scale.spec(leaf) for scale, leaf in leaves])

    def _each(self, nest: Nest) -> list[Scale]:
        return [self.scales.get(path, Scale()) for path in nests.paths(nest)]

    @property
    def steps(self) -> list[str]:
        """Descriptions of the scalings, without repetition: "divided by 255", "standardized"."""
        words = {"unit": "divided by 255", "standardize": "standardized"}
        return list(dict.fromkeys(words[scale.kind] for scale in self.scales.values()))

    def to_json(self) -> dict[str, Any]:
        """Returns the scales as a dict that `json.dumps` accepts; `from_json` reads it.

        The dict has the fields of each `Scale` by path: {path: {"kind": ..., "mean": ..., ...}}.
        """
        return {path: dataclasses.asdict(scale) for path, scale in sorted(self.scales.items())}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Preprocessing:
        """Returns the preprocessing from the dict of `to_json`, with bitwise equal numbers."""
        return cls(
            {
                path: Scale(each["kind"], tuple(each["mean"]), tuple(each["deviation"]))
                for path, each in content.items()
            }
        )


def preprocessing(scale: str, decoded: Spec) -> Preprocessing:
    """Returns the preprocessing that `--scale` selects for inputs of a spec, not yet fitted.

    auto: "unit" for images, which are uint8 of rank 3. none: no scaling. unit: "unit" for all uint8
    tensors. standardize: "standardize" for uint8 images and floating-point tensors. All other
    tensors are not scaled.
    """

    def kind(leaf: tf.TensorSpec) -> str:
        image = leaf.dtype == tf.uint8 and leaf.shape.rank == 3
        applies = {
            "auto": image,
            "none": False,
            "unit": leaf.dtype == tf.uint8,
            "standardize": image or leaf.dtype.is_floating,
        }[scale]
        return {"auto": "unit"}.get(scale, scale) if applies else "none"

    leaves = zip(nests.paths(decoded), tf.nest.flatten(decoded), strict=True)
    kinds = {path: kind(leaf) for path, leaf in leaves}
    return Preprocessing({path: Scale(name) for path, name in kinds.items() if name != "none"})


class Moments:
    """Accumulator, over chunks of examples, of the mean and standard deviation of a tensor.

    There is one mean and one deviation for each index of an example's last axis, and one of each
    for scalar examples. Those of uint8 examples are sums of integers, and so the same to the last
    bit however the examples are divided into chunks.
    """

    def __init__(self) -> None:
        self._count, self._mean, self._squares = 0.0, np.zeros(()), np.zeros(())
        self._sums: list[list[int]] = []  # of uint8 examples: [number, sum, sum of squares] each

    def add(self, values: np.ndarray) -> None:
        """Adds a chunk of examples, [k >= 1, ...], with the stable update of Chan et al. 1983."""
        width = values.shape[-1] if values.ndim > 1 else 1
        if values.dtype == np.uint8:
            powers = [np.arange(256) ** power for power in range(3)]
            counts = [np.bincount(c, minlength=256) for c in values.reshape(-1, width).T]
            sums = [[int(count @ power) for power in powers] for count in counts]
            before = self._sums or [[0] * 3] * width
            self._sums = [np.add(*pair).tolist() for pair in zip(before, sums, strict=True)]
            return
        flat = values.reshape(-1, width).astype(np.float64)
        count, mean = len(flat), flat.mean(axis=0)
        squares = ((flat - mean) ** 2).sum(axis=0)
        total, apart = self._count + count, mean - self._mean
        self._squares = self._squares + squares + apart**2 * (self._count * count / total)
        self._mean, self._count = self._mean + apart * (count / total), total

    def scale(self) -> Scale:
        """Returns the fitted scale of kind "standardize"; a deviation of 0 is replaced by 1."""
        mean, variance = self._mean, self._squares / max(self._count, 1.0)
        if self._sums:
            mean = np.array([total / count for count, total, _ in self._sums])
            variance = np.array(
                [(n * squares - total**2) / n**2 for n, total, squares in self._sums]
            )
        deviation = np.sqrt(variance)
        deviation = np.where(deviation > 0, deviation, 1.0)
        return Scale("standardize", *(tuple(map(float, x)) for x in (mean, deviation)))

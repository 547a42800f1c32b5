"""Decodes the selected features of a TFDS data set: images with labels, or tensors of any kind."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines import nests
from pipelines.images.resize import Resize
from pipelines.nests import Nest, Spec
from pipelines.sources.features import DTYPES, Keys
from pipelines.storage.file_index import Fields

# Must be increased when the result of `decode` changes for any record.
_DECODE_VERSION = 1


class Tensors:
    """Decoder of stored examples with any numeric features to nests of tensors, (inputs, targets).

    Class labels become int32. If `resize` is not None, images are resized to its size, and masks
    and images among the targets by the nearest pixel. `name` is that of the data set, for messages.

    Raises:
      ValueError: when a selected feature is not numeric or has no fixed shape, or when there is
        nothing to resize.
    """

    def __init__(
        self, name: str, features: Any, inputs: Keys, targets: Keys, resize: Resize | None
    ) -> None:
        from tensorflow_datasets import features as kinds

        self._keys, self._features = (inputs, targets), features
        self._parsed = kinds.FeaturesDict(
            {key: features[key] for key in tf.nest.flatten(self._keys)}
        )
        masks = {key for key, value in features.items() if isinstance(value, kinds.LabeledImage)}
        masks |= set(tf.nest.flatten(targets))
        self._resized = {
            key: dataclasses.replace(resize, nearest=key in masks)
            for key in tf.nest.flatten(self._keys)
            if resize is not None and isinstance(features[key], kinds.Image)
        }
        self._labels = {
            key for key, value in features.items() if isinstance(value, kinds.ClassLabel)
        }
        self.spec = tuple(
            nests.checked_spec(f"the {kind} of {name}", self._spec(name, keys))
            for kind, keys in zip(("inputs", "targets"), self._keys, strict=True)
        )
        if resize is not None and not self._resized:
            raise ValueError(
                f"--image_size: none of the features of {name} that are read is stored as an image"
            )

    def _spec(self, name: str, keys: Keys) -> Spec:
        from tensorflow_datasets import features as kinds

        def of(key: str) -> Spec:
            spec = self._features[key].get_tensor_spec()
            if key in self._resized:
                return tf.TensorSpec((*self._resized[key].shape, spec.shape[2]), spec.dtype)
            if key in self._labels:
                return tf.TensorSpec(spec.shape, tf.int32)
            if isinstance(self._features[key], kinds.Image) and None in spec.shape:
                raise ValueError(f"images of {name} vary in size: give --image_size=64,64")
            return spec

        return of(keys) if isinstance(keys, str) else {key: of(key) for key in keys}

    def decode(self, serialized: tf.Tensor) -> tuple[Nest, Nest]:
        """Decodes a serialized example, string [], in the graph; returns (inputs, targets)."""
        example = self._parsed.deserialize_example(serialized)

        def of(key: str) -> Nest:
            value = example[key]
            if key in self._resized:
                value = self._resized[key](value)
            return tf.cast(value, tf.int32) if key in self._labels else value

        inputs, targets = (
            of(keys) if isinstance(keys, str) else {key: of(key) for key in keys}
            for keys in self._keys
        )
        ensure = lambda spec, value: tf.ensure_shape(value, spec.shape)  # noqa: E731
        return tf.nest.map_structure(ensure, self.spec, (inputs, targets))

    @property
    def recipe(self) -> str:
        """Text that names everything that affects decoded examples, for cache keys."""
        kinds = [f"{key}:{type(self._features[key]).__name__}" for key in self._parsed]
        resized = [f"{key}:{resize}" for key, resize in sorted(self._resized.items())]
        texts = [nests.signature(self.spec), *sorted(kinds), *resized]
        return f"tensors {';'.join(texts)};decode={_DECODE_VERSION}"


def image_shape(
    name: str, key: str, feature: Any, image_size: tuple[int, int] | None
) -> tuple[int, int, int]:
    """Returns (height, width, channels) of decoded images, resized to `image_size` if not None.

    `feature` is the TFDS feature of the images, `key` its name and `name` that of the data set.

    Raises:
      ValueError: when the dtype, shape or `image_size` is not supported, or when images vary in
        size and `image_size` is None.
    """
    dtype, shape = np.dtype(feature.np_dtype).name, tuple(feature.shape)
    if dtype not in DTYPES:
        raise ValueError(
            f"the images of {name} are {dtype}; only {' and '.join(DTYPES)} images can be read"
        )
    if len(shape) != 3 or not shape[2]:
        raise ValueError(
            f"the images of {name} ({key!r}) have the shape {shape}; it has to be height, width "
            "and a known number of channels"
        )
    if image_size is not None:
        if len(image_size) != 2 or min(image_size) < 1:
            raise ValueError(f"image_size is {image_size}; give height,width: --image_size=64,64")
        return (int(image_size[0]), int(image_size[1]), shape[2])
    if None in shape:
        raise ValueError(f"images of {name} vary in size: give --image_size=64,64")
    return shape


def decoders(
    features: Any, image_key: str, label_key: str, resize: Resize
) -> tuple[Callable, Callable, Fields | None]:
    """Returns the functions `decode` and `decode_stored` of a `Source`, and the stored fields.

    `decode` resizes images, `decode_stored` does not. If images are stored encoded, such as JPEG,
    both take (encoded image, label), and the fields name these two features; else both take
    serialized examples, and the fields are None.
    """
    from tensorflow_datasets import features as kinds

    # Only these two features: the parser skips every other feature of the record.
    parsed = kinds.FeaturesDict({key: features[key] for key in (image_key, label_key)})
    stored_shape = tuple(features[image_key].shape)
    fields = None
    if isinstance(features[image_key], kinds.Image):
        fields = Fields(image_key, label_key)

    def decode_stored(stored: Any) -> tuple[tf.Tensor, tf.Tensor]:
        if fields is None:
            example = parsed.deserialize_example(stored)
            image, label = example[image_key], tf.cast(example[label_key], tf.int32)
        else:
            encoded, label = stored
            image = features[image_key].decode_example(encoded)
        return tf.ensure_shape(image, stored_shape), label

    def decode(stored: Any) -> tuple[tf.Tensor, tf.Tensor]:
        image, label = decode_stored(stored)
        return tf.ensure_shape(resize(image), (*resize.shape, stored_shape[2])), label

    signature: Any = tf.TensorSpec([], tf.string)
    if fields is not None:
        signature = (signature, tf.TensorSpec([], tf.int32))
    function = functools.partial(tf.function, input_signature=[signature], autograph=False)
    return function(decode), function(decode_stored), fields


def recipe(features: Any, image_key: str, label_key: str, resize: Resize) -> str:
    """Returns a text that names everything that affects decoded examples, for cache keys."""
    feature = features[image_key]
    stored_shape = tuple(feature.shape)
    image_shape = (*resize.shape, stored_shape[2])
    resizing = f"bilinear {resize.fit}{' antialiased' * resize.antialias}"
    if stored_shape == image_shape:
        resizing = "as stored"
    elif resize.fit == "stretch" and not resize.antialias:
        resizing = "bilinear"  # as in cache keys of versions that supported only this
    return (
        f"image={image_key}:{type(feature).__name__}{stored_shape}:"
        f"{np.dtype(feature.np_dtype).name};label={label_key};"
        f"out={'x'.join(map(str, image_shape))}:{resizing};decode={_DECODE_VERSION}"
    )

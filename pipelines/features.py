"""Selects the image and label features of a data set, and decodes examples."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.index import Fields
from pipelines.resize import Resize

# Must be increased when the result of `decode` changes for any record.
_DECODE_VERSION = 1

DTYPES = ("uint8", "float32")  # supported dtypes of images; float32 values are not scaled


def keys(name: str, info: Any) -> tuple[str, str]:
    """Returns the names of a TFDS data set's image and label feature, preferably supervised keys.

    Raises:
      ValueError: when there is not exactly one of each, or the number of classes is unknown.
    """
    from tensorflow_datasets import features as kinds

    # features.json is read in no fixed order; sorting makes messages deterministic.
    features = dict(sorted(info.features.items())) if hasattr(info.features, "items") else {}
    supervised = info.supervised_keys or ()
    described = ", ".join(f"{key} ({type(value).__name__})" for key, value in features.items())

    def is_image(feature: Any) -> bool:
        if type(feature) is kinds.Tensor and len(feature.shape) == 3:
            return np.dtype(feature.np_dtype).name in DTYPES
        # A LabeledImage is a segmentation mask.
        return isinstance(feature, kinds.Image) and not isinstance(feature, kinds.LabeledImage)

    images = [key for key, value in features.items() if is_image(value)]
    labels = [key for key, value in features.items() if isinstance(value, kinds.ClassLabel)]
    images = [key for key in images if key in supervised] or images
    labels = [key for key in labels if key in supervised] or labels
    if not labels:
        raise ValueError(
            f"the data set {name} has no labels: none of its features is a ClassLabel; its "
            f"features are {described or info.features}"
        )
    if not images:
        raise ValueError(
            f"the data set {name} has no images: it needs an Image, or a Tensor of rank 3, of "
            f"{' or '.join(DTYPES)}; its features are {described}"
        )
    for kind, names in (("images", images), ("labels", labels)):
        if len(names) > 1:
            raise ValueError(
                f"the data set {name} has several {kind} ({', '.join(names)}) and does not say "
                "which to use (supervised_keys); choose a data set with one"
            )
    if not features[labels[0]].num_classes:
        raise ValueError(f"the label {labels[0]!r} of {name} does not say how many classes it has")
    return images[0], labels[0]


def image_shape(
    name: str, key: str, feature: Any, image_size: tuple[int, int] | None
) -> tuple[int, int, int]:
    """Returns (height, width, channels) of decoded images, resized to `image_size` if not None.

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
    """Returns the decoders `decode` and `decode_stored` of a `Source`, and the stored fields.

    If images are stored encoded, such as JPEG, stored examples are (encoded image, label), whose
    names are in the fields; else these are None, and they are serialized examples.
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

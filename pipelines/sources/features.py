"""Selects the features of a TFDS data set that are inputs and targets."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

DTYPES = ("uint8", "float32")  # supported dtypes of images; float32 values are not scaled

Keys = Any  # a nest of names of features: one name, or a dict by name


def selected(name: str, info: Any, inputs: str, targets: str) -> tuple[Keys, Keys]:
    """Returns the names of the features that are the inputs and the targets.

    Each of the two is the name of one feature, or a dict of several, {name: name}.

    Args:
      name: name of the data set, for messages.
      info: the `tfds.core.DatasetInfo` of the data set.
      inputs: comma-separated names, as `--input_features` has them. "": the data set's supervised
        keys decide; if the data set has none and `targets` is "" too, its only image and class
        label.
      targets: as `inputs`, for `--target_features`.

    Raises:
      ValueError: when a feature does not exist, or it is not clear which ones to use.
    """
    known = dict(sorted(info.features.items())) if hasattr(info.features, "items") else {}
    supervised = _supervised(info, known)
    chosen = []
    for flag, text, default in (
        ("input_features", inputs, supervised and supervised[0]),
        ("target_features", targets, supervised and supervised[1]),
    ):
        names = [part.strip() for part in text.split(",") if part.strip()]
        if unknown := [each for each in names if each not in known]:
            raise ValueError(
                f"--{flag}={text}: {name} has no feature {unknown[0]!r}: it has {_described(known)}"
            )
        if not names and (inputs or targets) and default is None:
            raise ValueError(
                f"--{flag}: {name} does not say which of its features to use; name them; it has "
                f"{_described(known)}"
            )
        chosen.append(names[0] if len(names) == 1 else dict(zip(names, names, strict=True)))
    if not (inputs or targets) and supervised is None:
        return only_keys(name, known)
    found = [each or supervised[i] for i, each in enumerate(chosen)] if supervised else chosen
    return found[0], found[1]


def _supervised(info: Any, known: dict[str, Any]) -> tuple[Keys, Keys] | None:
    """Returns a data set's supervised keys, (inputs, targets); None if it has no such pair."""
    keys: tuple[Any, ...] = tuple(info.supervised_keys or ())
    names = [str(key) for key in tf.nest.flatten(keys)]
    if len(keys) != 2 or any(key not in known for key in names):
        return None

    def of(part: Any) -> Keys:
        parts = tf.nest.flatten(part)
        return part if isinstance(part, str) else dict(zip(parts, parts, strict=True))

    return of(keys[0]), of(keys[1])


def _described(known: dict[str, Any]) -> str:
    return ", ".join(f"{key} ({type(value).__name__})" for key, value in known.items()) or "none"


def is_image(feature: Any) -> bool:
    """Returns whether a feature is an image: an `Image` that is no mask, or a `Tensor` of rank 3.

    The `Tensor` must be of dtype uint8 or float32.
    """
    from tensorflow_datasets import features as kinds

    if type(feature) is kinds.Tensor and len(feature.shape) == 3:
        return np.dtype(feature.np_dtype).name in DTYPES
    # A LabeledImage is a segmentation mask.
    return isinstance(feature, kinds.Image) and not isinstance(feature, kinds.LabeledImage)


def only_keys(name: str, features: dict[str, Any]) -> tuple[str, str]:
    """Returns the names of the only image and the only class label among a data set's features.

    Raises:
      ValueError: when there is not exactly one of each.
    """
    from tensorflow_datasets import features as kinds

    described = _described(features)
    say = "name them with --input_features and --target_features"
    images = [key for key, value in features.items() if is_image(value)]
    labels = [key for key, value in features.items() if isinstance(value, kinds.ClassLabel)]
    if not labels:
        raise ValueError(
            f"the data set {name} has no labels: none of its features is a ClassLabel; {say}; its "
            f"features are {described}"
        )
    if not images:
        raise ValueError(
            f"the data set {name} has no images: none of its features is an Image, or a Tensor of "
            f"rank 3, of {' or '.join(DTYPES)}; {say}; its features are {described}"
        )
    for kind, names in (("images", images), ("labels", labels)):
        if len(names) > 1:
            raise ValueError(
                f"the data set {name} has several {kind} ({', '.join(names)}) and does not say "
                f"which to use (supervised_keys); {say}"
            )
    return images[0], labels[0]


def is_classification(features: Any, inputs: Keys, targets: Keys) -> bool:
    """Returns whether the inputs are one image and the targets one class label."""
    from tensorflow_datasets import features as kinds

    if not (isinstance(inputs, str) and isinstance(targets, str)):
        return False
    return is_image(features[inputs]) and isinstance(features[targets], kinds.ClassLabel)


def class_names(name: str, features: Any, targets: Keys) -> tuple[str, ...]:
    """Returns the names of the classes if the targets are one class label, else ().

    Raises:
      ValueError: when the label has no known number of classes.
    """
    from tensorflow_datasets import features as kinds

    if not isinstance(targets, str) or not isinstance(features[targets], kinds.ClassLabel):
        return ()
    if not features[targets].num_classes:
        raise ValueError(f"the label {targets!r} of {name} does not say how many classes it has")
    return tuple(features[targets].names)

"""Data sets of TensorFlow Datasets: the records of each split and their decoder.

Opening a prepared data set reads only metadata and one record of each split.
"""

from __future__ import annotations

import dataclasses
import os
import re
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.errors import one_line_message
from pipelines.images.resize import Resize
from pipelines.preprocessing import preprocessing
from pipelines.source import Source
from pipelines.sources import description, feature_decoders, features
from pipelines.sources.builders import open_builder, parse_name
from pipelines.sources.description import SourceOptions
from pipelines.sources.tfds_text import is_text, text_of
from pipelines.splits import DataSplit
from pipelines.storage.file_index import Fields
from pipelines.storage.records import RecordSplit


@dataclasses.dataclass(frozen=True)
class Tfds:
    """Description of a TFDS data set, which `open` opens; `tfds` creates it.

    Attributes:
      dataset: name of the data set, as for `tfds`.
      inputs: names of the input features, separated by commas; "" for the default of `tfds`.
      targets: names of the target features, separated by commas; "" for the default of `tfds`.
    """

    dataset: str
    inputs: str
    targets: str

    def open(self, name: str, options: SourceOptions) -> Source:
        """Opens the data set as `open_tfds` does and returns the source; `name` is not used.

        The options `input_features` and `target_features`, if given, replace the description's.

        Raises:
          ValueError: when the data set or a split cannot be used.
        """
        options = dataclasses.replace(
            options,
            input_features=options.input_features or self.inputs,
            target_features=options.target_features or self.targets,
        )
        return open_tfds(self.dataset, options)


def tfds(
    dataset: str, *, inputs: str | Sequence[str] = (), targets: str | Sequence[str] = ()
) -> Tfds:
    """Describes a TFDS data set; for functions that `tl.source` registers.

    Args:
      dataset: name as in `--dataset`: "name[/config][:version]", or a version directory.
      inputs: names of the input features; several names make a dict. Default: the inputs of the
        data set's supervised keys or, if it has none and `targets` is empty too, its only image.
      targets: as `inputs`. Default: the targets of the supervised keys, or the only class label.
    """

    def text(names: str | Sequence[str]) -> str:
        return names if isinstance(names, str) else ",".join(names)

    return Tfds(dataset, text(inputs), text(targets))


def open_source(dataset: str, *, data_dir: str | None, cache_dir: str, **options: Any) -> Source:
    """Opens a TFDS data set; `options` are fields of `SourceOptions`. See `open_tfds`."""
    given = SourceOptions(data_dir=data_dir, cache_dir=cache_dir, **options)
    return open_tfds(dataset, given)


def open_tfds(dataset: str, options: SourceOptions) -> Source:
    """Opens a TFDS data set, which is prepared first if it is not on disk, and returns the source.

    `dataset` is as for `open_builder`, or "digits", the embedded data set, which is prepared in
    `cache_dir`. Some of the options:

      data_dir, prepared_only: as for `open_builder`.
      train_split: a TFDS split.
      validation_split: "" or "0" for none, a fraction below 1 to take from the end of train as
        Keras does, or a TFDS split; or fractions and splits by the name of the validation set.
      test_split: a TFDS split, "" for none, or "auto" for "test" if that exists and has labels.
        Error messages call the option by `test_flag`.
      image_size: (height, width) that `Resize` resizes images to; None: images are not resized.
      scale: as for `preprocessing`.
      input_features, target_features: as for `features.selected`.

    Raises:
      ValueError: when the data set or a split cannot be used, when splits share examples without
        `allow_overlap`, or when the data set is not on disk with `prepared_only`; the message has
        one line.
    """
    builder = _builder(dataset, options)
    info = builder.info
    name = builder.name + (f"/{info.config_name}" if info.config_name else "")
    if (stored := getattr(info.file_format, "value", "tfrecord")) != "tfrecord":
        raise ValueError(
            f"{name} in {builder.data_dir} is stored as {stored}, which tf.data cannot read; "
            "prepare it again with file_format='tfrecord'"
        )
    if is_text(info.features) and not (options.input_features or options.target_features):
        cache_dir = options.cache_dir

        def of_text(split: str) -> RecordSplit:
            return _records(name, builder, "train_split", split, None, cache_dir)

        return text_of(builder, of_text, cache_dir).open(name, options)
    keys = features.selected(name, info, options.input_features, options.target_features)
    class_names = features.class_names(name, info.features, keys[1])
    fields, decoding = _decoding(name, info.features, keys, options)
    label_key = keys[1] if class_names else None

    def records(flag: str, split: str) -> RecordSplit:
        found = _records(name, builder, flag, split, fields, options.cache_dir)
        if label_key and _first_label(found, label_key) == -1:
            raise UnlabelledError(
                f"the examples of {found.name} of {name} have no labels (they are all -1); "
                f"give another --{flag}"
            )
        return found

    splits = _splits(name, "test" in info.splits, options, records)
    return Source(
        name=name,
        version=str(builder.version),
        class_names=class_names,
        preprocess=preprocessing(options.scale, decoding["decoded"][0]),
        features=f"inputs {_listed(keys[0])}, targets {_listed(keys[1])}",
        **splits,
        **decoding,
    )


def _decoding(
    name: str, known: Any, keys: tuple[features.Keys, features.Keys], options: SourceOptions
) -> tuple[Fields | None, dict[str, Any]]:
    """Returns the `Fields` to read (None: whole examples), and keyword arguments for `Source`.

    Raises:
      ValueError: when a feature or `--image_size` cannot be used.
    """
    if not features.is_classification(known, *keys):
        resize = None
        if options.image_size:
            resize = Resize(options.image_size, options.fit, options.antialias)
        tensors = feature_decoders.Tensors(name, known, *keys, resize)
        signature = [tf.TensorSpec([], tf.string)]
        decode = tf.function(tensors.decode, input_signature=signature, autograph=False)
        return None, {"decoded": tensors.spec, "decode": decode, "recipe": tensors.recipe}
    image_key, label_key = keys
    image_shape = feature_decoders.image_shape(
        name, image_key, known[image_key], options.image_size
    )
    resize = Resize(image_shape[:2], options.fit, options.antialias)
    decode, decode_stored, fields = feature_decoders.decoders(known, image_key, label_key, resize)
    image = tf.TensorSpec(image_shape, np.dtype(known[image_key].np_dtype))
    return fields, {
        "decoded": (image, tf.TensorSpec([], tf.int32)),
        "decode": decode,
        "recipe": feature_decoders.recipe(known, image_key, label_key, resize),
        "decode_stored": decode_stored,
        "stored_shape": tuple(known[image_key].shape),
        "fit": options.fit,
        "antialias": options.antialias,
    }


def _listed(keys: features.Keys) -> str:
    return keys if isinstance(keys, str) else ", ".join(keys)


def _splits(
    name: str,
    has_test: bool,
    options: SourceOptions,
    records: Callable[[str, str], RecordSplit],
) -> dict[str, Any]:
    """Returns the splits that the options select, by the fields of `Source`.

    `records` returns the records of a split for the name of an option and its value; `has_test` is
    whether the data set has a split "test".

    Raises:
      ValueError: when a split or fraction cannot be used, or splits share examples.
    """
    train, sets = description.validation_sets(
        name, records("train_split", options.train_split), options, records
    )
    test: DataSplit | None = None
    if options.test_split != "auto":
        test = records(options.test_flag, options.test_split) if options.test_split else None
    elif has_test:
        try:
            test = records("test_split", "test")
        except UnlabelledError:  # of a competition, whose labels are not published
            test = None
    return description.checked(train, sets, test, options)


class UnlabelledError(ValueError):
    """Error for a split whose examples have no labels."""


def _builder(dataset: str, options: SourceOptions) -> Any:
    if re.split(r"[:/]", dataset, maxsplit=1)[0].lower() != "digits":
        return open_builder(dataset, options.data_dir, options.prepared_only, options.registered)
    from pipelines.sources import digits

    _, arguments = parse_name(dataset)
    version = arguments.pop("version", None)
    if arguments or (version and not digits.Digits.VERSION.match(version)):
        raise ValueError(f"--dataset={dataset}: the only version is digits:{digits.Digits.VERSION}")
    return digits.prepared(options.cache_dir)


def _records(
    name: str, builder: Any, flag: str, split: str, fields: Fields | None, cache_dir: str
) -> RecordSplit:
    """Returns the records of a TFDS split; ValueError if it is unknown, empty or incomplete."""
    splits = builder.info.splits
    requested = [part.strip().split("[")[0] for part in split.split("+")]
    if unknown := [part for part in requested if part not in splits and part != "all"]:
        fraction = ", or a fraction such as 0.1" if flag.startswith("validation_split") else ""
        raise ValueError(
            f"--{flag}={split}: {name} has no split {unknown[0]!r}: it has "
            f"{', '.join(splits) or 'none'}{fraction}"
        )
    try:
        instructions = splits[split].file_instructions
    except Exception as error:  # TFDS raises ValueError, KeyError or AssertionError
        # The message of TFDS's parser is mostly a URL.
        why = "" if "parsing" in str(error) else f" ({one_line_message(error, 160)})"
        raise ValueError(
            f"--{flag}={split}: cannot be read as a split{why}; write 'train', "
            "'train[:90%]' or 'train[100:200]'"
        ) from error
    ranges = []
    for part in instructions:
        last = part.examples_in_shard if part.take < 0 else part.skip + part.take
        if part.skip < last:
            ranges.append((os.fspath(part.filename), part.skip, last))
    records = RecordSplit(split, tuple(ranges), fields, cache_dir)
    if not len(records):
        raise ValueError(f"--{flag}={split}: holds no examples of {name}; give another")
    _check_files(name, records, splits)
    return records


def _check_files(name: str, records: RecordSplit, splits: Any) -> None:
    """Raises ValueError if a file of `records` is missing, or if a split's files are truncated."""
    remedy = "copy it again, or remove its directory and prepare the data set again"
    used = {path for path, _, _ in records.ranges}
    if missing := [path for path in sorted(used) if not os.path.isfile(path)]:
        raise ValueError(f"{name} is incomplete: {missing[0]} is missing; {remedy}")
    for split in splits.values():
        paths = [os.fspath(path) for path in split.filepaths]
        # num_bytes counts the examples without their frames, so an intact file is larger.
        if used.intersection(paths) and all(map(os.path.isfile, paths)):
            stored = sum(map(os.path.getsize, paths))
            if stored < split.num_bytes:
                where = paths[0] if len(paths) == 1 else f"{Path(paths[0]).parent} ({split.name})"
                raise ValueError(
                    f"{name} is damaged: {where} has {stored} bytes of at least "
                    f"{int(split.num_bytes)}; {remedy}"
                )


def _first_label(records: RecordSplit, label_key: str) -> int:
    """Returns the label of the first example in the first file of a split.

    The label is read without a TensorFlow operation, because after one the CPU could not be split
    into virtual devices.

    Raises:
      ValueError: when the label cannot be read.
    """
    path = records.ranges[0][0]
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q4x", file.read(12))
            data = file.read(length) if length <= os.path.getsize(path) else b""
        return tf.train.Example.FromString(data).features.feature[label_key].int64_list.value[0]
    except Exception as error:  # the protocol buffer library's error class is not public
        raise ValueError(
            f"cannot read the first example of {path}: {one_line_message(error, 80)}; the file is "
            "damaged or is not a TFRecord file of TFDS: copy or prepare it again"
        ) from error

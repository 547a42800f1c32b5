"""Opening of a TFDS image classification data set: the records of each split and their decoder.

Of a prepared data set, opening reads only metadata and one record of each split.
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines import features
from pipelines.builders import open_builder, parse_name
from pipelines.errors import one_line_message
from pipelines.index import Fields
from pipelines.preprocessing import preprocessing
from pipelines.records import RecordSplit
from pipelines.resize import Resize
from pipelines.source import Source


def open_source(
    dataset: str,
    *,
    data_dir: str | None,
    cache_dir: str,
    train_split: str = "train",
    validation_split: str = "0.1",
    test_split: str = "auto",
    test_flag: str = "test_split",
    image_size: tuple[int, int] | None = None,
    fit: str = "pad",
    antialias: bool = True,
    scale: str = "auto",
    prepared_only: bool = False,
) -> Source:
    """Opens a data set, prepares it if it is not on disk, and resolves its splits to records.

    `dataset` and `data_dir` are as for `open_builder`; "digits" is the embedded data set, prepared
    in `cache_dir`. `validation_split` is "" or "0" for none, a fraction below 1, taken from the end
    of train as Keras does, or a TFDS split that shares no example with train. `test_split` is a
    TFDS split, "" for none, or "auto" for "test" if that exists and has labels; error messages call
    its option `test_flag`. `Resize` resizes images to `image_size` (height, width), if given;
    `scale` is as for `preprocessing`. With `prepared_only`, a data set that is not on disk is a
    ValueError.

    Raises:
      ValueError: when the data set or a split cannot be used; the message has one line.
    """
    builder = _builder(dataset, data_dir, cache_dir, prepared_only)
    info = builder.info
    name = builder.name + (f"/{info.config_name}" if info.config_name else "")
    if (stored := getattr(info.file_format, "value", "tfrecord")) != "tfrecord":
        raise ValueError(
            f"{name} in {builder.data_dir} is stored as {stored}, which tf.data cannot read; "
            "prepare it again with file_format='tfrecord'"
        )
    image_key, label_key = features.keys(name, info)
    image_shape = features.image_shape(name, image_key, info.features[image_key], image_size)
    resize = Resize(image_shape[:2], fit, antialias)
    image = tf.TensorSpec(image_shape, np.dtype(info.features[image_key].np_dtype))
    decode, decode_stored, fields = features.decoders(info.features, image_key, label_key, resize)

    def records(flag: str, split: str) -> RecordSplit:
        labelled = _records(name, builder, flag, split, fields)
        if _first_label(labelled, label_key) == -1:
            raise ValueError(
                f"the examples of {labelled.name} of {name} have no labels (they are all -1); "
                f"give another --{flag}"
            )
        return labelled

    train = records("train_split", train_split)
    train, validation = _split_off_validation(name, train, validation_split, records)
    if test_split == "auto":
        test = (
            _records(name, builder, "test_split", "test", fields) if "test" in info.splits else None
        )
        if test is not None and _first_label(test, label_key) == -1:
            test = None  # the test split of a competition, whose labels are not published
    else:
        test = records(test_flag, test_split) if test_split else None
    return Source(
        name=name,
        version=str(builder.version),
        decoded=(image, tf.TensorSpec([], tf.int32)),
        preprocess=preprocessing(scale, image),
        class_names=tuple(info.features[label_key].names),
        train=train,
        validation=validation,
        test=test,
        decode=decode,
        recipe=features.recipe(info.features, image_key, label_key, resize),
        decode_stored=decode_stored,
        stored_shape=tuple(info.features[image_key].shape),
        fit=fit,
        antialias=antialias,
    )


def _builder(dataset: str, data_dir: str | None, cache_dir: str, prepared_only: bool) -> Any:
    if re.split(r"[:/]", dataset, maxsplit=1)[0].lower() != "digits":
        return open_builder(dataset, data_dir, prepared_only)
    from pipelines import digits

    _, arguments = parse_name(dataset)
    version = arguments.pop("version", None)
    if arguments or (version and not digits.Digits.VERSION.match(version)):
        raise ValueError(f"--dataset={dataset}: the only version is digits:{digits.Digits.VERSION}")
    return digits.prepared(cache_dir)


def _split_off_validation(
    name: str, train: RecordSplit, validation_split: str, records: Callable[[str, str], RecordSplit]
) -> tuple[RecordSplit, RecordSplit | None]:
    """Returns (training, validation split or None); ValueError for a bad --validation_split."""
    text = validation_split.strip()
    try:
        fraction = float(text or "0")
    except ValueError:
        validation = records("validation_split", text)
        if validation.in_common(train):
            raise ValueError(
                f"--validation_split={text}: shares examples with --train_split={train.name}: "
                "leave them out of train, as with --train_split='train[:90%]' and "
                "--validation_split='train[90%:]'"
            ) from None
        return train, validation
    if fraction == 0:
        return train, None
    if not 0 < fraction < 1:  # also rejects nan
        raise ValueError(
            f"--validation_split={text}: give a fraction between 0 and 1, or a split such as "
            "'train[90%:]'"
        )
    count = len(train)
    # Computed and rounded as Keras's validation_split, so that both select the same examples.
    split_at = math.floor(count * (1.0 - fraction))
    if split_at in (0, count):
        empty = "train" if split_at == 0 else "validation"
        raise ValueError(
            f"--validation_split={text}: of the {count} examples in {train.name} of {name} leaves "
            f"none for {empty}; give another --validation_split, or --validation_split=0 for none"
        )
    return (
        train.part(0, split_at, f"{train.name}[:{split_at}]"),
        train.part(split_at, count, f"{train.name}[{split_at}:]"),
    )


def _records(name: str, builder: Any, flag: str, split: str, fields: Fields | None) -> RecordSplit:
    """Returns the records of a TFDS split; ValueError if it is unknown, empty or incomplete."""
    splits = builder.info.splits
    requested = [part.strip().split("[")[0] for part in split.split("+")]
    if unknown := [part for part in requested if part not in splits and part != "all"]:
        fraction = ", or a fraction such as 0.1" if flag == "validation_split" else ""
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
    records = RecordSplit(split, tuple(ranges), fields)
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
    """Returns the label of the first example of the split's first file.

    Raises ValueError if that cannot be read. Runs no TensorFlow operation, after which the CPU
    could not be split into virtual devices.
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

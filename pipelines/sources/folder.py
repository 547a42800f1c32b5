"""Data sets of image files in folders, with one folder for each class.

PATH/cat/1.jpg                  only training images; validation is split off
PATH/train/cat/1.jpg            a folder for each split: train, and optionally validation, test
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from pipelines import cache
from pipelines.errors import one_line_message
from pipelines.host import usable_cores
from pipelines.nests import Nest
from pipelines.pictures import to_channels
from pipelines.preprocessing import preprocessing
from pipelines.resize import Resize
from pipelines.source import Source
from pipelines.sources import description
from pipelines.sources.description import SourceOptions
from pipelines.splits import DataSplit, IndexedSplit

_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
_VERSION = 2  # must be increased when the result of a check or of decoding changes
_LISTED = 10  # maximum number of damaged files that are named
_PARTS = 1 << 32  # of the interval [0, 1) that contents are hashed to, to cut splits
# What tf.io decodes to the same picture as Pillow: formats and modes by number of channels.
_AS_THEY_ARE = {
    1: {("JPEG", "L"), ("PNG", "L")},
    3: {
        *((form, mode) for form in ("JPEG", "PNG", "GIF") for mode in ("RGB", "L")),
        ("BMP", "RGB"),
    },
}


@dataclasses.dataclass(frozen=True)
class Folder:
    """Description of a data set of image files in folders; fields as the arguments of `folder`."""

    path: str
    validation: float | None
    test: float | None
    channels: int

    def open(self, name: str, options: SourceOptions) -> Source:
        """Returns the source; ValueError names a folder or file that cannot be used."""
        description.refuse_features(name, options)
        root = Path(self.path).expanduser()
        places = _split_folders(root)
        names = _class_names(root, places)
        files, notes = _checked(root, places, names, options)
        if not any(each.split == "train" for each in files):
            raise ValueError(f"{root} has no pictures in folders of classes, such as {root}/cat")
        # By content: names of files and the order of folders do not matter.
        files.sort(key=lambda each: (each.facts.digest, each.label))
        channels = self.channels or (1 if all(each.facts.grey for each in files) else 3)
        sizes = {(each.facts.height, each.facts.width): each.path for each in files}
        stored = next(iter(sizes)) if len(sizes) == 1 else (None, None)
        if options.image_size is None and None in stored:
            two = list(sizes.items())[:2]
            named = " and ".join(f"{path} has {h}x{w} pixels" for (h, w), path in two)
            raise ValueError(
                f"the pictures of {root} vary in size: give --image_size=64,64; {named}"
            )
        shape: Any = (*(options.image_size or stored), channels)
        resize = Resize(shape[:2], options.fit, options.antialias)
        decode, decode_stored = _decoders(resize, channels)
        splits: dict[str, Any] = self._splits(name, files, channels, options)
        image = tf.TensorSpec(shape, tf.uint8)
        return Source(
            name=name,
            version="folder",
            decoded=(image, tf.TensorSpec([], tf.int32)),
            decode=decode,
            recipe=f"folder {_VERSION} {channels} {resize}",
            class_names=names,
            preprocess=preprocessing(options.scale, image),
            features="inputs pictures, targets names of folders",
            remedy="repair or remove the file",
            notes=notes,
            decode_stored=decode_stored,
            stored_shape=(*stored, channels),
            fit=options.fit,
            antialias=options.antialias,
            **splits,
        )

    def _splits(
        self, name: str, files: Sequence[_File], channels: int, options: SourceOptions
    ) -> dict[str, DataSplit | None]:
        """Returns the splits: those with folders, and fractions of train by hashes of contents."""
        table = FileTable([(each.path, each.label, each.facts) for each in files], channels)
        rows = {key: [i for i, each in enumerate(files) if each.split == key] for key in _SPLITS}
        value = description.fraction(options.validation_split)
        fractions = {"validation": self.validation, "test": self.test}
        if self.validation is None and not rows["validation"] and value:
            description.check_fraction(f"--validation_split={options.validation_split}", value)
            fractions["validation"] = value
        start = 0.0
        hashes = np.array([int(each.facts.digest[:8], 16) / _PARTS for each in files])
        for key, part in fractions.items():
            if not part or rows[key]:
                continue
            flag = f"{key}={part:g} of {name}"
            description.check_fraction(flag, part)
            train = np.array(rows["train"], np.int64)
            inside = (hashes[train] >= start) & (hashes[train] < start + part)
            if len(train) > 1 and not inside.any():  # so few examples that none may be hit
                inside[np.argmin(hashes[train])] = True
            rows[key], rows["train"] = train[inside].tolist(), train[~inside].tolist()
            start += part
            if not rows[key] or not rows["train"]:
                empty = key if not rows[key] else "train"
                raise ValueError(
                    f"{flag}: of {len(train)} pictures leaves none for {empty}; give "
                    "--validation_split=0 for none, or a folder for each split"
                )
        given: dict[str, DataSplit] = {
            key: IndexedSplit(key, table, np.array(indices, np.int64))
            for key, indices in rows.items()
            if indices
        }
        # The fraction is cut off already.
        text = options.validation_split if value is None else SourceOptions.validation_split
        if "validation" not in given:
            text = "0"
        return description.choose_splits(
            name, given, dataclasses.replace(options, validation_split=text)
        )


def folder(
    path: str,
    *,
    validation: float | None = None,
    test: float | None = None,
    channels: int = 0,
) -> Folder:
    """Describes a folder of pictures; for functions that `tl.source` registers.

    Args:
      path: folder that contains a folder of pictures for each class; or folders "train" and, if
        there are such splits, "validation" and "test", each of which contains the folders of the
        classes.
      validation: fraction of the pictures, selected by hashes of their contents, so that a picture
        stays in its split when others are added or removed; None: `--validation_split` decides.
        Ignored if there is a folder "validation".
      test: as `validation`; None: no test split.
      channels: 1 for grey pictures, 3 for RGB; 0: 1 if all of them are grey, else 3.
    """
    return Folder(path, validation, test, channels)


class _Facts(NamedTuple):
    """Properties of a picture file, as the check of the file finds them."""

    digest: str  # SHA-256 of the file's bytes, in hexadecimal
    height: int  # in pixels, turned as EXIF says
    width: int
    grey: bool
    format: str  # as Pillow names it, such as "JPEG"
    mode: str  # Pillow's, and " turned" if EXIF says to turn it, " transparent" with transparency
    error: str  # why the file cannot be used; "" if it can


class _File(NamedTuple):
    """A picture file with its split and label."""

    split: str
    path: str
    label: int
    facts: _Facts


def _split_folders(root: Path) -> dict[str, Path]:
    """Returns the folder of each split by name; ValueError if there is no folder for train."""
    if not root.is_dir():
        raise ValueError(f"--dataset=folder:{root}: there is no such folder")
    found: dict[str, Path] = {}
    for each in sorted(root.iterdir()):
        key = _SPLITS.get(each.name)
        if each.is_dir() and key:
            if key in found:
                raise ValueError(f"{root} has both {found[key].name} and {each.name}: remove one")
            found[key] = each
    if not found:
        return {"train": root}
    if "train" not in found:
        raise ValueError(f"{root} has {', '.join(p.name for p in found.values())} and no train")
    return found


def _class_folders(place: Path) -> list[str]:
    hidden = ".", "_"
    return sorted(p.name for p in place.iterdir() if p.is_dir() and not p.name.startswith(hidden))


def _class_names(root: Path, places: dict[str, Path]) -> tuple[str, ...]:
    """Returns the names of train's class folders; ValueError if another split has other classes."""
    names = _class_folders(places["train"])
    if not names:
        raise ValueError(f"{places['train']} has no folders, which are the classes of its pictures")
    for place in places.values():
        if foreign := sorted(set(_class_folders(place)) - set(names)):
            raise ValueError(
                f"{place / foreign[0]} is a class that {places['train']} does not have: the "
                f"classes of {root} are {', '.join(names)}"
            )
    return tuple(names)


def _checked(
    root: Path, places: dict[str, Path], names: Sequence[str], options: SourceOptions
) -> tuple[list[_File], tuple[str, ...]]:
    """Returns the usable pictures of all splits, and lines to print.

    Raises:
      ValueError: when files are damaged and are not to be skipped; names them.
    """
    suffixes = set(Image.registered_extensions())
    found: list[_File] = []
    ignored = 0
    for split, place in places.items():
        labeled = [(path, i) for i, name in enumerate(names) for path in _files(place / name)]
        pictures = [(str(path), i) for path, i in labeled if path.suffix.lower() in suffixes]
        ignored += len(labeled) - len(pictures)
        facts = _facts(str(place), [path for path, _ in pictures], options.cache_dir)
        found += [_File(split, path, label, facts[path]) for path, label in pictures]
    damaged = [f"{each.path} ({each.facts.error})" for each in found if each.facts.error]
    named, more = damaged[:_LISTED], len(damaged) - _LISTED
    if damaged and not options.skip_damaged:
        raise ValueError(
            f"{len(damaged)} of {len(found)} pictures in {root} cannot be read: {', '.join(named)}"
            f"{f', and {more} more' if more > 0 else ''}; repair or remove them, or leave them out "
            "with --skip_damaged=true"
        )
    notes = [f"skipped {each}" for each in named]
    if more > 0:
        notes.append(f"skipped {more} more damaged files in {root}")
    if ignored:
        notes.append(f"ignored {ignored} files in {root} that are no pictures")
    return [each for each in found if not each.facts.error], tuple(notes)


def _files(place: Path) -> Iterator[Path]:
    """Yields the paths of all files below a folder but hidden ones; none if it does not exist."""
    for parent, folders, files in os.walk(place, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(parent, name)


def _facts(place: str, paths: Sequence[str], cache_dir: str) -> dict[str, _Facts]:
    """Returns the facts of files by path; caches them by path, size and modification time."""
    key = hashlib.sha256(os.path.abspath(place).encode()).hexdigest()[:32]
    store = os.path.join(cache_dir, f"{key}.pictures")
    known: dict[str, Any] = {}
    try:
        with open(store, "rb") as file:
            content = json.load(file)
        known = content["files"] if content["version"] == _VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    stats = {path: os.stat(path) for path in paths}
    keys = {path: [stat.st_size, stat.st_mtime_ns] for path, stat in stats.items()}
    new = [path for path in paths if known.get(path, [None])[0] != keys[path]]
    with ThreadPoolExecutor(usable_cores(), thread_name_prefix="pictures") as pool:
        found = dict(zip(new, pool.map(_check, new), strict=True))
    if new:
        entries = {p: [keys[p], found[p] if p in found else known[p][1]] for p in paths}
        try:
            with cache.written(store) as out:
                out.write(json.dumps({"version": _VERSION, "files": entries}).encode())
        except OSError:
            pass  # they are checked again next time
    return {path: found[path] if path in found else _Facts(*known[path][1]) for path in paths}


def _check(path: str) -> _Facts:
    """Decodes a picture file and returns its facts, with `error` set if that fails."""
    content, picture = b"", None
    try:
        with open(path, "rb") as file:
            content = file.read()
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as picture:
                turned = picture.getexif().get(0x0112, 1) not in (0, 1)
                transparent = picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info
                picture.load()
                mode = picture.mode + " turned" * turned + " transparent" * transparent
                width, height = ImageOps.exif_transpose(picture).size
                grey = picture.mode in ("1", "L", "LA") or picture.mode.startswith("I")
                form = str(picture.format)
        error = ""
    except Exception as problem:  # Pillow raises errors of many kinds for damaged files
        why = "it is empty" if not content else one_line_message(problem, 100)
        error = "is not a picture that can be decoded" if "cannot identify" in why else why
        return _Facts(hashlib.sha256(content).hexdigest(), 0, 0, False, "", "", error)
    digest = hashlib.sha256(content).hexdigest()
    return _Facts(digest, height, width, grey, form, mode, error)


class FileTable:
    """Table of picture files; a stored example is (encoded picture, label)."""

    def __init__(self, files: Sequence[tuple[str, int, _Facts]], channels: int) -> None:
        self._files, self._channels = files, channels
        self._labels = np.array([label for _, label, _ in files], np.int32)
        self.spec = tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int32)

    def read(self, rows: np.ndarray) -> Nest:
        """Returns (encoded pictures, object [k] of bytes; labels, int32 [k]) by row.

        Pictures that tf.io does not decode as Pillow does, or that have to be rotated, are encoded
        again as PNG.
        """
        encoded = np.empty(len(rows), object)
        for place, row in enumerate(rows.tolist()):
            path, _, facts = self._files[row]
            try:
                with open(path, "rb") as file:
                    encoded[place] = file.read()
                if (facts.format, facts.mode) not in _AS_THEY_ARE[self._channels]:
                    encoded[place] = self._as_png(encoded[place])
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"cannot read {path}: {one_line_message(error, 120)}; it could be read at the "
                    "start: run again"
                ) from None
        return encoded, self._labels[rows]

    def _as_png(self, content: bytes) -> bytes:
        with Image.open(io.BytesIO(content)) as picture:
            array = to_channels(ImageOps.exif_transpose(picture), self._channels)
        out = io.BytesIO()
        Image.fromarray(array[..., 0] if self._channels == 1 else array).save(
            out, "PNG", compress_level=1
        )
        return out.getvalue()

    def targets(self, rows: np.ndarray) -> np.ndarray:
        """Returns the labels by row, int32 [k]."""
        return self._labels[rows]

    def location(self, row: int) -> str:
        """Returns the path of a row's picture."""
        return self._files[row][0]

    def digest(self, rows: np.ndarray, all_bytes: bool) -> str:
        """Returns a hexadecimal digest of the contents and labels of the files in `rows`."""
        digest = hashlib.sha256(f"{self._channels}\n".encode())
        for row in rows.tolist():
            _, label, facts = self._files[row]
            digest.update(f"{facts.digest} {label}\n".encode())
        return digest.hexdigest()[:32]


def _decoders(resize: Resize, channels: int) -> tuple[Any, Any]:
    """Returns `decode` and `decode_stored` of a `Source` of pictures."""

    def decode_stored(stored: Any) -> tuple[tf.Tensor, tf.Tensor]:
        encoded, label = stored
        image = tf.cond(
            tf.io.is_jpeg(encoded),
            # The transform that Pillow uses, which predict reads files with: the same pixels.
            lambda: tf.io.decode_jpeg(encoded, channels, dct_method="INTEGER_ACCURATE"),
            lambda: tf.io.decode_image(encoded, channels, expand_animations=False),
        )
        return tf.ensure_shape(image, (None, None, channels)), label

    def decode(stored: Any) -> tuple[tf.Tensor, tf.Tensor]:
        image, label = decode_stored(stored)
        return tf.ensure_shape(resize(image), (*resize.shape, channels)), label

    signature = [(tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int32))]
    decoders = [
        tf.function(function, input_signature=signature, autograph=False)
        for function in (decode, decode_stored)
    ]
    return decoders[0], decoders[1]

"""Data sets of image files in folders, with one folder for each class.

PATH/cat/1.jpg                  only training images; validation is split off
PATH/train/cat/1.jpg            a folder for each split: train, and optionally validation, test
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from pipelines.images.resize import Resize
from pipelines.preprocessing import preprocessing
from pipelines.source import Source
from pipelines.sources import description, held_out
from pipelines.sources.description import SourceOptions
from pipelines.sources.held_out import Fraction, check_fraction
from pipelines.splits import DataSplit, IndexedSplit
from pipelines.storage.picture_files import (
    VERSION,
    PictureFacts,
    PictureTable,
    decoders,
    picture_facts,
)

_SPLITS = {"train": "train", "validation": "validation", "val": "validation", "test": "test"}
_LISTED = 10  # maximum number of damaged files that are named
_PARTS = 1 << 32  # of the interval [0, 1) that contents are hashed to, to cut splits


@dataclasses.dataclass(frozen=True)
class Folder:
    """Description of a data set of image files in folders; fields as the arguments of `folder`."""

    path: str
    validation: float | Mapping[str, float] | None
    test: float | None
    channels: int

    def open(self, name: str, options: SourceOptions) -> Source:
        """Checks all image files and returns the source, called `name` in messages.

        Raises:
          ValueError: when a folder, file, split or option cannot be used; the message names it.
        """
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
        decode, decode_stored = decoders(resize, channels)
        splits = self._splits(name, files, channels, options)
        image = tf.TensorSpec(shape, tf.uint8)
        return Source(
            name=name,
            version="folder",
            decoded=(image, tf.TensorSpec([], tf.int32)),
            decode=decode,
            recipe=f"folder {VERSION} {channels} {resize}",
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
    ) -> dict[str, Any]:
        """Returns the splits that the options select, by the fields of `Source`.

        A held-out split without a folder is a fraction of train, selected by hashes of the files'
        contents.

        Raises:
          ValueError: when a fraction is out of range or leaves a split empty; as `choose_splits`.
        """
        table = PictureTable([(each.path, each.label, each.facts) for each in files], channels)
        rows = {key: [i for i, each in enumerate(files) if each.split == key] for key in _SPLITS}
        flagged, sets = self._validation_fractions(name, bool(rows["validation"]), options)
        if self.test and not rows["test"]:
            flagged["test"] = Fraction(f"test={self.test:g} of {name}", self.test)
        start = 0.0
        hashes = np.array([int(each.facts.digest[:8], 16) / _PARTS for each in files])
        for key, part in flagged.items():
            check_fraction(part)
            train = np.array(rows["train"], np.int64)
            inside = (hashes[train] >= start) & (hashes[train] < start + part.value)
            if len(train) > 1 and not inside.any():  # so few examples that none may be hit
                inside[np.argmin(hashes[train])] = True
            rows[key], rows["train"] = train[inside].tolist(), train[~inside].tolist()
            start += part.value
            if not rows[key] or not rows["train"]:
                empty = key if not rows[key] else "train"
                raise ValueError(
                    f"{part.flag}: of {len(train)} pictures leaves none for {empty}; give "
                    "--validation_split=0 for none, or a folder for each split"
                )
        given: dict[str, DataSplit] = {
            key: IndexedSplit(key, table, np.array(indices, np.int64))
            for key, indices in rows.items()
            if indices
        }
        return description.choose_splits(
            name, given, dataclasses.replace(options, validation_split=sets)
        )

    def _validation_fractions(
        self, name: str, has_folder: bool, options: SourceOptions
    ) -> tuple[dict[str, Fraction], dict[str, str]]:
        """Returns the fractions for validation, and the split of each validation set, by name.

        `--validation_split`, if given, goes before the folder "validation" (`has_folder`), which
        goes before the argument `validation`. The split of a fraction has the name of its set.

        Raises:
          ValueError: when the argument `validation` has an invalid name.
        """
        own: dict[str, Fraction] = {}
        if not has_folder:
            for key, value in held_out.sets_of(name, self.validation).items():
                own |= {key: Fraction(f"{key}={value:g} of {name}", value)} if value else {}
        if options.is_default and (has_folder or self.validation is not None):
            return own, {key: key for key in own or ["validation"] * has_folder}
        texts = options.validation_texts
        asked = {
            key: Fraction(options.validation_flag(key), value)
            for key, text in texts.items()
            if (value := held_out.fraction(text)) is not None
        }
        sets = {key: key if key in asked else text for key, text in texts.items()}
        return (asked if len(asked) == len(texts) else own | asked), sets


def folder(
    path: str,
    *,
    validation: float | Mapping[str, float] | None = None,
    test: float | None = None,
    channels: int = 0,
) -> Folder:
    """Describes a folder of image files; for functions that `tl.source` registers.

    Args:
      path: folder that contains a folder of images for each class; or folders "train" and, if there
        are such splits, "validation" (or "val") and "test", each of which contains the folders of
        the classes.
      validation: fraction of the images, selected by hashes of their contents, so that an image
        stays in its split when others are added or removed; a dict of fractions: several validation
        sets by name; None: `--validation_split` decides. Ignored if there is a folder "validation".
      test: fraction of the images; None: no test split. Ignored if there is a folder "test".
      channels: 1 for grey images, 3 for RGB; 0: 1 if all of them are grey, else 3.
    """
    return Folder(path, validation, test, channels)


class _File(NamedTuple):
    """An image file with its split, label and properties."""

    split: str
    path: str
    label: int
    facts: PictureFacts


def _split_folders(root: Path) -> dict[str, Path]:
    """Returns the folder of each split by name; only `root` as "train" if it has no such folders.

    Raises:
      ValueError: when `root` is no folder, has folders of other splits but none for train, or has
        two for validation.
    """
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
    """Returns the names of train's class folders, sorted.

    Raises:
      ValueError: when train has no class folders, or another split has a class that train lacks.
    """
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
    """Returns the usable image files of all splits, and lines to print about the other files.

    Raises:
      ValueError: when files are damaged and are not to be skipped; the message names up to ten.
    """
    suffixes = set(Image.registered_extensions())
    found: list[_File] = []
    ignored = 0
    for split, place in places.items():
        labeled = [(path, i) for i, name in enumerate(names) for path in _files(place / name)]
        pictures = [(str(path), i) for path, i in labeled if path.suffix.lower() in suffixes]
        ignored += len(labeled) - len(pictures)
        facts = picture_facts(str(place), [path for path, _ in pictures], options.cache_dir)
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
    """Yields the paths of all files below a folder, except hidden ones and those in hidden folders.

    Yields nothing if the folder does not exist.
    """
    for parent, folders, files in os.walk(place, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield Path(parent, name)

"""Image files: checked once, read by index, and decoded as Pillow decodes them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

from pipelines.errors import one_line_message
from pipelines.host import usable_cores
from pipelines.images.pictures import to_channels
from pipelines.images.resize import Resize
from pipelines.nests import Nest
from pipelines.rows import Rows
from pipelines.storage import cache

VERSION = 2  # must be increased when the result of a check or of decoding changes
# What tf.io decodes to the same picture as Pillow: formats and modes by number of channels.
_AS_THEY_ARE = {
    1: {("JPEG", "L"), ("PNG", "L")},
    3: {
        *((form, mode) for form in ("JPEG", "PNG", "GIF") for mode in ("RGB", "L")),
        ("BMP", "RGB"),
    },
}


class PictureFacts(NamedTuple):
    """Properties of an image file, as the check of the file finds them."""

    digest: str  # SHA-256 of the file's bytes, in hexadecimal
    height: int  # in pixels, turned as EXIF says
    width: int
    grey: bool
    format: str  # as Pillow names it, such as "JPEG"
    mode: str  # Pillow's, and " turned" if EXIF says to turn it, " transparent" with transparency
    error: str  # why the file cannot be used; "" if it can


def picture_facts(place: str, paths: Sequence[str], cache_dir: str) -> dict[str, PictureFacts]:
    """Returns the properties of image files by path; decodes files that are new or changed.

    Args:
      place: folder of the files; the properties found are cached under a hash of its path.
      paths: paths of the files.
      cache_dir: directory of the cache, in which a file is known by path, size and modification
        time.

    Raises:
      OSError: when a file does not exist.
    """
    key = hashlib.sha256(os.path.abspath(place).encode()).hexdigest()[:32]
    store = os.path.join(cache_dir, f"{key}.pictures")
    known: dict[str, Any] = {}
    try:
        with open(store, "rb") as file:
            content = json.load(file)
        known = content["files"] if content["version"] == VERSION else {}
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
                out.write(json.dumps({"version": VERSION, "files": entries}).encode())
        except OSError:
            pass  # they are checked again next time
    return {path: found[path] if path in found else PictureFacts(*known[path][1]) for path in paths}


def _check(path: str) -> PictureFacts:
    """Decodes an image file and returns its properties, with `error` set if that fails."""
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
        return PictureFacts(hashlib.sha256(content).hexdigest(), 0, 0, False, "", "", error)
    digest = hashlib.sha256(content).hexdigest()
    return PictureFacts(digest, height, width, grey, form, mode, error)


class PictureTable:
    """Table of image files; a stored example is (encoded image, label).

    Args:
      files: (path, label, properties) of each file, which is a row of the table.
      channels: 1 for grey images, 3 for RGB.
    """

    def __init__(self, files: Sequence[tuple[str, int, PictureFacts]], channels: int) -> None:
        self._files, self._channels = files, channels
        self._labels = np.array([label for _, label, _ in files], np.int32)
        self.spec = tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int32)

    def read(self, rows: np.ndarray) -> Nest:
        """Returns (encoded images, object [k] of bytes; labels, int32 [k]) by row.

        Images that tf.io does not decode as Pillow does, or that have to be rotated, are encoded
        again as PNG.

        Raises:
          ValueError: when a file cannot be read.
        """
        encoded = np.empty(len(rows), object)
        for place, row in enumerate(rows.tolist()):
            path, _, facts = self._files[row]
            try:
                with open(path, "rb") as file:
                    encoded[place] = file.read()
                if (facts.format, facts.mode) not in _AS_THEY_ARE[self._channels]:
                    encoded[place] = self._as_png(encoded[place])
            except Exception as error:  # Pillow raises errors of many kinds for damaged files
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

    def targets(self, rows: np.ndarray | Rows) -> np.ndarray:
        """Returns the labels by row, int32 [k]."""
        return self._labels[np.asarray(rows)]

    def location(self, row: int) -> str:
        """Returns the path of a row's image file, for messages."""
        return self._files[row][0]

    def digest(self, rows: np.ndarray | Rows, all_bytes: bool) -> str:
        """Returns a hexadecimal digest of the contents and labels of the files in `rows`.

        The contents were hashed when the files were checked; `all_bytes` is ignored.
        """
        digest = hashlib.sha256(f"{self._channels}\n".encode())
        for row in np.asarray(rows).tolist():
            _, label, facts = self._files[row]
            digest.update(f"{facts.digest} {label}\n".encode())
        return digest.hexdigest()[:32]


def decoders(resize: Resize, channels: int) -> tuple[Any, Any]:
    """Returns the functions `decode` and `decode_stored` of a `Source` of image files.

    Both map (encoded image, label) to (image uint8 [h, w, channels], label) in the graph; `decode`
    resizes the image by `resize`, `decode_stored` does not.
    """

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

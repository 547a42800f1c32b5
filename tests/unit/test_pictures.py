"""Conversion of picture files of all formats to a data set's images; one-line errors."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import ImageSpec, Resize, read_array, read_picture
from pipelines.images.ink import InkLayout
from pipelines.images.pictures import convert

GREY = ImageSpec(Resize((28, 28)), 1, (28, 28))
COLOUR = ImageSpec(Resize((28, 28)), 3, (28, 28))


def digit(side: int = 28) -> np.ndarray:
    """Returns a light mark on a dark background, uint8 [side, side]."""
    image = np.zeros((side, side), np.uint8)
    image[side // 6 : -side // 6, side * 2 // 5 : side * 3 // 5] = 230
    image[side // 6 : side // 3, side // 4 : side * 3 // 5] = 140
    return image


def saved(tmp_path: Path, picture: Image.Image, name: str = "a.png", **options) -> str:
    path = tmp_path / name
    picture.save(path, **options)
    return str(path)


def test_own_size_is_unchanged(tmp_path: Path):
    path = saved(tmp_path, Image.fromarray(digit()))
    assert (read_picture(path, GREY)[..., 0] == digit()).all()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "CMYK", "YCbCr"])
def test_grey_in_every_mode(tmp_path: Path, mode: str):
    picture = Image.fromarray(digit()).convert(mode)
    kind = "a.png" if mode in ("L", "RGB", "RGBA", "LA", "P") else "a.tiff"
    found = read_picture(saved(tmp_path, picture, kind), GREY)
    assert np.abs(found[..., 0].astype(int) - digit()).max() <= 2


def test_one_bit(tmp_path: Path):
    picture = Image.fromarray(digit()).convert("1", dither=Image.Dither.NONE)
    found = read_picture(saved(tmp_path, picture), GREY)
    assert (found[..., 0] == np.where(digit() > 127, 255, 0)).all()


def test_16_bits_are_scaled(tmp_path: Path):
    deep = digit().astype(np.uint16) * 257
    for name in ("a.png", "a.tiff"):
        found = read_picture(saved(tmp_path, Image.fromarray(deep), name), GREY)
        assert (found[..., 0] == digit()).all(), name


def test_jpeg(tmp_path: Path):
    found = read_picture(saved(tmp_path, Image.fromarray(digit()), "a.jpg", quality=95), GREY)
    assert np.abs(found[..., 0].astype(int) - digit()).mean() < 4


def test_grey_and_colour(tmp_path: Path):
    colours = np.zeros((28, 28, 3), np.uint8)
    colours[:14, :, 0], colours[14:, :, 1] = 200, 100
    path = saved(tmp_path, Image.fromarray(colours))
    grey = read_picture(path, GREY)[..., 0].astype(int)
    assert abs(grey[0, 0] - round(0.299 * 200)) <= 1 and abs(grey[20, 0] - round(58.7)) <= 1
    assert (read_picture(path, COLOUR) == colours).all()
    assert (
        read_picture(saved(tmp_path, Image.fromarray(digit())), COLOUR) == digit()[..., None]
    ).all()


@pytest.mark.parametrize(("ink", "ground"), [(255, 0), (0, 255)])
def test_transparency(tmp_path: Path, ink: int, ground: int):
    """Transparent pixels are dark under light ink and light under dark ink."""
    layers = np.zeros((28, 28, 4), np.uint8)
    layers[..., :3], layers[..., 3] = ink, digit()
    found = read_picture(saved(tmp_path, Image.fromarray(layers)), GREY)[..., 0]
    assert found[0, 0] == ground
    assert abs(int(found[14, 14]) - round(ink * 230 / 255 + ground * 25 / 255)) <= 1


def test_transparent_palette(tmp_path: Path):
    picture = Image.fromarray(digit()).convert("P")
    found = read_picture(saved(tmp_path, picture, "a.gif", transparency=0), GREY)
    assert found.max() > 100 and found.min() < 20


def test_large_picture_is_averaged(tmp_path: Path):
    """Lines of one pixel are averaged to grey, which only an antialiasing filter does."""
    lines = np.zeros((280, 280), np.uint8)
    lines[::2] = 255
    found = read_picture(saved(tmp_path, Image.fromarray(lines)), GREY)
    assert abs(found.astype(int)[2:-2] - 127).max() <= 3


@pytest.mark.parametrize("size", [(60, 20), (20, 60), (4000, 3000)])
def test_pads_with_border_colour(tmp_path: Path, size):
    picture = Image.new("L", size, 40)
    picture.paste(200, (size[0] // 3, size[1] // 3, size[0] * 2 // 3, size[1] * 2 // 3))
    found = read_picture(saved(tmp_path, picture), GREY)[..., 0]
    assert found[0, 0] == found[-1, -1] == 40 and found[13, 13] == 200
    # The aspect ratio of the mark is unchanged.
    rows, columns = (
        np.ptp(np.flatnonzero(found.max(1) > 100)),
        np.ptp(np.flatnonzero(found.max(0) > 100)),
    )
    assert (columns + 1) / (rows + 1) == pytest.approx(size[0] / size[1], rel=0.35)


def test_inverts_on_request():
    paper = 255 - digit()[..., None]
    assert (convert(paper, GREY._replace(invert=True))[..., 0] == digit()).all()
    automatic = GREY._replace(background="dark")
    assert (convert(paper, automatic)[..., 0] == digit()).all()
    assert (convert(digit()[..., None], automatic)[..., 0] == digit()).all()
    assert (convert(digit()[..., None], GREY._replace(background="light")) == paper).all()


def test_rare_image_is_not_inverted():
    """An image whose border is mostly, but not completely, light is not inverted."""
    rare = np.full((28, 28, 1), 200, np.uint8)
    rare[0, :5] = 0
    found = convert(rare, GREY._replace(background="dark"))
    assert np.array_equal(found, rare)


def test_mixed_grounds_not_inverted():
    """If a data set has light and dark backgrounds, no picture of its size is inverted."""
    paper, either = 255 - digit()[..., None], GREY._replace(background="dark", exceptions=True)
    assert np.array_equal(convert(paper, either), paper)
    large = np.kron(paper, np.ones((2, 2, 1), np.uint8))
    assert convert(large, either).mean() < 128  # another size: not one of these images


def test_accepts_stored_and_network_size():
    want = ImageSpec(
        Resize((3, 2)), 1, (5, 5), background="dark", layout=InkLayout(0, 0.7, (0.5, 0.5))
    )
    blank = np.full((5, 5, 1), 255, np.uint8)
    blank[0, 0] = 0
    assert np.array_equal(convert(blank, want), want.resize.array(blank))
    for size in ((5, 5), (3, 2)):
        empty = np.zeros((*size, 1), np.uint8)
        assert np.array_equal(convert(empty, want), np.zeros((3, 2, 1), np.uint8))
    resized = np.array([[9, 2], [5, 200], [7, 1]], np.uint8)[..., None]
    assert np.array_equal(convert(resized, want), resized)
    for size in ((50, 50), (1, 9)):
        with pytest.raises(ValueError):
            convert(np.zeros((*size, 1), np.uint8), want)


def test_ink_layout_before_resize():
    """A picture gets the ink layout at the stored size, before it is resized and stretched."""
    stored = ImageSpec(Resize((28, 28)), 1, (28, 28), layout=InkLayout(0, 0.7, (0.5, 0.5)))
    small = stored._replace(resize=Resize((14, 21), "stretch", False))
    sheet = np.zeros((90, 90, 1), np.uint8)
    sheet[10:60, 30:50] = 255
    laid_out = convert(sheet, stored)
    assert np.array_equal(convert(sheet, small), small.resize.array(laid_out))


def test_resizes_only_without_stored_size():
    want = ImageSpec(Resize((8, 6)), 3, None)
    picture = np.random.default_rng(0).integers(0, 256, (20, 31, 3), np.uint8)
    assert np.array_equal(convert(picture, want), want.resize.array(picture))


def test_exif_orientation(tmp_path: Path):
    picture = Image.fromarray(digit())
    exif = picture.getexif()
    exif[0x0112] = 6  # to be rotated by 90 degrees clockwise
    found = read_picture(saved(tmp_path, picture, "a.jpg", exif=exif, quality=95), GREY)
    turned = np.rot90(digit(), -1)
    assert np.abs(found[..., 0].astype(int) - turned).mean() < 4


def content(picture: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    picture.save(out, kind)
    return out.getvalue()


WRONG = {
    "empty": (b"", "empty"),
    "text": (b"this is no picture\n" * 9, "is not an image"),
    "truncated png": (
        content(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)))[
            :900
        ],
        "",
    ),
    "truncated jpeg": (content(Image.fromarray(digit(200)), "JPEG")[:300], ""),
    "one pixel": (content(Image.new("L", (1, 1), 9)), "1x1 pixels"),
    "one colour": (content(Image.new("L", (50, 50), 9)), "a single colour"),
}


@pytest.mark.parametrize("which", WRONG)
def test_refuses_non_picture(tmp_path: Path, which: str):
    written, words = WRONG[which]
    path = tmp_path / "a.png"
    path.write_bytes(written)
    with pytest.raises(ValueError) as caught:
        read_picture(str(path), GREY)
    message = str(caught.value)
    assert words in message and "\n" not in message and 0 < len(message) < 150


def test_refuses_unreadable_path(tmp_path: Path):
    for path in (tmp_path, tmp_path / "nowhere.png"):
        with pytest.raises(ValueError, match="cannot be read"):
            read_picture(str(path), GREY)


ARRAYS = {
    "one": (digit(), 1),
    "one with a channel": (digit()[..., None], 1),
    "several": (np.stack([digit()] * 3), 3),
    "several with a channel": (np.stack([digit()] * 3)[..., None], 3),
    "floats": (digit() / 255, 1),
    "half floats": ((digit() / 255).astype(np.float32), 1),
    "whole numbers": (digit().astype(np.int64), 1),
    "colours": (np.repeat(digit()[..., None], 3, 2), 1),
}


@pytest.mark.parametrize("which", ARRAYS)
def test_reads_array(tmp_path: Path, which: str):
    array, count = ARRAYS[which]
    np.save(tmp_path / "a.npy", array)
    found = read_array(str(tmp_path / "a.npy"), GREY)
    assert len(found) == count
    for image in found:
        assert np.abs(image[..., 0].astype(int) - digit()).max() <= 1


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(5), "shape"),
        (np.zeros((0, 28, 28)), "shape"),
        (np.full((28, 28), 7.0), "floats"),
        (np.full((28, 28), np.nan), "floats"),
        (np.full((28, 28), 900), "0 to 255"),
        (np.zeros((2, 28, 28, 7), np.uint8), "7 channels"),
        (np.array(["a"]), "shape"),
    ],
)
def test_refuses_array(tmp_path: Path, array: np.ndarray, words: str):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=words):
        read_array(str(tmp_path / "a.npy"), GREY)


def test_refuses_non_array_file(tmp_path: Path):
    (tmp_path / "a.npy").write_bytes(b"no array")
    with pytest.raises(ValueError, match="is not a NumPy array"):
        read_array(str(tmp_path / "a.npy"), GREY)

"""Drawings are fitted to the ink layout of a data set, whatever their position and size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pipelines.images import ink


def drawn(top: int, left: int, rows: int, columns: int, side: int = 28) -> np.ndarray:
    """Returns an L-shaped mark on black, uint8 [side, side, 1]."""
    image = np.zeros((side, side, 1), np.uint8)
    image[top : top + rows, left : left + max(1, columns // 3)] = 255
    image[top + rows - max(1, rows // 4) : top + rows, left : left + columns] = 255
    return image


LIKE_MNIST = np.stack([drawn(4, 7 + shift, 20, 12) for shift in (-1, 0, 1)] * 4)


def test_measures_layout():
    found = ink.layout(LIKE_MNIST)
    assert found is not None and found.dark and found.background == 0
    assert found.extent == pytest.approx(20 / 28)
    row, column = found.centre
    assert 0.5 < row < 0.65 and 0.3 < column < 0.5  # of mass: an L is heavy at the lower left
    light = ink.layout(255 - LIKE_MNIST)
    assert light == found._replace(background=255)


def test_ink_at_border():
    found = ink.layout(np.stack([drawn(0, 2, 8, 4, side=8)] * 5))
    assert found is not None and found.extent == 1


def test_no_layout_without_plain_ground():
    noise = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), np.uint8)
    assert ink.layout(noise) is None
    assert ink.layout(np.concatenate([LIKE_MNIST, 255 - LIKE_MNIST])) is None
    assert ink.layout(LIKE_MNIST[:0]) is None
    assert ink.layout(np.zeros((5, 28, 28, 1), np.uint8)) is None


@pytest.mark.parametrize("ground", ["dark", "light"])
@pytest.mark.parametrize("size", [(300, 200), (200, 300), (30, 30), (4000, 3000)])
@pytest.mark.parametrize("place", [(0.1, 0.1), (0.5, 0.4), (0.55, 0.7)])
def test_fits_picture_to_layout(ground: str, size, place):
    images = LIKE_MNIST if ground == "dark" else 255 - LIKE_MNIST
    like = ink.layout(images)
    assert like is not None
    side = min(size) * 2 // 5
    mark = Image.fromarray(drawn(0, 0, 20, 12, side=20)[:, :12, 0]).resize((side * 3 // 5, side))
    sheet = Image.new("L", size, 0)
    sheet.paste(mark, (int(place[1] * size[0]), int(place[0] * size[1])))
    picture = np.asarray(sheet)[..., None]
    found = ink.fitted(picture if ground == "dark" else 255 - picture, 28, 28, like)
    assert found is not None and found.dtype == np.uint8 and found.shape == (28, 28, 1)
    off = np.abs(found.astype(int) - images[1]).mean()
    assert off < 14, off  # a pixel of blur along the edges; another place gives 40 or more


def test_thin_and_pale_lines():
    like = ink.layout(LIKE_MNIST)
    picture = np.full((1000, 1000, 1), 90, np.uint8)
    picture[200:800, 500:503] = 140
    found = ink.fitted(picture, 28, 28, like)
    assert found is not None and found.max() == 255 and np.median(found) == 0


def test_no_ink_without_contrast():
    like = ink.layout(LIKE_MNIST)
    picture = np.full((100, 100, 1), 90, np.uint8)
    picture[50, 50] = 100
    assert ink.fitted(picture, 28, 28, like) is None
    # Ink of the other kind: dark, while that of the data set is light.
    assert ink.fitted(255 - drawn(10, 10, 40, 30, side=100), 28, 28, like) is None

"""TFDS datasets of float32 images, with a NaN, with an outlier, and with neither."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds

BROKEN = 57  # index in the training split of the example with a NaN


class Measured(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS builder of float32 images [8, 8, 1] of three separable classes.

    One image of the training split, number `BROKEN`, has the pixel value `VALUE`: a NaN.
    """

    VERSION = tfds.core.Version("1.0.0")
    VALUE = np.nan  # pixels at one position of the bad example

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(8, 8, 1), dtype=np.float32),
                    "label": tfds.features.ClassLabel(num_classes=3),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(150, 0), "test": self._generate_examples(40, 1)}

    def _generate_examples(self, count: int, seed: int):
        random = np.random.default_rng(seed)
        for number in range(count):
            label = number % 3
            image = random.normal(label / 4, 1, (8, 8, 1)).astype(np.float32)
            if seed == 0 and number == BROKEN:
                image[3, 4] = self.VALUE
            yield number, {"image": image, "label": label}


class Whole(Measured, skip_registration=True):
    """`Measured` without a NaN: `VALUE` is 0.5."""

    VALUE = 0.5


class Loud(Measured, skip_registration=True):
    """`Measured` with a pixel value of 30,000 instead of the NaN."""

    VALUE = 3e4


def prepared(data_dir: Path, builder: type[Measured] = Measured) -> str:
    """Writes the dataset of `builder` to `data_dir`; returns its path, a value for `--dataset`."""
    made = builder(data_dir=str(data_dir))
    made.download_and_prepare()
    return str(made.data_dir)

"""Options of `--mode=predict` and `--mode=export`."""

from __future__ import annotations

import dataclasses

from engine.config.option import OptionGroup, option


@dataclasses.dataclass(frozen=True)
class ServingOptions(OptionGroup):
    """Prediction and export of a trained run.

    `averaged` is an option of `--mode=export`, the others are options of `--mode=predict`.
    """

    inputs: str = option(
        "", "images to predict: files, folders, patterns and .npy files, separated by commas"
    )
    invert: str = option(
        "auto",
        "whether to swap dark and light in images to predict. no; yes; auto: where the border "
        "is light and the data set's are dark, or the reverse",
        choices=("auto", "no", "yes"),
    )
    top_k: int = option(3, "number of most likely classes to print for each prediction", minimum=1)
    predictions: str = option("", "directory of the predictions; empty: RUN_DIR/predictions")
    averaged: str = option(
        "auto",
        "whether to export the EMA of the weights; auto: as --evaluate_ema",
        choices=("auto", "no", "yes"),
    )

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
    prompt: str = option("", "text that a language model continues")
    sample_tokens: int = option(300, "number of tokens to continue --prompt by", minimum=1)
    samples: int = option(1, "number of continuations of --prompt", minimum=1)
    temperature: float = option(
        1.0, "divisor of the logits in sampling; 0: the most probable token", minimum=0
    )
    sample_top_k: int = option(
        0, "number of most probable tokens to choose one of, in sampling; 0: all", minimum=0
    )
    sample_seed: int = option(0, "seed of the sampling", minimum=0)
    predictions: str = option("", "directory of the predictions; empty: RUN_DIR/predictions")
    averaged: str = option(
        "auto",
        "whether to export the EMA of the weights; auto: as --evaluate_ema",
        choices=("auto", "no", "yes"),
    )

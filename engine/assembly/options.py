"""Options of the run as a whole, of its data set and of its batches."""

from __future__ import annotations

import dataclasses
import re
import sys

from engine.assembly.registry import SOURCES
from engine.config.option import OptionGroup, option

MODES = (
    *("train", "evaluate", "predict", "export", "report"),
    *("inspect", "verify", "benchmark", "tune"),
)
FITS = ("pad", "crop", "stretch")
SCALES = ("auto", "none", "unit", "standardize")


@dataclasses.dataclass(frozen=True)
class RunOptions(OptionGroup):
    """Mode, run directory and seed.

    Option group of the run as a whole; the first line is the heading in `--help`.
    """

    mode: str = option("train", "what to do: " + ", ".join(MODES), choices=MODES)
    run_dir: str = option("", "run directory; empty: runs/DATASET-MODEL")
    load: str = option(
        "",
        "Python files of your own, separated by commas, that are imported first: options may "
        "name what they register; not given: those of the run in run_dir",
    )
    resume: str = option(
        "auto",
        "auto: resume from the newest checkpoint if there is one; never: refuse a run "
        "directory in use; must: refuse one without a checkpoint",
        choices=("auto", "never", "must"),
    )
    weights: str = option(
        "auto",
        "weights to evaluate, predict with, export or report on: newest; best; step:N, of a "
        "checkpoint of step N, see --keep_every; average:K, the mean of the K best, see "
        "--keep_best; auto: as --restore_best of the run",
    )
    seed: int = option(
        0,
        "seed of the initial weights, the order of examples, dropout and augmentation",
        minimum=0,
        trajectory=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        known = r"auto|newest|best|step:[0-9]{1,15}|average:[1-9][0-9]{0,2}"
        if not re.fullmatch(known, self.weights):
            raise ValueError(
                f"--weights={self.weights}: give auto, newest, best, step:N, such as step:1000, or "
                "average:K, such as average:5"
            )

    @property
    def averaged(self) -> int:
        """Number of best checkpoints whose weights are averaged; 0 without `average:K`."""
        kind, _, count = self.weights.partition(":")
        return int(count) if kind == "average" else 0


def _registered_augmentations() -> tuple[str, ...]:
    """Returns the names of the augmentations that users have registered.

    The result is () if `pipelines.augmentation.registry` is not imported: nothing is registered
    then.
    """
    module = sys.modules.get("pipelines.augmentation.registry")
    return module.registered_names() if module else ()


@dataclasses.dataclass(frozen=True)
class DataOptions(OptionGroup):
    """Data set, splits, preprocessing and augmentation.

    Option group of the data and the feeds; the first line is the heading in `--help`.
    """

    dataset: str = option(
        "digits",
        "a TFDS data set by name; folder:PATH for pictures in folders of classes; text:PATH for a "
        "text to predict the next token of; a source that --load registers; or the embedded digits",
        registered=lambda: SOURCES.added,
        trajectory=True,
    )
    data_dir: str = option("", "directory of TFDS data sets; empty: ~/tensorflow_datasets")
    cache_dir: str = option(
        "", "directory of cached decoded data; empty: the user's cache directory"
    )
    input_features: str = option(
        "",
        "features of a TFDS data set that are the inputs, by name; several make a dict; empty: its "
        "supervised keys",
        trajectory=True,
        describes="inputs",
    )
    target_features: str = option(
        "",
        "features of a TFDS data set that are the targets; as --input_features",
        trajectory=True,
        describes="inputs",
    )
    train_split: str = option("train", "TFDS split to train on", trajectory=True)
    validation_split: str = option(
        "0.1",
        "a fraction, cut from the end of the training split, or a TFDS split; several sets by "
        "name: a=0.1,b=test[:50%]; 0: none",
        trajectory=True,
    )
    test_split: str = option(
        "auto",
        "TFDS split to test on at the end; auto: 'test' if there is one; empty: none",
        affects="end",
    )
    allow_overlap: bool = option(
        False, "allow splits that share examples, such as a test on training examples"
    )
    skip_damaged: bool = option(
        False, "leave damaged files of a folder out, instead of refusing it", trajectory=True
    )
    image_size: tuple[int, ...] = option(
        (),
        "HEIGHT,WIDTH to resize images to; empty: no resizing",
        minimum=1,
        trajectory=True,
        describes="inputs",
    )
    fit: str = option(
        "pad",
        "how to resize to another aspect ratio. pad: the whole image, padded with the colour "
        "of its border; crop: its centre; stretch: the aspect ratio changes",
        choices=FITS,
        trajectory=True,
        describes="inputs",
        legacy="stretch",
        legacy_with="image_size",
    )
    antialias: bool = option(
        True,
        "antialias where an image gets smaller: average all pixels instead of the nearest four",
        trajectory=True,
        describes="inputs",
        legacy=False,
        legacy_with="image_size",
    )
    augment: str = option(
        "",
        "random augmentation of training images, NAME[:STRENGTH],...: crop:PADDING[:zeros], flip, "
        "randaugment:OPERATIONS:MAGNITUDE, shift and elastic in pixels, rotation in degrees, zoom, "
        "shear, color_jitter:BRIGHTNESS:CONTRAST:SATURATION:HUE, cutout in pixels, mixup, cutmix; "
        "resized_crop:MIN_AREA:MAX_ASPECT of the pictures as they are stored; empty: none",
        registered=_registered_augmentations,
        trajectory=True,
    )
    scale: str = option(
        "auto",
        "scaling of inputs. unit: uint8 divided by 255; standardize: images by channel and floats "
        "by feature, to mean 0 and deviation 1 in the training split; auto: unit for images; none",
        choices=SCALES,
        trajectory=True,
        describes="network",
    )
    context: int = option(
        0,
        "tokens of an example of a text, a window of it; 0: as the source says, else 64",
        minimum=0,
        trajectory=True,
        describes="inputs",
    )
    tokens: str = option(
        "auto",
        "what a token of a text is. characters: those of the training text; bytes: of UTF-8; auto: "
        "as the source says, else characters",
        choices=("auto", "characters", "bytes"),
        trajectory=True,
        describes="inputs",
    )
    feed: str = option(
        "auto",
        "resident: decoded once and kept in memory on each device; stream: decoded during "
        "training; auto: resident if it fits. Both give the same examples in the same order",
        choices=("auto", "resident", "stream"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.image_size) not in (0, 2):
            sizes = ",".join(map(str, self.image_size))
            raise ValueError(f"--image_size={sizes}: give HEIGHT,WIDTH, such as 64,64")
        _named_sets(self.validation_split)

    @property
    def validation_sets(self) -> str | dict[str, str]:
        """`--validation_split`: texts by the name of the set, or one text without names."""
        return _named_sets(self.validation_split) or self.validation_split


def _named_sets(text: str) -> dict[str, str]:
    """Returns the splits in a value of `--validation_split` by name; {} if it names no set.

    Raises:
      ValueError: if a name is invalid or given twice, or a set has no name or no split.
    """
    found: dict[str, str] = {}
    for part in text.split(",") if "=" in text else ():
        name, _, split = (each.strip() for each in part.partition("="))
        flag = f"--validation_split={text}"
        if not name or not split:
            raise ValueError(f"{flag}: give each set as NAME=SPLIT, such as a=0.1,b=test[:50%]")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z_0-9]*", name) or name in ("train", "test"):
            raise ValueError(
                f"{flag}: {name!r} is not a valid name: name a validation set by letters, digits "
                "and _, other than train and test"
            )
        if name in found:
            raise ValueError(f"{flag}: names {name} twice")
        found[name] = split
    return found


@dataclasses.dataclass(frozen=True)
class TrainingOptions(OptionGroup):
    """Batch size and length of training.

    Option group of the batches and the number of steps; the first line is the heading in `--help`.
    """

    global_batch_size: int = option(
        128, "examples per step, over all replicas", minimum=1, below=1 << 31, trajectory=True
    )
    evaluation_batch_size: int = option(
        512,
        "examples per evaluation step, over all replicas; does not change the result",
        minimum=1,
        below=1 << 31,
    )
    accumulate: int = option(
        1,
        "micro-batches per global batch, computed one after the other (gradient "
        "accumulation): less memory, one update",
        minimum=1,
        trajectory=True,
    )
    epochs: int = option(5, "passes over the training split", minimum=1, affects="length")
    train_steps: int = option(0, "training steps; 0: as --epochs says", minimum=0, affects="length")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.accumulate > self.global_batch_size:
            raise ValueError(
                f"--accumulate={self.accumulate}: cuts --global_batch_size="
                f"{self.global_batch_size} into less than one example each"
            )

    def steps(self, steps_per_epoch: int) -> int:
        """Returns the run's number of steps: `train_steps` unless 0, else that of all `epochs`."""
        return self.train_steps or self.epochs * steps_per_epoch

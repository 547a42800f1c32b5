"""The one list of options.

Each option is declared once, as a field of a frozen dataclass. The command-line flags, `--help`,
`DIR/config.flags` and the table in the docs are derived from these fields by `engine.flags`.
This module imports no TensorFlow, so that bad input fails at once.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from engine.options import Section, did_you_mean, option

MODES = ("train", "evaluate", "predict", "export", "report", "verify", "benchmark", "tune")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
MOST_LEFT_OUT = 128  # steps that a state has room for
REMEMBERED = 64  # losses that a spike is told by
RANKED = 16  # norms of gradients, the largest of a run, that a spike is told by
OPTIMIZERS = ("sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw", "lamb", "lion", "muon")
FITS = ("pad", "crop", "stretch")
BESIDE = ("saving", "logging", "evaluation")  # the steps, in a benchmark
SCHEDULES = ("constant", "cosine", "step", "exponential", "one_cycle")


@dataclasses.dataclass(frozen=True)
class Run(Section):
    """What to do, and where it is kept."""

    mode: str = option("train", "what to do: " + ", ".join(MODES))
    run_dir: str = option("", "where the run is kept; empty: runs/DATASET-MODEL")
    resume: str = option(
        "auto",
        "auto: go on from the newest checkpoint if there is one; never: refuse a run_dir in use; "
        "must: refuse one without a checkpoint",
        choices=("auto", "never", "must"),
    )
    weights: str = option(
        "auto",
        "which weights to evaluate, predict by, export or report on: newest, best, or auto: as "
        "--restore_best of the run says",
        choices=("auto", "newest", "best"),
    )
    seed: int = option(
        0, "decides initial weights, shuffling and dropout", minimum=0, trajectory=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in MODES:
            hint = did_you_mean(self.mode, MODES)
            raise ValueError(f"--mode={self.mode}: choose one of {', '.join(MODES)}{hint}")


@dataclasses.dataclass(frozen=True)
class Data(Section):
    """What to train on."""

    dataset: str = option(
        "digits",
        "a TFDS image-classification data set by name, or the embedded digits",
        trajectory=True,
    )
    data_dir: str = option("", "where TFDS keeps its data sets; empty: ~/tensorflow_datasets")
    cache_dir: str = option("", "where decoded data is kept; empty: the user's cache directory")
    train_split: str = option("train", "TFDS split to train on", trajectory=True)
    validation_split: str = option(
        "0.1",
        "a fraction, cut from the end of the training split, or a TFDS split; 0: none",
        trajectory=True,
    )
    test_split: str = option(
        "auto",
        "TFDS split to test on at the end; auto: 'test' if there is one; empty: none",
        affects="end",
    )
    image_size: tuple[int, ...] = option(
        (), "HEIGHT,WIDTH to resize images to; empty: as they are", minimum=1, trajectory=True
    )
    fit: str = option(
        "pad",
        "resizing to other proportions. pad: the whole image, and around it the colour of its "
        "border; crop: its centre; stretch: the proportions change",
        choices=FITS,
        trajectory=True,
        legacy="stretch",
        legacy_with="image_size",
    )
    antialias: bool = option(
        True,
        "average all pixels where an image is made smaller, not the nearest four alone",
        trajectory=True,
        legacy=False,
        legacy_with="image_size",
    )
    augment: str = option(
        "",
        "random changes of training images, NAME[:STRENGTH],...: flip, shift and elastic in "
        "pixels, rotation in degrees, zoom, shear, cutout in pixels, mixup; empty: none",
        trajectory=True,
    )
    feed: str = option(
        "auto",
        "resident: decoded once and kept where the loop runs; stream: decoded as it goes; "
        "auto: resident when it fits. Both see the same examples in the same order",
        choices=("auto", "resident", "stream"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.image_size) not in (0, 2):
            sizes = ",".join(map(str, self.image_size))
            raise ValueError(f"--image_size={sizes}: give HEIGHT,WIDTH, such as 64,64")


@dataclasses.dataclass(frozen=True)
class Network(Section):
    """What to train."""

    model: str = option(
        "cnn", "network: logistic, mlp, cnn, speedrun, seed_000 to seed_004", trajectory=True
    )
    hidden: tuple[int, ...] = option(
        (512, 512), "units of each hidden layer of the mlp", minimum=1, trajectory=True
    )


@dataclasses.dataclass(frozen=True)
class Optimization(Section):
    """How the weights move."""

    optimizer: str = option("adam", "update rule", choices=OPTIMIZERS, trajectory=True)
    learning_rate: float = option(
        0.001, "the schedule's highest learning rate", above=0, trajectory=True
    )
    momentum: float = option(
        0.9,
        "of momentum, nesterov and muon, whose authors take 0.95",
        minimum=0,
        below=1,
        trajectory=True,
    )
    rho: float = option(0.9, "decay of rmsprop's mean square", minimum=0, below=1, trajectory=True)
    beta_1: float = option(
        0.9,
        "decay of the mean gradient of adam, adamw, lamb and, on vectors, muon; its share in "
        "lion's update",
        minimum=0,
        below=1,
        trajectory=True,
    )
    beta_2: float = option(
        0.0,
        "decay of the mean square of adam, adamw, lamb and, on vectors, muon; of lion's mean "
        "gradient; 0: 0.999, lion 0.99",
        minimum=0,
        below=1,
        trajectory=True,
    )
    epsilon: float = option(
        1e-7,
        "keeps a denominator from 0: rmsprop adds it to the mean square under the root; adam and "
        "adamw (and muon, on vectors) to the root of the mean square before bias correction, the "
        "paper's epsilon hat; lamb to the root after bias correction; muon to the norm of a "
        "matrix's gradient",
        above=0,
        trajectory=True,
    )
    weight_decay: float = option(
        -1.0,
        "decoupled weight decay, in lamb part of the update, not on biases and norms; -1: 0.01 for "
        "adamw, lamb, lion and muon, else 0",
        minimum=-1,
        trajectory=True,
    )
    clip_norm: float = option(
        0.0,
        "greatest norm of the whole gradient, which is scaled down to it; 0: any",
        minimum=0,
        trajectory=True,
    )
    clip_value: float = option(
        0.0, "greatest absolute value in the gradient; 0: any", minimum=0, trajectory=True
    )
    label_smoothing: float = option(
        0.0,
        "probability that training takes from the label and spreads over all classes",
        minimum=0,
        below=1,
        trajectory=True,
    )
    ema: float = option(
        0.0,
        "decay of the exponential moving average of the weights, such as 0.999, which starts from "
        "the initial weights; update t, from 0, takes min(ema, (1 + t) / (10 + t)), so that those "
        "are soon forgotten; 0: none is kept",
        minimum=0,
        below=1,
        trajectory=True,
    )
    schedule: str = option(
        "constant", "learning rate over the steps", choices=SCHEDULES, trajectory=True
    )
    warmup_steps: int = option(
        0,
        "steps of linear warmup before the schedule; none before one_cycle, which rises by itself",
        minimum=0,
        trajectory=True,
    )
    decay_rate: float = option(
        0.1,
        "factor of the step and exponential schedules for every decay_steps",
        above=0,
        trajectory=True,
    )
    decay_steps: int = option(
        0, "steps to one decay; 0: a third of the run", minimum=0, trajectory=True
    )
    final_fraction: float = option(
        0.0,
        "where cosine ends, as a fraction of learning_rate, 1 at most",
        minimum=0,
        trajectory=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if -1 < self.weight_decay < 0:
            raise ValueError(f"--weight_decay={self.weight_decay}: give 0 or more, or -1 for auto")

    @property
    def depends_on_length(self) -> bool:
        """Whether another number of steps changes the rate of steps that both runs have."""
        by_thirds = self.schedule in ("step", "exponential") and not self.decay_steps
        return self.schedule in ("cosine", "one_cycle") or by_thirds


@dataclasses.dataclass(frozen=True)
class Precision(Section):
    """In what numbers it is computed; weights are float32 always."""

    precision: str = option(
        "float32",
        "float32; mixed_bfloat16 or mixed_float16: layers compute in it, weights, loss, norms and "
        "sums in float32",
        choices=PRECISIONS,
        trajectory=True,
    )
    loss_scale: float = option(
        0.0,
        "factor on the loss that keeps small gradients from vanishing, at the start, a power of "
        "2; 0: 32768 for mixed_float16, 1 for the others, which need none; 1 stays 1",
        minimum=0,
        power_of_2=True,
        trajectory=True,
    )
    loss_scale_growth_steps: int = option(
        2000,
        "steps without an overflow after which the loss scale grows by its factor",
        minimum=1,
        trajectory=True,
    )
    loss_scale_factor: float = option(
        2.0,
        "by which the loss scale grows, and shrinks at an overflow, a power of 2",
        above=1,
        power_of_2=True,
        trajectory=True,
    )
    loss_scale_floor: float = option(
        1.0,
        "the loss scale shrinks no further, a power of 2; at most the scale at the start, and that "
        "one where it is below 1",
        above=0,
        power_of_2=True,
        trajectory=True,
    )


@dataclasses.dataclass(frozen=True)
class Training(Section):
    """How long, in what portions, on which devices."""

    global_batch_size: int = option(
        128,
        "examples that one update sees, over all replicas",
        minimum=1,
        below=1 << 31,
        trajectory=True,
    )
    evaluation_batch_size: int = option(
        512,
        "examples a step of evaluation, over all replicas; the result is the same",
        minimum=1,
        below=1 << 31,
    )
    accumulate: int = option(
        1,
        "micro-batches that a global batch is cut into, computed in turn: less memory, one update",
        minimum=1,
        trajectory=True,
    )
    shards: int = option(
        0,
        "virtual shards that a global batch is cut into, whatever the number of devices, so that "
        "any number of them gives the same bits; a power of 2; 0: off",
        minimum=0,
        below=1025,
        power_of_2=True,
        trajectory=True,
    )
    epochs: int = option(5, "passes over the training split", minimum=1, affects="length")
    train_steps: int = option(
        0, "optimizer steps; 0: as the epochs say", minimum=0, affects="length"
    )
    steps_per_loop: str = option(
        "auto", "steps inside one call of the graph; auto: as many as take half a second"
    )
    jit: str = option(
        "auto",
        "what XLA compiles, on one device: off: nothing; step: each step; loop: the whole loop, "
        "faster for networks without convolutions on a CPU; auto: the loop of Tapeline's own such "
        "networks there, else nothing",
        choices=("auto", "off", "step", "loop"),
        trajectory=True,
    )
    intra_op_threads: int = option(
        0,
        "threads of one TensorFlow operation; another number may round sums otherwise; 0: one a "
        "core, and a single one for a network so small that it is faster",
        minimum=0,
        below=4097,
    )
    inter_op_threads: int = option(
        0, "TensorFlow operations side by side; 0: one a core", minimum=0, below=4097
    )
    strategy: str = option(
        "auto",
        "auto: the one device there is, or all GPUs mirrored; cpu; gpu: one GPU; mirrored: all "
        "GPUs, or the virtual devices; multi_worker: the GPUs, or the CPU, of several machines",
        choices=("auto", "cpu", "gpu", "mirrored", "multi_worker"),
    )
    cluster: str = option(
        "tf_config",
        "where multi_worker finds out which machines there are: tf_config: the variable TF_CONFIG; "
        "slurm: the variables of a Slurm job step",
        choices=("tf_config", "slurm"),
    )
    cluster_timeout: int = option(
        300, "seconds that multi_worker waits for the other machines at the start", minimum=1
    )
    virtual_devices: int = option(
        0, "split the CPU into this many devices, to try replicas anywhere", minimum=0, below=65
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.virtual_devices and self.strategy in ("cpu", "gpu", "multi_worker"):
            raise ValueError(
                f"--strategy={self.strategy} is one device a machine and --virtual_devices="
                f"{self.virtual_devices} asks for several: leave one of them out"
            )
        if not re.fullmatch(r"auto|[0-9]{1,9}", self.steps_per_loop):
            raise ValueError(
                f"--steps_per_loop={self.steps_per_loop}: give auto or a number of steps"
            )
        if self.accumulate > self.global_batch_size:
            raise ValueError(
                f"--accumulate={self.accumulate}: cuts --global_batch_size="
                f"{self.global_batch_size} into less than one example each"
            )

    def steps(self, steps_per_epoch: int) -> int:
        """Returns the steps of a whole run.

        Args:
          steps_per_epoch: 1 or more.
        """
        return self.train_steps or self.epochs * steps_per_epoch

    @property
    def fixed_steps_per_loop(self) -> int:
        """Steps inside one call; 0: as many as take a while."""
        return 0 if self.steps_per_loop == "auto" else int(self.steps_per_loop)


@dataclasses.dataclass(frozen=True)
class Stopping(Section):
    """When to stop early, and which weights to keep."""

    monitor: str = option(
        "auto",
        "what decides the best epoch: validation_loss, validation_accuracy, train_loss, "
        "train_accuracy; auto: validation_accuracy, or train_loss without a validation split. The "
        "best is the best by however little",
        choices=(
            "auto",
            "validation_loss",
            "validation_accuracy",
            "train_loss",
            "train_accuracy",
        ),
        trajectory=True,
    )
    min_delta: float = option(
        0.0,
        "an improvement must be larger than this to count for --patience; which epoch is the best "
        "does not depend on it",
        minimum=0,
        trajectory=True,
    )
    patience: int = option(
        -1, "epochs without improvement before stopping; -1: never", minimum=-1, trajectory=True
    )
    evaluate_ema: bool = option(
        True, "with --ema: evaluate, and keep the best by, the averaged weights", trajectory=True
    )
    restore_best: bool = option(
        False,
        "test the best epoch's weights instead of the last's; the best by --monitor, whatever "
        "--min_delta is, where restore_best_weights of Keras takes the last improvement by more "
        "than it",
        affects="end",
    )


@dataclasses.dataclass(frozen=True)
class Guarding(Section):
    """What happens to a step that goes wrong."""

    bad_steps: int = option(
        -1,
        "steps whose gradient is not finite that a run lets pass; at one more it goes back to its "
        "last checkpoint and leaves that step out; -1: 0, or any number with a dynamic loss scale",
        minimum=-1,
        trajectory=True,
    )
    bad_steps_in_a_row: int = option(
        -1,
        "the same of those in a row; -1: 0, or 20 with a dynamic loss scale",
        minimum=-1,
        trajectory=True,
    )
    spike: float = option(
        0.0,
        "a step whose loss is more than so many robust standard deviations above the median of "
        "the 64 before it has gone wrong too, where a deviation is at least a tenth of what the "
        "loss has fallen by since the start; so has one whose gradient is more than so many times "
        "as long as those before; 10 is advised; 0: whatever its loss and gradient",
        minimum=0,
        trajectory=True,
    )
    leave_out: str = option(
        "",
        "steps to leave out in any case, by their numbers from 0: 120,350; each below the run's "
        "number of steps",
        trajectory=True,
    )
    most_left_out: int = option(
        10,
        "steps that go wrong and are left out; at one more the run stops with a report",
        minimum=0,
        below=MOST_LEFT_OUT + 1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"(\d+(,\d+)*)?", self.leave_out):
            raise ValueError(
                f"--leave_out={self.leave_out}: give numbers of steps, such as 120,350"
            )


@dataclasses.dataclass(frozen=True)
class Keeping(Section):
    """What is written, and how often."""

    checkpoint_every: int = option(
        0,
        "steps between checkpoints, beside the one at each epoch's end; one is left out where the "
        "disk is still busy with the one before; 0: no others",
        minimum=0,
    )
    checkpoint_seconds: int = option(
        300, "seconds between checkpoints, beside those; 0: no others", minimum=0
    )
    keep: int = option(3, "newest checkpoints kept", minimum=2)
    log_every: int = option(
        0,
        "steps between the points of the training curves; 0: one an epoch",
        minimum=0,
        affects="record",
    )
    report: bool = option(
        True,
        "at the end of training: report.html, plots/ and, in TensorBoard, pictures, the network's "
        "graph and a row of HParams",
        affects="end",
    )
    histograms: bool = option(
        False,
        "histograms of the weights in TensorBoard, at every epoch's end",
        affects="record",
    )
    profile: str = option(
        "",
        "START:END: steps that TensorFlow's profiler records for TensorBoard, END left out, START "
        "below the run's number of steps; empty: none",
        affects="record",
    )
    progress: str = option(
        "auto",
        "progress bar: auto: when the output is a terminal; on; off",
        choices=("auto", "on", "off"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.profile and not (
            re.fullmatch(r"[0-9]{1,15}:[0-9]{1,15}", self.profile)
            and self.profiled[0] < self.profiled[1]
        ):
            raise ValueError(f"--profile={self.profile}: give START:END, such as 100:120")

    @property
    def profiled(self) -> tuple[int, int]:
        """(first, past the last) of the steps that the profiler records; (0, 0): none."""
        if not self.profile:
            return 0, 0
        first, end = map(int, self.profile.split(":"))
        return first, end


@dataclasses.dataclass(frozen=True)
class Using(Section):
    """What is done with a run that was trained."""

    split: str = option(
        "", "TFDS split to evaluate or predict, such as test[:100]; empty: those of the run"
    )
    inputs: str = option(
        "", "pictures to predict: files, folders, patterns and .npy files, separated by commas"
    )
    invert: str = option(
        "auto",
        "whether dark and light change places in pictures to predict: no; yes; auto: where the "
        "border is light and the data set's are dark, or the other way round",
        choices=("auto", "no", "yes"),
    )
    top_k: int = option(3, "likeliest classes told of each prediction", minimum=1)
    predictions: str = option("", "where predictions are written; empty: RUN_DIR/predictions")
    averaged: str = option(
        "auto",
        "whether the averaged weights of --ema are exported; auto: as --evaluate_ema says",
        choices=("auto", "no", "yes"),
    )


@dataclasses.dataclass(frozen=True)
class Benchmarking(Section):
    """What --mode=benchmark measures."""

    benchmark_steps: int = option(
        0,
        "training steps that are timed, in all; 0: as many as take about eight seconds",
        minimum=0,
    )
    benchmark_data: str = option(
        "real",
        "real: the data set, through the feed; synthetic: one batch of random numbers of its "
        "shape, which lies where the loop runs",
        choices=("real", "synthetic"),
    )
    benchmark_with: str = option(
        "",
        "what is measured besides: any of saving, logging, evaluation, separated by commas",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.beside:
            if name not in BESIDE:
                hint = did_you_mean(name, BESIDE)
                raise ValueError(
                    f"--benchmark_with={self.benchmark_with}: {name!r} is none of "
                    f"{', '.join(BESIDE)}{hint}"
                )

    @property
    def beside(self) -> tuple[str, ...]:
        """What is measured besides the steps."""
        return tuple(part.strip() for part in self.benchmark_with.split(",") if part.strip())


@dataclasses.dataclass(frozen=True)
class Tuning(Section):
    """Where --mode=tune puts what it finds."""

    tuned_flags: str = option("tuned.flags", "the flagfile that --mode=tune writes")


@dataclasses.dataclass(frozen=True)
class Config:
    """Every option of a run, resolved."""

    run: Run = Run()
    data: Data = Data()
    network: Network = Network()
    optimization: Optimization = Optimization()
    precision: Precision = Precision()
    training: Training = Training()
    stopping: Stopping = Stopping()
    guarding: Guarding = Guarding()
    keeping: Keeping = Keeping()
    using: Using = Using()
    benchmarking: Benchmarking = Benchmarking()
    tuning: Tuning = Tuning()


def sections() -> Iterator[tuple[str, Any]]:
    """Yields (attribute of Config, its dataclass), in the order of the docs."""
    for field in dataclasses.fields(Config):
        yield field.name, type(field.default)


def replaced(config: Config, **values: Any) -> Config:
    """The same options but for those given by name.

    Raises:
      ValueError: for a value out of range.
    """
    parts = {}
    for name, section in sections():
        named = [field.name for field in dataclasses.fields(section) if field.name in values]
        chosen = {field: values.pop(field) for field in named}
        parts[name] = dataclasses.replace(getattr(config, name), **chosen)
    assert not values, f"no such options: {', '.join(values)}"
    return Config(**parts)


def changed(before: Config, now: Config, *affects: str) -> list[tuple[str, Any, Any]]:
    """Lists (option, value before, value now) of the options whose values differ.

    Args:
      before: all options.
      now: all options.
      *affects: what an option may affect to be listed, as `option` has it, or "trajectory".
    """
    return [
        (field.name, old, new)
        for name, section in sections()
        for field in dataclasses.fields(section)
        if field.metadata["affects"] in affects
        and (old := getattr(getattr(before, name), field.name))
        != (new := getattr(getattr(now, name), field.name))
    ]

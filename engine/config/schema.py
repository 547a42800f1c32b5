"""All options of Tapeline.

Each option is declared once, as a field of a frozen dataclass. `engine.config.flags` derives the
command-line flags, `--help`, `DIR/config.flags` and the table in the docs from these fields; the
first line of a dataclass's docstring is the section's heading there. This module imports no
TensorFlow, so that invalid input fails at once.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from engine.config.option import OptionGroup, did_you_mean, option

MODES = ("train", "evaluate", "predict", "export", "report", "verify", "benchmark", "tune")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
MAX_SKIPPED_STEPS = 128  # skipped steps that a state can record
SPIKE_WINDOW = 64  # losses in the spike-detection window
LARGEST_NORMS = 16  # largest gradient norms of a run, kept to detect spikes
OPTIMIZERS = ("sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw", "lamb", "lion", "muon")
FITS = ("pad", "crop", "stretch")
BENCHMARK_EXTRAS = ("saving", "logging", "evaluation")  # what a benchmark can measure besides steps
SCHEDULES = ("constant", "cosine", "step", "exponential", "one_cycle")


@dataclasses.dataclass(frozen=True)
class Run(OptionGroup):
    """Mode, run directory and seed."""

    mode: str = option("train", "what to do: " + ", ".join(MODES))
    run_dir: str = option("", "run directory; empty: runs/DATASET-MODEL")
    resume: str = option(
        "auto",
        "auto: resume from the newest checkpoint if there is one; never: refuse a run "
        "directory in use; must: refuse one without a checkpoint",
        choices=("auto", "never", "must"),
    )
    weights: str = option(
        "auto",
        "weights to evaluate, predict with, export or report on: newest; best; auto: as "
        "--restore_best of the run",
        choices=("auto", "newest", "best"),
    )
    seed: int = option(
        0,
        "seed of the initial weights, the order of examples, dropout and augmentation",
        minimum=0,
        trajectory=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in MODES:
            hint = did_you_mean(self.mode, MODES)
            raise ValueError(f"--mode={self.mode}: choose one of {', '.join(MODES)}{hint}")


@dataclasses.dataclass(frozen=True)
class Data(OptionGroup):
    """Data set, splits, preprocessing and augmentation."""

    dataset: str = option(
        "digits",
        "a TFDS image-classification data set by name, or the embedded digits",
        trajectory=True,
    )
    data_dir: str = option("", "directory of TFDS data sets; empty: ~/tensorflow_datasets")
    cache_dir: str = option(
        "", "directory of cached decoded data; empty: the user's cache directory"
    )
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
        (), "HEIGHT,WIDTH to resize images to; empty: no resizing", minimum=1, trajectory=True
    )
    fit: str = option(
        "pad",
        "how to resize to another aspect ratio. pad: the whole image, padded with the colour "
        "of its border; crop: its centre; stretch: the aspect ratio changes",
        choices=FITS,
        trajectory=True,
        legacy="stretch",
        legacy_with="image_size",
    )
    antialias: bool = option(
        True,
        "antialias where an image gets smaller: average all pixels instead of the nearest four",
        trajectory=True,
        legacy=False,
        legacy_with="image_size",
    )
    augment: str = option(
        "",
        "random augmentation of training images, NAME[:STRENGTH],...: flip, shift and elastic "
        "in pixels, rotation in degrees, zoom, shear, cutout in pixels, mixup; empty: none",
        trajectory=True,
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


@dataclasses.dataclass(frozen=True)
class Network(OptionGroup):
    """Network."""

    model: str = option(
        "cnn", "network: logistic, mlp, cnn, speedrun, seed_000 to seed_004", trajectory=True
    )
    hidden: tuple[int, ...] = option(
        (512, 512), "units of each hidden layer of the mlp", minimum=1, trajectory=True
    )


@dataclasses.dataclass(frozen=True)
class Optimization(OptionGroup):
    """Optimizer, regularization and learning rate schedule."""

    optimizer: str = option("adam", "optimizer", choices=OPTIMIZERS, trajectory=True)
    learning_rate: float = option(
        0.001, "highest learning rate of the schedule", above=0, trajectory=True
    )
    momentum: float = option(
        0.9,
        "momentum of momentum, nesterov and muon (0.95 in muon's paper)",
        minimum=0,
        below=1,
        trajectory=True,
    )
    rho: float = option(
        0.9, "decay of the mean square of rmsprop", minimum=0, below=1, trajectory=True
    )
    beta_1: float = option(
        0.9,
        "decay of the mean gradient of adam, adamw, lamb and, for vectors, muon; in lion the "
        "share of the mean in the update",
        minimum=0,
        below=1,
        trajectory=True,
    )
    beta_2: float = option(
        0.0,
        "decay of the mean square of adam, adamw, lamb and, for vectors, muon; in lion of the "
        "mean gradient; 0: 0.999, lion 0.99",
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
        "decoupled weight decay, in lamb part of the update; not for biases and norms; -1: "
        "0.01 for adamw, lamb, lion and muon, else 0",
        minimum=-1,
        trajectory=True,
    )
    clip_norm: float = option(
        0.0,
        "maximum global norm of the gradient, which is scaled down to it; 0: no clipping",
        minimum=0,
        trajectory=True,
    )
    clip_value: float = option(
        0.0,
        "maximum absolute value of a gradient element; 0: no clipping",
        minimum=0,
        trajectory=True,
    )
    label_smoothing: float = option(
        0.0,
        "label smoothing of the training loss: the probability that is spread over all classes",
        minimum=0,
        below=1,
        trajectory=True,
    )
    ema: float = option(
        0.0,
        "decay of the exponential moving average (EMA) of the weights, such as 0.999. It "
        "starts from the initial weights; update t, from 0, uses min(ema, (1 + t) / (10 + "
        "t)); 0: no EMA",
        minimum=0,
        below=1,
        trajectory=True,
    )
    schedule: str = option("constant", "learning-rate schedule", choices=SCHEDULES, trajectory=True)
    warmup_steps: int = option(
        0,
        "steps of linear warmup before the schedule; not with one_cycle, which has its own",
        minimum=0,
        trajectory=True,
    )
    decay_rate: float = option(
        0.1,
        "factor of the step and exponential schedules per decay_steps",
        above=0,
        trajectory=True,
    )
    decay_steps: int = option(
        0, "steps per decay; 0: a third of the run", minimum=0, trajectory=True
    )
    final_fraction: float = option(
        0.0,
        "last learning rate of cosine, as a fraction of learning_rate, at most 1",
        minimum=0,
        trajectory=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if -1 < self.weight_decay < 0:
            raise ValueError(f"--weight_decay={self.weight_decay}: give 0 or more, or -1 for auto")

    @property
    def depends_on_length(self) -> bool:
        """Whether the learning rate at a given step depends on the number of steps of the run."""
        by_thirds = self.schedule in ("step", "exponential") and not self.decay_steps
        return self.schedule in ("cosine", "one_cycle") or by_thirds


@dataclasses.dataclass(frozen=True)
class Precision(OptionGroup):
    """Precision and loss scale; weights are always float32."""

    precision: str = option(
        "float32",
        "float32; mixed_bfloat16 or mixed_float16: layers compute in 16 bits, weights, loss, "
        "norms and sums stay float32",
        choices=PRECISIONS,
        trajectory=True,
    )
    loss_scale: float = option(
        0.0,
        "initial loss scale, a power of 2; 0: 32768 for mixed_float16, else 1; 1 stays 1",
        minimum=0,
        power_of_2=True,
        trajectory=True,
    )
    loss_scale_growth_steps: int = option(
        2000,
        "finite steps in a row after which the loss scale grows",
        minimum=1,
        trajectory=True,
    )
    loss_scale_factor: float = option(
        2.0,
        "factor by which the loss scale grows, and shrinks at an overflow; a power of 2",
        above=1,
        power_of_2=True,
        trajectory=True,
    )
    loss_scale_floor: float = option(
        1.0,
        "minimum of the loss scale, a power of 2; at most the initial scale, and equal to it "
        "if that is below 1",
        above=0,
        power_of_2=True,
        trajectory=True,
    )


@dataclasses.dataclass(frozen=True)
class Training(OptionGroup):
    """Batch size, length of training, XLA, threads and devices."""

    global_batch_size: int = option(
        128,
        "examples per step, over all replicas",
        minimum=1,
        below=1 << 31,
        trajectory=True,
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
    shards: int = option(
        0,
        "virtual shards of a global batch, so that any number of devices gives the same bits; "
        "a power of 2; 0: off",
        minimum=0,
        below=1025,
        power_of_2=True,
        trajectory=True,
    )
    epochs: int = option(5, "passes over the training split", minimum=1, affects="length")
    train_steps: int = option(0, "training steps; 0: as --epochs says", minimum=0, affects="length")
    steps_per_loop: str = option(
        "auto", "steps per call of the graph; auto: as many as take half a second"
    )
    jit: str = option(
        "auto",
        "what XLA compiles, on one device. off: nothing; step: each step; loop: the whole "
        "loop, which is faster for networks without convolutions on a CPU; auto: the loop of "
        "such networks of Tapeline's own layers, else nothing",
        choices=("auto", "off", "step", "loop"),
        trajectory=True,
    )
    intra_op_threads: int = option(
        0,
        "threads of one TensorFlow operation; another number may round sums differently; 0: "
        "one per core, or a single one for a network so small that it is faster",
        minimum=0,
        below=4097,
    )
    inter_op_threads: int = option(
        0, "TensorFlow operations in parallel; 0: one per core", minimum=0, below=4097
    )
    strategy: str = option(
        "auto",
        "auto: the one device there is, or all GPUs; cpu; gpu: one GPU; mirrored: all GPUs, "
        "or the virtual devices; multi_worker: the GPUs, or the CPU, of several machines",
        choices=("auto", "cpu", "gpu", "mirrored", "multi_worker"),
    )
    cluster: str = option(
        "tf_config",
        "where multi_worker reads the cluster from. tf_config: the variable TF_CONFIG; slurm: "
        "the variables of a Slurm job step",
        choices=("tf_config", "slurm"),
    )
    cluster_timeout: int = option(
        300, "seconds that multi_worker waits for the other workers at the start", minimum=1
    )
    virtual_devices: int = option(
        0,
        "split the CPU into this many virtual devices, to try replicas on any machine; not "
        "with --strategy=gpu or multi_worker",
        minimum=0,
        below=65,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.virtual_devices and self.strategy in ("gpu", "multi_worker"):
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
        """Returns the number of steps of a whole run.

        Args:
          steps_per_epoch: number of steps of one epoch, 1 or more.
        """
        return self.train_steps or self.epochs * steps_per_epoch

    @property
    def fixed_steps_per_loop(self) -> int:
        """Steps in one call of the graph; 0: as many as take half a second."""
        return 0 if self.steps_per_loop == "auto" else int(self.steps_per_loop)


@dataclasses.dataclass(frozen=True)
class Stopping(OptionGroup):
    """Early stopping and the best weights."""

    monitor: str = option(
        "auto",
        "metric that chooses the best epoch: validation_loss, validation_accuracy, "
        "train_loss, train_accuracy; auto: validation_accuracy, or train_loss without a "
        "validation split. Any improvement counts",
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
        "smallest improvement that counts for --patience; does not affect which epoch is the best",
        minimum=0,
        trajectory=True,
    )
    patience: int = option(
        -1, "epochs without improvement before stopping; -1: never", minimum=-1, trajectory=True
    )
    evaluate_ema: bool = option(
        True,
        "with --ema: evaluate the EMA of the weights, and choose the best epoch by it",
        trajectory=True,
    )
    restore_best: bool = option(
        False,
        "test the weights of the best epoch by --monitor instead of the last ones. "
        "--min_delta does not matter, as it does for restore_best_weights of Keras",
        affects="end",
    )


@dataclasses.dataclass(frozen=True)
class Guarding(OptionGroup):
    """Bad steps: detection, rollback and skipping."""

    bad_steps: int = option(
        -1,
        "how many steps whose gradient is not finite are tolerated; at one more the run rolls "
        "back to its last checkpoint and skips that step; -1: 0, or any number with a dynamic "
        "loss scale",
        minimum=-1,
        trajectory=True,
    )
    bad_steps_in_a_row: int = option(
        -1,
        "as --bad_steps, for consecutive steps; -1: 0, or 20 with a dynamic loss scale",
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
        "steps to skip in any case, by their numbers from 0, such as 120,350; each below the "
        "number of steps of the run",
        trajectory=True,
    )
    most_left_out: int = option(
        10,
        "maximum number of bad steps that are skipped; at one more the run stops with a report",
        minimum=0,
        below=MAX_SKIPPED_STEPS + 1,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not re.fullmatch(r"(\d+(,\d+)*)?", self.leave_out):
            raise ValueError(
                f"--leave_out={self.leave_out}: give numbers of steps, such as 120,350"
            )


@dataclasses.dataclass(frozen=True)
class Keeping(OptionGroup):
    """Checkpoints, logging and reports."""

    checkpoint_every: int = option(
        0,
        "steps between checkpoints, in addition to the one at the end of each epoch; one is "
        "left out if the previous one is still being written; 0: no others",
        minimum=0,
    )
    checkpoint_seconds: int = option(
        300, "seconds between checkpoints, in addition to those; 0: no others", minimum=0
    )
    keep: int = option(3, "number of newest checkpoints that are kept", minimum=2)
    log_every: int = option(
        0,
        "steps between log points; 0: one per epoch",
        minimum=0,
        affects="record",
    )
    report: bool = option(
        True,
        "write report.html and plots/ at the end of training and, for TensorBoard, images, "
        "the graph and a row of HParams",
        affects="end",
    )
    histograms: bool = option(
        False,
        "write histograms of the weights for TensorBoard at the end of every epoch",
        affects="record",
    )
    profile: str = option(
        "",
        "START:END: steps that TensorFlow's profiler records for TensorBoard, without END; "
        "START below the number of steps of the run; empty: none",
        affects="record",
    )
    progress: str = option(
        "auto",
        "progress bar. auto: if the output is a terminal; on; off",
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
        """(first, end) of the steps that the profiler records, end excluded; (0, 0): none."""
        if not self.profile:
            return 0, 0
        first, end = map(int, self.profile.split(":"))
        return first, end


@dataclasses.dataclass(frozen=True)
class Using(OptionGroup):
    """Evaluation, prediction and export of a trained run."""

    split: str = option(
        "", "TFDS split to evaluate or predict, such as test[:100]; empty: the splits of the run"
    )
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


@dataclasses.dataclass(frozen=True)
class Benchmarking(OptionGroup):
    """Benchmarks with --mode=benchmark."""

    benchmark_steps: int = option(
        0,
        "training steps to time, in total; 0: as many as take about eight seconds",
        minimum=0,
    )
    benchmark_data: str = option(
        "real",
        "real: the data set, through the feed; synthetic: one batch of random numbers of its "
        "shape, without a feed",
        choices=("real", "synthetic"),
    )
    benchmark_with: str = option(
        "",
        "what else to measure: any of saving, logging, evaluation, separated by commas",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.beside:
            if name not in BENCHMARK_EXTRAS:
                hint = did_you_mean(name, BENCHMARK_EXTRAS)
                raise ValueError(
                    f"--benchmark_with={self.benchmark_with}: {name!r} is none of "
                    f"{', '.join(BENCHMARK_EXTRAS)}{hint}"
                )

    @property
    def beside(self) -> tuple[str, ...]:
        """What the benchmark measures besides the steps."""
        return tuple(part.strip() for part in self.benchmark_with.split(",") if part.strip())


@dataclasses.dataclass(frozen=True)
class Tuning(OptionGroup):
    """Tuning with --mode=tune."""

    tuned_flags: str = option("tuned.flags", "flagfile that --mode=tune writes")


@dataclasses.dataclass(frozen=True)
class Config:
    """The values of all options of a run."""

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
    """Returns a copy of the options in which the given values replace the old ones.

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
    """Returns (option, value before, value now) of each option whose value differs.

    Args:
      before: all options, with their earlier values.
      now: all options, with their current values.
      *affects: effects of the options to compare: values of `affects` of `option`, or
        "trajectory".
    """
    return [
        (field.name, old, new)
        for name, section in sections()
        for field in dataclasses.fields(section)
        if field.metadata["affects"] in affects
        and (old := getattr(getattr(before, name), field.name))
        != (new := getattr(getattr(now, name), field.name))
    ]

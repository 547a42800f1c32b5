"""Rebuilds trained runs and their networks from the options and the saved weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

import pipelines
from engine.assembly import data, factories, run_directory
from engine.assembly.averaging import renew_statistics
from engine.assembly.description import image_format
from engine.assembly.parts import Parts, assemble
from engine.checkpoint import catalog
from engine.checkpoint.averaging import load_average
from engine.checkpoint.catalog import LoadedCheckpoint
from engine.checkpoint.restore import assign, restore_weights
from engine.config.option import written
from engine.config.schema import Config, changed, option_fields, replaced
from engine.core.views import mean_over_views
from engine.distributed import strategies
from engine.distributed.collectives import HostCollectives
from engine.models.properties import named_variables
from engine.optim.precision import compute_dtype
from engine.tasks.task import Task


class SelectedCheckpoint(NamedTuple):
    """The checkpoint that `--weights` selects, loaded into memory: its file is no longer needed."""

    kind: str  # "newest", "best", "kept" or "average"
    snapshot: LoadedCheckpoint
    averaged: tuple[int, ...] = ()  # steps of the checkpoints whose weights are averaged

    @property
    def description(self) -> str:
        """Description of the weights for display, such as "the best weights, of step 1,200"."""
        if self.averaged:
            steps = ", ".join(f"{step:,}" for step in self.averaged)
            return f"the average of the {len(self.averaged)} best weights, of steps {steps}"
        return f"the {self.kind} weights, of step {self.snapshot.step:,}"


class RestoredRun(NamedTuple):
    """An assembled run with restored weights; a context manager that closes its feeds on exit.

    Only the model's weights and their EMA are restored: the rest of the state has initial values.
    """

    parts: Parts
    path: str  # of the checkpoint; a concurrent training process may have deleted the file
    description: str  # description of the weights, for display

    def __enter__(self) -> RestoredRun:
        return self

    def __exit__(self, *error: object) -> None:
        self.parts.close()


def choose(config: Config) -> SelectedCheckpoint:
    """Loads the checkpoint that `--weights` selects, even while the run is training.

    `--weights=auto` selects the newest checkpoint. With `--restore_best`, it selects the best one
    if there is one, as training does at its end. `--weights=step:N` selects that of step N, and
    `--weights=average:K` the average of the K best ones, whose statistics are still to be made
    again by `renew_statistics`.

    Raises:
      ValueError: if the run has no such checkpoint, or fewer than K best ones, or if this version
        of Tapeline cannot read the format.
      OSError: if the checkpoint is damaged.
    """
    run_dir, kind = config.run.run_dir, config.run.weights
    if kind == "best" or (kind == "auto" and config.stopping.restore_best):
        best = catalog.load_best(run_dir)
        if best is not None:
            return SelectedCheckpoint("best", best)
        if kind == "best" and run_directory.has_checkpoint(run_dir):
            raise ValueError(
                f"--weights=best: {run_dir} has no best checkpoint yet, because nothing has been "
                "evaluated; wait for an evaluation, or give --weights=newest"
            )
    if count := config.run.averaged:
        average = load_average(run_dir, count)
        return SelectedCheckpoint("average", average.checkpoint, tuple(average.steps))
    if kind.startswith("step:"):
        step = int(kind.removeprefix("step:"))
        if (found := catalog.load_step(run_dir, step)) is not None:
            return SelectedCheckpoint("kept", found)
        steps = ", ".join(map(str, sorted(catalog.saved_steps(run_dir)))) or "none"
        raise ValueError(
            f"--weights={kind}: {run_dir} has no checkpoint of that step, but of {steps}; "
            "--keep_every keeps more"
        )
    newest = catalog.load_newest(run_dir)
    if newest is None:
        raise ValueError(f"--weights={kind}: {run_dir} has no checkpoint yet; train first")
    return SelectedCheckpoint("newest", newest)


class TrainedModel(NamedTuple):
    """A run's network with trained weights, on one device, and the metadata of the weights."""

    config: Config
    model: tf.Module  # over the views of --evaluation_views
    task: Task
    source: pipelines.Source  # as saved with the weights: specs, classes, preprocessing
    image_format: dict[str, Any] | None  # saved `ImageFormat.to_json()`; None: not measured
    averaged: bool  # whether the weights are the EMA
    path: str  # of the checkpoint
    description: str  # description of the weights, for display
    device: str  # description of the device

    @property
    def dtype(self) -> tf.DType:
        """Dtype in which the layers compute: float32, bfloat16 or float16."""
        return compute_dtype(self.config.precision.precision)


def trained_model(
    config: Config,
    *,
    averaged: bool | None = None,
    reads_data: bool = False,
    interrupted: Callable[[], bool] = lambda: False,
) -> TrainedModel:
    """Builds a run's network, on one device, with the weights that `--weights` selects.

    Classes, specs and preprocessing are those that were saved with the weights, so the data set is
    not opened; only a checkpoint of an older version, which lacks this metadata, and averaged
    weights of a network with statistics need the data set. Sets TensorFlow's threads and devices.

    Args:
      config: options of the run.
      averaged: whether to use the EMA of the weights; None: as evaluation does.
      reads_data: whether the inputs are examples of a data set, which the options describe.
      interrupted: returns whether to stop the pass over the training data for `average:K`.

    Raises:
      ValueError: as `choose`; for options of another network, weights that do not fit the network,
        or devices or a data set that cannot be used.
      OSError: if the checkpoint is damaged, or if the data set is needed and cannot be read.
    """
    chosen = choose(config)
    before = run_directory.read_options(config.run.run_dir)
    assert before is not None, "a run has options"
    _refuse_other_network(config, before, reads_data=reads_data)
    devices = config.devices
    strategies.set_threads(devices.intra_op_threads, devices.inter_op_threads)
    if devices.strategy == "multi_worker":  # one machine is enough
        devices = dataclasses.replace(devices, strategy="auto")
    device = strategies.choose(devices, HostCollectives()).description
    contents = chosen.snapshot.archive
    saved = contents.facts.get("source")
    if saved:
        source, measured = pipelines.source_from_json(saved), contents.facts["image_format"]
    else:  # a run of an older version
        source = data.open_source(config)
        measured = image_format(source, data.cache_dir(config))
    task = factories.build_task(config, source)
    views = factories.build_views(config, source, task)
    model = factories.build_network(config, source, task)
    if averaged is None:
        averaged = bool(config.optimizer.ema) and config.evaluation.evaluate_ema
    prefix = "ema/" if averaged else "model/"
    weights = {prefix + name: each for name, each in named_variables(model).items()}
    assign(weights, chosen.snapshot.path, contents)
    if chosen.averaged:
        single = tf.distribute.get_strategy()
        renew_statistics(config, model, task, contents, single, interrupted=interrupted)
    return TrainedModel(
        config,
        mean_over_views(model, views),
        task,
        source,
        measured,
        averaged,
        chosen.snapshot.path,
        chosen.description,
        device,
    )


def restored(
    config: Config,
    chosen: SelectedCheckpoint | None = None,
    interrupted: Callable[[], bool] = lambda: False,
) -> RestoredRun:
    """Assembles a run on one machine, and restores the weights of a checkpoint.

    Args:
      config: options of the run; "auto" replaces the strategy "multi_worker".
      chosen: checkpoint; None: the one that `choose` loads.
      interrupted: returns whether to stop the pass over the training data for `average:K`.

    Raises:
      ValueError: as `choose` and `assemble`, and for weights of another network or data set.
      OSError: as `choose` and `assemble`.
      RuntimeError: as `assemble`.
    """
    chosen = chosen or choose(config)
    before = run_directory.read_options(config.run.run_dir)
    assert before is not None, "a run has options"
    _refuse_other_network(config, before, reads_data=True)
    if config.devices.strategy == "multi_worker":  # one machine is enough
        config = replaced(config, strategy="auto")
    parts = assemble(config)
    _refuse_other_data(parts, before, chosen.snapshot)
    _refuse_other_classes(parts.source, chosen.snapshot.archive.facts.get("source"))
    contents = chosen.snapshot.archive
    restore_weights(parts.state, chosen.snapshot.path, contents)
    if chosen.averaged:
        model = parts.state.scored_model(config.evaluation.evaluate_ema)
        renew_statistics(
            config,
            model,
            parts.task,
            contents,
            parts.strategy,
            source=parts.source,
            interrupted=interrupted,
        )
    return RestoredRun(parts, chosen.snapshot.path, chosen.description)


def _refuse_other_network(config: Config, before: Config, *, reads_data: bool) -> None:
    """Raises ValueError if an option that describes the trained network has another value.

    Without `reads_data`, the examples are no data set's: then the options that describe how its
    examples become inputs count, too, because what was saved with the weights is used instead.
    """
    what = {field.name: field.metadata["describes"] for field in option_fields()}
    fixed = ("network",) if reads_data else ("network", "inputs")
    differences = [
        f"--{name}={written(now)} (is {written(old)})"
        for name, old, now in changed(before, config, "trajectory")
        if what.get(name, "") in fixed or name.startswith("model.")
    ]
    if differences:
        raise ValueError(
            f"{config.run.run_dir} holds another network: {', '.join(differences)}; leave that "
            "out, or give the --run_dir of such a run"
        )


def _refuse_other_data(parts: Parts, before: Config, snapshot: LoadedCheckpoint) -> None:
    """Raises ValueError if a changed data set or image size does not fit the weights' shapes."""
    data = parts.config.data
    if (data.dataset, data.image_size) == (before.data.dataset, before.data.image_size):
        return
    arrays = snapshot.archive.arrays
    shapes = {array.shape for name, array in arrays.items() if name.startswith("model/")}
    if not {tuple(variable.shape) for variable in parts.model.variables} <= shapes:
        raise ValueError(
            f"--dataset={data.dataset} (was {before.data.dataset}): its images or classes are not "
            f"those that the weights in {parts.config.run.run_dir} were trained on"
        )


def _refuse_other_classes(source: pipelines.Source, saved: dict[str, Any] | None) -> None:
    """Raises ValueError if a data set has the classes of the run in another order.

    `saved` is the description of the run's data set, saved in a checkpoint. None passes, and so
    does a data set with other classes.
    """
    if saved is None or list(source.class_names) == saved["class_names"]:
        return
    if set(source.class_names) == set(saved["class_names"]):
        pairs = zip(source.class_names, saved["class_names"], strict=True)
        index, (now, before) = next((i, pair) for i, pair in enumerate(pairs) if len(set(pair)) > 1)
        raise ValueError(
            f"the classes of {source.name} are not in the order of the run: label {index} was "
            f"{before!r} and is {now!r}; prepare the data set as it was"
        )

"""`--mode=evaluate`: a run's weights on what was held out."""

from __future__ import annotations

import dataclasses
import json
import os

import tensorflow as tf

from engine import metrics
from engine.assembly import Parts, assemble
from engine.config import Config
from engine.keeping import run_directory
from engine.keeping.checkpoint import list_checkpoints, restore_weights
from engine.keeping.guard import Signals
from engine.metrics import jsonable


def evaluate(config: Config) -> int:
    """Scores the validation and the test split; prints a line each, and JSON as the last line.

    Args:
      config: the run's options.

    Returns:
      The exit status.

    Raises:
      ValueError: when the run has no such weights, or nothing was held out.
    """
    kind, run_dir = config.run.weights, config.run.run_dir
    if kind == "auto":
        kind = "best" if config.stopping.restore_best else "newest"
    folder = "best" if kind == "best" else "checkpoints"
    saved = list_checkpoints(os.path.join(run_dir, folder))
    if not saved:
        raise ValueError(f"--weights={kind}: {run_dir} has no such checkpoint yet; train first")
    run_directory.refuse_another_network(config)
    with Signals() as signals:
        if config.training.strategy == "multi_worker":  # one machine is enough to evaluate
            alone = dataclasses.replace(config.training, strategy="auto")
            config = dataclasses.replace(config, training=alone)
        parts = assemble(config)
        _refuse_other_data(parts)
        if not parts.evaluations:
            raise ValueError("nothing was held out: give --validation_split or --test_split")
        path = saved[-1]
        restore_weights(parts.state, path)
        print(f"evaluating the {kind} weights, {path}, on {parts.device}", flush=True)
        results = {}
        for split, evaluation in parts.evaluations.items():
            means = evaluation.run(lambda: bool(signals.received))
            if means is None:
                return signals.exit_status
            results[split] = means
            print(f"{split} {metrics.brief(means)} of {means['examples']:,} examples", flush=True)
        parts.close()
        print(json.dumps(jsonable({"weights": path, **results})))
        return signals.exit_status


def _refuse_other_data(parts: Parts) -> None:
    """A data set of other images or classes than the weights were trained on is bad input."""
    config = parts.config
    before = run_directory.options_of(config.run.run_dir)
    assert before is not None, "a run has options"
    if (config.data.dataset, config.data.image_size) == (
        before.data.dataset,
        before.data.image_size,
    ):
        return
    saved = list_checkpoints(os.path.join(config.run.run_dir, "checkpoints"))[-1]
    shapes = {tuple(shape) for name, shape in tf.train.list_variables(saved) if "/model/" in name}
    if not {tuple(variable.shape) for variable in parts.model.variables} <= shapes:
        raise ValueError(
            f"--dataset={config.data.dataset} (was {before.data.dataset}): its images or classes "
            f"are not those that the weights in {config.run.run_dir} were trained on"
        )

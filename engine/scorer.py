"""`--mode=evaluate`: a run's weights on what was held out."""

from __future__ import annotations

import dataclasses
import json

from engine import metrics
from engine.assembly import Parts, assemble
from engine.config import Config
from engine.keeping import catalogue, run_directory
from engine.keeping.restorer import restore_weights
from engine.keeping.signals import Signals
from engine.metrics import jsonable


def run(config: Config) -> int:
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
    path = catalogue.best_of(run_dir) if kind == "best" else catalogue.newest_of(run_dir)
    if path is None:
        raise ValueError(f"--weights={kind}: {run_dir} has no such checkpoint yet; train first")
    run_directory.refuse_another_network(config)
    with Signals() as signals:
        if config.training.strategy == "multi_worker":  # one machine is enough to evaluate
            alone = dataclasses.replace(config.training, strategy="auto")
            config = dataclasses.replace(config, training=alone)
        parts = assemble(config)
        _refuse_other_data(parts, path)
        if not parts.evaluations:
            raise ValueError("nothing was held out: give --validation_split or --test_split")
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


def _refuse_other_data(parts: Parts, path: str) -> None:
    """A data set of other images or classes than the weights were trained on is bad input."""
    config = parts.config
    before = run_directory.options_of(config.run.run_dir)
    assert before is not None, "a run has options"
    if (config.data.dataset, config.data.image_size) == (
        before.data.dataset,
        before.data.image_size,
    ):
        return
    arrays = catalogue.read_facts(path)["arrays"]
    shapes = {tuple(a["shape"]) for name, a in arrays.items() if name.startswith("model/")}
    if not {tuple(variable.shape) for variable in parts.model.variables} <= shapes:
        raise ValueError(
            f"--dataset={config.data.dataset} (was {before.data.dataset}): its images or classes "
            f"are not those that the weights in {config.run.run_dir} were trained on"
        )

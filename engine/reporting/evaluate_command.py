"""Implements `--mode=evaluate`: evaluates a run's weights on held-out splits or on `--split`."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from engine.assembly.trained import restored
from engine.config.schema import Config, replaced
from engine.core import metrics
from engine.core.metrics import jsonable
from engine.reporting import follow, report
from engine.runtime.signals import Signals


def run(config: Config) -> int:
    """Evaluates a run's weights on its validation sets and test split, or on `--split`.

    For each split, prints the metrics and the task's additional text, such as a table of the scores
    of each class, and writes a report to run_dir/evaluation/SPLIT. The last line of the output has
    all scores as JSON; those of named validation sets as in result.json. A signal stops the
    evaluation without the JSON line. With `--follow`, calls `follow.run` instead, which evaluates
    every new checkpoint of the run.

    Returns:
      The exit status: 0, or 128 + the number of the received signal.

    Raises:
      ValueError: if the run has no weights that `--weights` selects, if the options or the data set
        do not fit the run, if the split does not exist, if there is neither a held-out split nor
        `--split`, if `--follow` is given with averaged weights, if the data set is damaged, or if a
        metric fails.
      OSError: if the checkpoint is damaged, or a file cannot be read or written.
      RuntimeError, tf.errors.OpError: if TensorFlow fails.
      ImportError, AttributeError: if there is no function `task.section`.
      AssertionError: if an example was lost or scored twice.
    """
    if config.report.follow:
        if config.run.averaged:
            raise ValueError(
                f"--follow --weights={config.run.weights}: --follow evaluates every checkpoint as "
                "it is; leave one of the two out"
            )
        return follow.run(config)
    split = config.report.split
    if split:
        config = replaced(config, test_split=split)
    with (
        Signals() as signals,
        restored(config, interrupted=lambda: bool(signals.received)) as restored_run,
    ):
        parts, weights = restored_run.parts, restored_run.description
        if not parts.evaluations:
            raise ValueError("no split is held out: give --split")
        print(f"evaluating {weights}, {restored_run.path}, on {parts.device}", flush=True)
        results: dict[str, Any] = {}
        tables: dict[str, Any] = {}

        def interrupted() -> bool:
            return bool(signals.received)

        for name, evaluation in parts.evaluations.items():
            if split and name != "test":
                continue
            shown = split or name
            means = evaluation.run(interrupted)
            if means is None:
                return signals.exit_status
            values = metrics.brief(means, parts.task.metrics)
            print(f"{shown} {values} of {means['examples']:,} examples", flush=True)
            content = report.build_split_report(parts, name, weights, interrupted)
            if content is None:
                return signals.exit_status
            split_report, of_task = content
            results[shown] = means
            tables[shown] = of_task.values
            if of_task.text:
                print(of_task.text, flush=True)
            # A directory name such as test_100 for test[:100].
            subdirectory = re.sub(r"[^\w.+-]+", "_", shown).strip("_") or "split"
            directory = os.path.join(config.run.run_dir, "evaluation", subdirectory)
            print(report.write(directory, split_report), flush=True)
        scores = results
        if not split and parts.source.validation_sets:
            test = {"test": results["test"]} if "test" in results else {}
            scores = parts.validation_scores(results) | test
        # An average has no file of its own.
        named = weights if config.run.averaged else restored_run.path
        views = {"evaluation_views": config.evaluation.evaluation_views} if parts.views else {}
        print(json.dumps(jsonable({"weights": named, **views, **scores, "tables": tables})))
        return signals.exit_status

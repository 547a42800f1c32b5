"""The cost of a run before it starts: operations, memory, steps, evaluations and checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pipelines
from engine.assembly.device_memory import (
    StepMemory,
    data_fits,
    module_bytes,
    replaced_bytes,
    size,
)
from engine.assembly.parts import Parts
from engine.config.schema import Config
from engine.core.flops import flops_of_step
from engine.distributed import gpus
from engine.inspection.memory import step_bytes
from engine.reporting.html_page import ReportTable


class Cost(NamedTuple):
    """What a run takes; sizes are in bytes."""

    flops: float | None  # floating-point operations of a step on all devices; None: not known
    weights: int  # of the network, on each device
    slots: int  # of the optimizer, on each device
    ema: int  # of the EMA of the weights, on each device
    # Peak of activations, gradients, temporary tensors and, on a GPU, the values before an update,
    # on each device; None: not known.
    step: int | None
    data: int  # of the decoded examples, on each device; 0: they are streamed
    decoded: int  # of the decoded examples of all splits
    feed: str  # "resident" or "stream"
    devices: int
    checkpoint: int  # of a checkpoint
    steps_per_epoch: int
    total_steps: int
    evaluations: int
    views: int  # of each evaluated example; 0: the inputs alone
    kept: int  # checkpoints kept for good
    recomputed: tuple[str, ...]  # names of the modules that --recompute selects

    @property
    def memory(self) -> int | None:
        """Expected peak memory on each device; None: not known."""
        if self.step is None:
            return None
        return self.weights + self.slots + self.ema + self.step + self.data


def cost(
    config: Config, source: pipelines.Source, parts: Parts, devices: int, *, traced: bool
) -> Cost:
    """Computes the cost of a run.

    Args:
      config: options of the run.
      source: data set of the run.
      parts: run of the same options on the examples of one batch, on one device, without
        augmentation.
      devices: number of devices of the run.
      traced: whether the training loop of `parts` can be traced.
    """
    state = parts.state
    flops = step = None
    if traced:
        graph = parts.loop.graph(retrace=True)
        layout = parts.feeds.training.layout
        try:
            flops = flops_of_step(graph, layout.local_micro_batches)
            step = step_bytes(graph) // devices
            step += replaced_bytes(state, early_exit=parts.loop.early_exit, jit=parts.loop.jit)
        except ValueError:  # a size is not known from the graph
            pass
    model = module_bytes(state.model) + module_bytes(state.optimizer) + module_bytes(state.ema)
    free = gpus.free_memory(config.devices.gpu_memory_mb)
    expected = None if step is None else StepMemory(model + step, 0)
    feed, decoded = pipelines.choose_feed(
        config.data.feed, source, lambda size: data_fits(size, lambda: expected, 0, free)
    )
    per_epoch = pipelines.steps_per_epoch(len(source.train), config.training.global_batch_size)
    steps = config.training.steps(per_epoch)
    interval = config.evaluation.interval(per_epoch)
    keep_every = config.checkpoints.keep_every
    return Cost(
        flops=flops,
        weights=module_bytes(state.model),
        slots=module_bytes(state.optimizer),
        ema=module_bytes(state.ema),
        step=step,
        data=decoded if feed == "resident" else 0,
        decoded=decoded,
        feed=feed,
        devices=devices,
        checkpoint=module_bytes(state),
        steps_per_epoch=per_epoch,
        total_steps=steps,
        evaluations=steps // interval if source.validation is not None else 0,
        views=len(parts.views),
        kept=steps // keep_every if keep_every else 0,
        recomputed=parts.recomputed,
    )


def table(found: Cost, config: Config) -> ReportTable:
    """Returns the table of a run's cost; `config` are the options of the run."""
    each = " on each device" if found.devices > 1 else ""
    feed = f"data, decoded ({found.feed} feed)"
    unknown = "not known"
    seconds = config.checkpoints.checkpoint_seconds
    saves = [f"{found.evaluations:,} with evaluations" if found.evaluations else ""]
    if every := config.checkpoints.checkpoint_every:
        saves.append(f"{found.total_steps // every:,} by --checkpoint_every")
    if found.kept:
        saves.append(f"{found.kept:,} kept for good")
    saves += [f"one every {seconds:,} seconds" if seconds else "", "one at the end"]
    passes = f", of {found.views} passes each" if found.views else ""
    rows = [
        ("steps per epoch", f"{found.steps_per_epoch:,}"),
        ("steps of the run", f"{found.total_steps:,}"),
        ("evaluations", f"{found.evaluations:,}{passes}"),
        ("checkpoints", f"{', '.join(filter(None, saves))}; {size(found.checkpoint)} each"),
        ("floating-point operations of a step", unknown if found.flops is None else flop(found)),
        *_recomputed(found.recomputed),
        (f"memory of the weights{each}", size(found.weights)),
        (f"memory of the optimizer's slots{each}", size(found.slots)),
        *([(f"memory of the EMA{each}", size(found.ema))] if found.ema else []),
        (
            f"memory of activations and gradients{each}",
            unknown if found.step is None else size(found.step),
        ),
        (
            f"memory of the {feed}{each}",
            size(found.data) if found.data else f"a few batches of {size(found.decoded)}",
        ),
        (f"memory expected{each}", unknown if found.memory is None else size(found.memory)),
    ]
    return ReportTable((), rows, bold=frozenset([len(rows) - 1]))


def _recomputed(names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the row of the modules that are recomputed; no row if there are none."""
    if not names:
        return []
    shown = ", ".join(names[:3]) + (f" ... {names[-1]}" if len(names) > 3 else "")
    return [("modules computed again in the backward pass", f"{len(names)}: {shown}")]


def flop(found: Cost) -> str:
    """Formats the number of operations of a step, such as "1.25 GFLOP"."""
    assert found.flops is not None
    value, unit = found.flops, "FLOP"
    for prefix in ("k", "M", "G", "T", "P"):
        if value < 1000:
            break
        value, unit = value / 1000, f"{prefix}FLOP"
    return f"{value:.4g} {unit} in matrix products and convolutions"

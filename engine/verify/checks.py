"""A check for each law: what is done to runs of the user's configuration, and what comes of it.

Each starts from a state of its own making, so that they can be read, and run, in any order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import models
import pipelines
from engine.assembly import Parts
from engine.precision import compute_dtype
from engine.verify import bounds, graph
from engine.verify.bench import FULL_BATCHES, SAVED, STEPS, Bench
from engine.verify.differences import Difference, as_a_whole, difference, tensors, worst
from engine.verify.trajectory import (
    Trajectory,
    changed,
    everything_in,
    step_together,
    take,
    weights,
)


class Finding(NamedTuple):
    """What a check found; see `certificate.Verdict`."""

    passed: bool | None
    done: str
    found: str
    measured: float | None = None
    bound: float | None = None


class Law(NamedTuple):
    """A law with its check.

    compares: whether two runs are held against each other, which says nothing while the same run
      twice is not the same (L3).
    """

    number: str
    name: str
    check: Callable[[Bench], Finding]
    compares: bool = False


def global_loss(bench: Bench) -> Finding:
    """L1: a row's loss is its own, and micro-batches add up to the batch."""
    batch, given = bench.batch, bench.config.training.accumulate
    pieces = 1 if given > 1 else min(4, batch)
    own = bench.restored(bench.home.parts)
    alone = _rows_alone(bench, own)
    if not alone.within:
        done = "rows evaluated in smaller portions"
        return Finding(False, done, str(alone), alone.measured, alone.bound)
    if batch == 1:
        return Finding(None, "", "a batch of one example cannot be cut")
    if bench.batch_norm:
        return Finding(None, "", "batch norm sees its micro-batch")
    cut = bench.assembled(bench.topologies.home, accumulate=pieces)
    found = [as_a_whole(*step_together(own, cut), bench.arithmetic) for _ in range(4)]
    apart = worst([difference for step in found for difference in step])
    done = f"updates of {pieces} micro-batches and of {given}, 4 times from the same state"
    return Finding(apart.within, done, str(apart), apart.measured, apart.bound)


def one_verdict(bench: Bench) -> Finding:
    """L2: an infinity on one replica moves nothing on any."""
    problems: list[str] = []
    devices, where = [bench.topologies.home], ""
    if bench.topologies.many.words != bench.topologies.home.words:
        devices.append(bench.topologies.many)
    for these in devices:
        try:
            parts = bench.restored(bench.on(these).parts)
        except (ValueError, RuntimeError):
            if these is bench.topologies.home:
                raise
            continue  # L7 tells of it
        row, replica = _last_row(parts, bench.batch)
        where = f"row {row} of {bench.batch}, on replica {replica + 1} of {these.replicas}"
        for factor in (np.inf, np.nan):
            problems += _strike(bench, parts, row, factor)
    done = f"an infinity, then a nan, in the gradient of {where}"
    found = "changed nothing but step and loss scale; the next step moved the weights"
    if problems:
        found = "; ".join(dict.fromkeys(problems))
    return Finding(not problems, done, found, len(problems), 0)


def pure_randomness(bench: Bench) -> Finding:
    """L3: the same seed gives the same bits."""
    first = bench.home
    again = bench.take(bench.assembled(bench.topologies.home), STEPS)
    differing = changed(first.everything, everything_in(again))
    scores = [bench.score(parts) for parts in (bench.restored(first.parts), bench.restored(again))]
    differing += [name for name in scores[0] if _differs(scores[0][name], scores[1][name])]
    drawn = graph.generators(first.parts.loop.graph())
    done = f"{STEPS} steps and an evaluation, twice from seed {bench.config.run.seed}"
    found = _same_bits(differing, first)
    if drawn:
        found += f"; a step draws by {', '.join(drawn)}, whose generator no checkpoint holds"
    return Finding(not (differing or drawn), done, found, len(differing) + len(drawn), 0)


def data_state(bench: Bench) -> Finding:
    """L4: the batch of a step does not depend on how the feed came to it."""
    home = bench.topologies.home
    steps = (FULL_BATCHES, SAVED, STEPS - 1)
    through = bench.assembled(home)
    came = [_batch_at(through, step) for step in range(STEPS)]
    differing = 0
    for kind in ("resident", "stream"):
        fresh = bench.assembled(home, feed=kind)
        differing += sum(_batch_at(fresh, step) != came[step] for step in steps)
        fresh.close()
    through.close()
    done = (
        f"batches of steps {', '.join(map(str, steps))} from feeds opened there, resident and "
        f"stream, and from a {bench.feed_kind} feed that came from step 0"
    )
    found = "the same bits" if not differing else f"{differing} of {2 * len(steps)} differ"
    return Finding(not differing, done, found, differing, 0)


def one_state(bench: Bench) -> Finding:
    """L5: a run put together anew and restored ends as one that was never stopped."""
    whole = bench.home
    resumed = bench.restored(bench.assembled(bench.topologies.home))
    bench.take(resumed, STEPS - SAVED)
    differing = changed(whole.everything, everything_in(resumed))
    done = f"saved after step {SAVED}, put together anew, gone on with to step {STEPS}"
    found = _same_bits(differing, whole)
    if bench.written:
        found += f"; steps write {', '.join(bench.written)}, which the state does not hold"
    count = len(differing) + len(bench.written)
    return Finding(not count, done, found, count, 0)


def one_trace(bench: Bench) -> Finding:
    """L6: each function is traced once, and tracing it again gives the same graph."""
    bench.score(bench.home.parts)
    most: dict[str, int] = {}
    for parts in bench.built:
        for name, count in parts.traces.items():
            most[name] = max(count, most.get(name, 0))
    loop = bench.on(bench.topologies.one).parts.loop
    once, anew = (graph.fingerprint(loop.graph(anew=anew)) for anew in (False, True))
    moved = sum(((once - anew) + (anew - once)).values())
    counts = ", ".join(f"{name} {count}" for name, count in most.items())
    found = f"{counts}; {'the same graph' if not moved else f'{moved} operations differ'}"
    if moved:
        found += ", as where a number of Python's goes into the trace"
    done = f"traces of each function in {len(bench.built)} runs, and a step traced again"
    worst = max(most.values())
    return Finding(worst == 1 and not moved, done, found, worst + moved, 1)


def topology(bench: Bench) -> Finding:
    """L7: N replicas train as one does, and go on where another number stopped.

    A rounding can switch a ReLU, after which two runs part whatever they are computed on. So where
    they are further apart than rounding makes them, single steps from the same state decide: if
    those agree, the order of summation is all that differs.
    """
    one, many = bench.topologies.one, bench.topologies.many
    if many is one:
        return Finding(None, "", "--shards=1 leaves nothing to share")
    options, arithmetic = _in_turn(bench)
    cut = f", in {options['accumulate']} micro-batches," if options else ""
    done = f"{STEPS} steps on 1{cut} and on {many.replicas} replicas, and on from step {SAVED}"
    pairs = [
        (bench.on(one, **options), bench.on(many)),
        (bench.continued(one, **options), bench.continued(many)),
    ]
    torn = [name for _, several in pairs for name in several.torn]
    if torn:
        found = f"replicas hold different {', '.join(torn[:3])}{_more(torn)}"
        return Finding(False, done, found, len(torn), 0)
    if bench.config.training.shards:
        differing = [name for a, b in pairs for name in changed(a.everything, b.everything)]
        found = _same_bits(differing, pairs[0][0])
        return Finding(not differing, done, found, len(differing), 0)
    free = worst([part for pair in pairs for part in tensors(*pair, arithmetic)])
    if free.within:
        return Finding(True, done, str(free), free.measured, free.bound)
    alone, several = (bench.restored(trajectory.parts) for trajectory in pairs[0])
    steps = [step_together(alone, several) for _ in range(STEPS - SAVED)]
    single = worst([part for pair in steps for part in tensors(*pair, arithmetic)])
    if not single.within:
        found = f"{free}; after one step from the same state {single}"
        return Finding(False, done, found, free.measured, free.bound)
    found = f"{single}, each from the same state; left alone a rounding grew to {free.measured:.1e}"
    return Finding(True, done, found, single.measured, single.bound)


def scored_once(bench: Bench) -> Finding:
    """L8: any number of replicas scores each example once, in batches of any size."""
    examples, many = bench.examples_scored, bench.topologies.many
    usual = bench.config.training.evaluation_batch_size
    size = _uneven(examples, usual, many.replicas)
    runs = [
        bench.on(bench.topologies.one).parts,
        bench.assembled(many, evaluation_batch_size=size),
    ]
    scores = [bench.score(bench.restored(parts)) for parts in runs]
    counted = [int(means["examples"]) for means in scores]
    wrong = sum(abs(count - examples) for count in counted)
    words = [f"{counted[0]:,} and {counted[1]:,} of {examples:,} examples"]
    allowed = bounds.step_figure_bound(bench.arithmetic)
    apart = []
    for name in ("loss", *runs[0].task.metrics):
        sums = [means[name] * means["examples"] for means in scores]
        if name != "loss" and np.allclose(sums, np.round(sums), rtol=0, atol=1e-3):  # it counts
            right = [round(value) for value in sums]
            words.append(f"{name} {right[0]:,} and {right[1]:,}")
            if bench.arithmetic == "float32":
                wrong += abs(right[0] - right[1])
                continue
        apart.append(Difference(name, difference(*sums), allowed))
    furthest = worst(apart)
    words.append(str(furthest))
    done = (
        f"{bench.scored_from} in batches of {usual} on 1 replica and of {size} on {many.replicas}"
    )
    return Finding(not wrong and furthest.within, done, ", ".join(words), wrong, 0)


LAWS = (
    Law("L4", "data state is two integers", data_state),
    Law("L3", "pure randomness", pure_randomness),
    Law("L5", "one state", one_state, compares=True),
    Law("L2", "reduce, then judge, then act", one_verdict),
    Law("L1", "global loss", global_loss, compares=True),
    Law("L8", "every example is scored once", scored_once, compares=True),
    Law("L7", "topology is not state", topology, compares=True),
    Law("L6", "one trace", one_trace),  # last: it counts the traces of all runs before
)


# --- L1 ---------------------------------------------------------------------------------------


def _rows_alone(bench: Bench, parts: Parts) -> Difference:
    """How far losses of rows depend on the rows beside them; evaluated, so without batch norm."""
    feed = pipelines.open_feed(
        "resident",
        bench.source,
        bench.source.train,
        global_batch_size=bench.batch,
        seed=None,
        layout=pipelines.Layout(),
        strategy=tf.distribute.get_strategy(),
        cache_dir=parts.config.data.cache_dir,
    )
    whole = feed.batch(feed.next(feed.open(0, 1)), tf.constant(0, tf.int64), 0)
    dtype = compute_dtype(bench.config.precision.precision)

    @tf.function(autograph=False)
    def losses(batch: pipelines.Batch) -> tf.Tensor:
        call = models.Pass(mask=batch.mask, dtype=dtype)
        found = parts.task(parts.model, batch, call).losses
        return tf.cast(tf.broadcast_to(found, tf.shape(batch.mask)), tf.float32)

    size = -(-bench.batch // 4)
    portions = []
    for first in range(0, bench.batch, size):
        rows = slice(first, first + size)
        portion = whole._replace(
            inputs=whole.inputs[rows],
            targets=whole.targets[rows],
            mask=whole.mask[rows],
            row=whole.row + first,
            place=whole.place + first,
        )
        portions.append(losses(portion).numpy())
    together, apart = losses(whole).numpy(), np.concatenate(portions)
    allowed = bounds.step_figure_bound(bench.arithmetic)
    return Difference("losses of rows", difference(together, apart), allowed)


# --- L2 ---------------------------------------------------------------------------------------


def _last_row(parts: Parts, batch: int) -> tuple[int, int]:
    """The last row of a full batch that the last replica computes, and which replica that is."""
    layout = parts.feeds[0].layout
    micro_rows = -(-batch // layout.micro_batches)
    rows = -(-micro_rows // layout.all_shards)

    def replica(row: int) -> int:
        return row % micro_rows // rows // layout.local_shards

    last = max(range(batch), key=lambda row: (replica(row), row))
    return last, replica(last)


def _strike(bench: Bench, parts: Parts, row: int, factor: float) -> list[str]:
    """A full batch with a bad row, and the step after it: what did not go as it must."""
    state, options = parts.state, parts.config.precision
    scale = state.loss_scale
    bench.take(parts, -int(state.step) % parts.steps_per_epoch)
    before, step, updates = everything_in(parts), int(state.step), int(state.updates)
    expected = float(scale.value)
    if scale.dynamic:
        floor = min(options.loss_scale_floor, expected)
        expected = max(expected / options.loss_scale_factor, floor)
    parts.task.strike(row, factor)  # type: ignore[attr-defined]
    take(parts, 1)
    parts.task.strike(-1, 1.0)  # type: ignore[attr-defined]
    after, problems = everything_in(parts), []
    free = {state.step.name, scale.value.name, scale.good_steps.name}
    if moved := [name for name in changed(before, after) if name not in free]:
        problems.append(f"{factor} changed {', '.join(moved[:3])}" + _more(moved))
    if int(state.step) != step + 1:
        problems.append(f"{factor} took the step to {int(state.step)}, not to {step + 1}")
    if float(scale.value) != expected:
        problems.append(f"the loss scale became {float(scale.value):g}, not {expected:g}")
    take(parts, 1)
    if int(state.updates) != updates + 1 or not changed(after, everything_in(parts)):
        problems.append(f"the step after {factor} did not move the weights")
    elif not all(np.isfinite(value).all() for value in weights(parts).values()):
        problems.append(f"weights are not finite after {factor}")
    return problems


# --- L7 ---------------------------------------------------------------------------------------


def _in_turn(bench: Bench) -> tuple[dict[str, int], str]:
    """Options with which one device computes what several do, and what then rounds.

    In a mixed precision the gradient of each portion is rounded, and a bound on that must allow for
    portions that cancel each other. A device that computes the same portions in turn rounds each
    to the same bits: only float32 sums are left to differ.
    """
    given = bench.config.training.accumulate
    portions = given * bench.topologies.many.replicas
    same = given == 1 or bench.batch % portions == 0
    exact = bench.arithmetic == "float32" or bench.config.training.shards > 0
    if exact or bench.batch_norm or not same or portions > bench.batch:
        return {}, bench.arithmetic
    return {"accumulate": portions}, "float32"


# --- L4, L8 -----------------------------------------------------------------------------------


def _batch_at(parts: Parts, step: int) -> bytes:
    """Digest of the examples of a step: images, labels, mask and place, piece by piece."""
    feed, digest = parts.feeds[0], hashlib.sha256()
    element, at = feed.next(feed.open(step, 1)), tf.constant(step, tf.int64)

    def portion(element: Any, piece: tf.Tensor) -> pipelines.Batch:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        return feed.batch(element, at, replica, piece)

    for piece in range(feed.layout.pieces):
        found = parts.strategy.run(portion, args=(element, tf.constant(piece, tf.int64)))
        for batch in _of_each_replica(parts.strategy, found):
            valid = batch.mask.numpy() > 0
            rows = np.flatnonzero(valid)
            shown = (batch.inputs.numpy()[rows], batch.targets.numpy()[rows], *batch[2:])
            for part in shown:
                digest.update(np.asarray(part).tobytes())
    return digest.digest()


def _of_each_replica(strategy: tf.distribute.Strategy, batch: pipelines.Batch) -> list:
    parts = [strategy.experimental_local_results(part) for part in batch]
    return [pipelines.Batch(*replica) for replica in zip(*parts, strict=True)]


def _uneven(examples: int, most: int, replicas: int) -> int:
    """A batch size that divides neither the split nor among the replicas, where there is one."""
    sizes = range(min(most, 2 * examples // 5), 1, -1)
    return next((size for size in sizes if examples % size and size % max(2, replicas)), 1)


# --- words ------------------------------------------------------------------------------------


def _same_bits(differing: list[str], one: Trajectory) -> str:
    count = len(one.everything)
    if not differing:
        return f"the same bits in all {count} tensors"
    first = ", ".join(differing[:3])
    return f"{len(differing)} of {count} tensors differ: {first}{_more(differing)}"


def _more(names: list[str]) -> str:
    return ", ..." if len(names) > 3 else ""


def _differs(one: float, other: float) -> bool:
    return np.float64(one).tobytes() != np.float64(other).tobytes()

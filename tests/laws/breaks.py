"""Code mutations for each law of the engine; at least one test of the law must fail under each."""

from __future__ import annotations

from dataclasses import dataclass

LAWS = {
    "L1": "global loss",
    "accumulation": "the global batch is what one update sees",
    "L2": "reduce, judge, act",
    "loss scale": "what overflows is skipped, and nothing else changes",
    "L3": "pure randomness",
    "L4": "data state is two integers",
    "L5": "one state",
    "L6": "one trace",
    "L7": "topology is not state",
    "shards": "the same bits on any number of replicas",
    "L8": "every example is scored once",
    "nothing lost": "stopped anywhere, by anything, a run ends with the same bits",
    "references": "update rules, schedules, clipping and averages are those of their papers",
    "golden": "a run is what it was",
}

_FOREIGN = "tests/laws/test_foreign_models.py"
_RESUME = ("tests/cli/test_resume.py",)
_LEFT_OUT = ("tests/cli/test_left_out.py",)
_GUARD = ("tests/unit/test_bad_steps.py",)
_GLOBAL_LOSS = ("tests/laws/test_l1_global_loss.py",)
_ACCUMULATION = ("tests/laws/test_l1_accumulation.py",)
_L2 = "tests/laws/test_l2_reduce_judge_act.py"
_CLIPPING = (f"{_L2}::test_clip_after_reduction",)
_VERDICT = (f"{_L2}::test_bad_step_updates_nothing",)
_SCALED = (f"{_L2}::test_loss_scale_is_bitwise_neutral",)
_SCALE = (
    f"{_L2}::test_loss_scale_limits",
    f"{_L2}::test_loss_scale_growth",
)
_RANDOMNESS = ("tests/laws/test_l3_pure_randomness.py",)
_AUGMENTING = ("tests/unit/test_augmentation.py",)
_CROPPING = ("tests/unit/test_resized_crop.py",)
_DATA_STATE = ("tests/laws/test_l4_data_state.py",)
_DAMAGE = ("tests/laws/test_l5_damage.py", "tests/unit/test_checkpoint_file.py")
_ONE_STATE = ("tests/laws/test_l5_one_state.py",)
_COMPILED = ("tests/laws/test_compiled.py",)
_EARLY_EXIT = ("tests/laws/test_early_exit.py::test_both_ways_bitwise",)
_HOST_WAITS = ("tests/unit/test_host_waits.py",)
_POINTS = ("tests/laws/test_points.py",)
_ONE_TRACE = ("tests/laws/test_l6_one_trace.py",)
_TOPOLOGY = ("tests/laws/test_l7_topology.py",)
_COMPOSED = ("tests/laws/test_compositions.py",)
_ONCE = ("tests/laws/test_l8_every_example_once.py",)
_REFERENCED = "tests/laws/test_references.py"
_UPDATES = (f"{_REFERENCED}::test_updates_match_paper",)
_RATES = (f"{_REFERENCED}::test_schedule_matches_formula",)
_LOOP = (f"{_REFERENCED}::test_loop_matches_papers",)
_GOLDEN = ("tests/laws/test_golden.py",)


@dataclass(frozen=True)
class Break:
    """A mutation of the code: `new` replaces `old`, which must occur exactly once in `file`.

    Attributes:
      law: the violated law, a key of `LAWS`.
      why: the simulated fault, as printed by `mutate`.
      tests: paths of test files, or pytest ids of single tests; at least one of them must fail.
      file: path of the mutated file, relative to the repository.
      old: the replaced text.
      new: the replacement.
    """

    law: str
    why: str
    tests: tuple[str, ...]
    file: str
    old: str
    new: str


BREAKS = (
    # L1
    Break(
        "L1",
        "a weight regularizer of Keras counts twice",
        (f"{_FOREIGN}::test_regularizer_counts_once",),
        "engine/models/keras_adapter.py",
        "context.penalties.append(tf.cast(penalty, tf.float32))",
        "context.penalties.append(2 * tf.cast(penalty, tf.float32))",
    ),
    Break(
        "L1",
        "a replica divides by its own count",
        _GLOBAL_LOSS,
        "engine/core/step.py",
        "weight = batch.mask / batch.valid",
        "weight = batch.mask / tf.maximum(tf.reduce_sum(batch.mask), 1.0) / 2.0",
    ),
    Break(
        "L1",
        "padding counts as examples",
        _GLOBAL_LOSS,
        "engine/core/step.py",
        "weight = batch.mask / batch.valid",
        "weight = tf.ones_like(batch.mask) / batch.valid",
    ),
    Break(
        "L1",
        "the loss is divided by the number of examples, whatever their weights are",
        ("tests/laws/test_l1_global_loss.py::test_weighted_mean_is_global",),
        "engine/core/step.py",
        "mean_weight = metrics.mean_weight(sums)",
        "mean_weight = 1.0",
    ),
    Break(
        "L1",
        "the remainder is dropped",
        _GLOBAL_LOSS,
        "pipelines/order.py",
        "return -(-examples // global_batch_size)",
        "return max(1, examples // global_batch_size)",
    ),
    Break(
        "L1",
        "ids of padding rows are looked up",
        ("tests/unit/test_row_purity.py",),
        "engine/models/layers/embedding.py",
        "ids = tf.where(valid, ids, tf.zeros_like(ids))",
        "ids = tf.where(valid, ids, ids)",
    ),
    # Accumulation
    Break(
        "accumulation",
        "micro-batches are averaged and not added up",
        _ACCUMULATION,
        "engine/core/accumulation.py",
        "return sums if total is None else _plus(total, sums)",
        "if total is None:\n            return sums\n"
        "        return _plus(total, [part / self._layout.micro_batches for part in sums])",
    ),
    Break(
        "accumulation",
        "the last micro-batch replaces those before it",
        _ACCUMULATION,
        "engine/core/accumulation.py",
        "return sums if total is None else _plus(total, sums)",
        "return sums",
    ),
    Break(
        "accumulation",
        "a micro-batch divides by its own count",
        _ACCUMULATION,
        "pipelines/feeds/batch_layout.py",
        "tf.cast(tf.minimum(left, self.global_batch_size), tf.float32)",
        "tf.cast(tf.minimum(left, self._micro_rows), tf.float32)",
    ),
    Break(
        "accumulation",
        "micro-batches that do not come out even share rows",
        _ACCUMULATION,
        "pipelines/feeds/batch_layout.py",
        "            & (in_micro_batch < self._micro_rows)\n",
        "",
    ),
    Break(
        "accumulation",
        "all micro-batches drop out the same",
        _ACCUMULATION,
        "pipelines/feeds/batch_layout.py",
        "return in_batch[0], minimum(",
        "return in_micro_batch[0], minimum(",
    ),
    Break(
        "accumulation",
        "a short micro-batch has the say of a long one in the moving averages",
        _ACCUMULATION,
        "engine/models/batch_norm.py",
        "StatisticUpdate(moving, proposed, local_count, constant)",
        "StatisticUpdate(moving, proposed, tf.ones([]))",
    ),
    Break(
        "L1",
        "padding counts in the gradient of a batch norm",
        ("tests/unit/test_layers.py::test_batch_norm_ignores_padding",),
        "engine/models/batch_normalization.py",
        "    if rows.mask is None:\n        return whole()",
        "    if True:\n        return whole()",
    ),
    Break(
        "L1",
        "the variance of a batch norm is a difference of large numbers",
        ("tests/unit/test_batch_norm.py::test_first_batch_of_large_mean",),
        "engine/models/batch_moments.py",
        "return tf.cond(near, lambda: (mean, variance), again)",
        "return mean, variance",
    ),
    Break(
        "L1",
        "padding shows examples of another batch",
        _GLOBAL_LOSS,
        "pipelines/feeds/batch_layout.py",
        "return in_batch[0], minimum(in_epoch, end - 1 + self._look_ahead), valid",
        "return in_batch[0], in_epoch, valid",
    ),
    # L2
    Break(
        "L2",
        "each replica judges what it has, before the reduction",
        _VERDICT,
        "engine/core/step.py",
        "return update(self.reduce(total), context)",
        "fine = tf.math.is_finite(tf.add_n([*map(tf.reduce_sum, total[:-1])]))\n"
        "        total = self.reduce(total)\n"
        "        kept = [fine & ~tf.math.is_finite(x) for x in total]\n"
        "        total = [tf.where(k, tf.zeros_like(x), x) for k, x in zip(kept, total)]\n"
        "        return update(total, context)",
    ),
    Break(
        "L2",
        "each replica clips what it has, before the reduction",
        _CLIPPING,
        "engine/core/step.py",
        "return update(self.reduce(total), context)",
        "local = len(self._weights)\n"
        "        total = [*self._clip(total[:local])[0], *total[local:]]\n"
        "        return update(self.reduce(total), context)",
    ),
    Break(
        "L2",
        "there is no verdict",
        _VERDICT,
        "engine/core/step.py",
        "finite = tf.math.is_finite(tf.add_n(checked))",
        "finite = tf.add_n(checked) != 12345.0",
    ),
    Break(
        "L2",
        "the verdict is not of the statistics",
        _VERDICT,
        "engine/core/step.py",
        "checked = [norm, *map(tf.reduce_sum, statistics),",
        "checked = [norm,",
    ),
    Break(
        "L2",
        "statistics are written whatever the verdict",
        _VERDICT,
        "engine/core/step.py",
        "        conditional_update(finite, update",
        "        self._write_statistics(statistics)\n        conditional_update(finite, update",
    ),
    Break(
        "L2",
        "averages follow whatever the verdict",
        _VERDICT,
        "engine/core/step.py",
        "        return StepResult(finite,",
        "        if self.average is not None:\n"
        "            ema.update_ema(self.average, self.model, self.ema, context.updates)\n"
        "        return StepResult(finite,",
    ),
    Break(
        "L2",
        "a bad step counts as an update",
        _VERDICT,
        "engine/core/loop_state.py",
        "return step - skipped - tf.cast(~finite, tf.int64)",
        "return step - skipped",
    ),
    Break(
        "L2",
        "what XLA compiles acts whatever the verdict",
        (*_COMPILED, "tests/laws/test_networks.py"),
        "engine/core/conditional.py",
        "selected = tf.where(condition, variable.read_value(), old)",
        "selected = variable.read_value()",
    ),
    Break(
        "L2",
        "the loop of at most one turn takes it whatever the verdict",
        _COMPILED,
        "engine/core/conditional.py",
        "once, [condition], parallel",
        "once, [tf.constant(True)], parallel",
    ),
    Break(
        "L2",
        "a call on a GPU goes on after a bad step",
        _EARLY_EXIT,
        "engine/core/step.py",
        "selected_update(finite & context.finite,",
        "selected_update(finite,",
    ),
    Break(
        "L2",
        "steps after a bad step count on a GPU",
        _EARLY_EXIT,
        "engine/core/loop_state.py",
        "finite &= now.finite",
        "pass",
    ),
    Break(
        "L2",
        "log points after a bad step are logged on a GPU",
        _EARLY_EXIT,
        "engine/core/loop.py",
        "if each.step <= before + taken",
        "if each",
    ),
    Break(
        "L2",
        "a GPU's loop waits for the verdict of each step",
        _HOST_WAITS,
        "engine/core/loop.py",
        "if self.early_exit else index < end",
        "",
    ),
    Break(
        "L2",
        "the metrics of a bad step count",
        _VERDICT,
        "engine/core/loop_state.py",
        "tf.where(finite, added, now.sums)",
        "added",
    ),
    Break(
        "L2",
        "a bad step takes the number of the next one too",
        _VERDICT,
        "engine/core/loop.py",
        "reached, skipped = args.first + taken,",
        "reached, skipped = args.first + taken + tf.cast(~now.finite, tf.int64),",
    ),
    # Loss scale
    Break(
        "loss scale",
        "the clip is of the scaled gradient",
        _SCALED,
        "engine/core/step.py",
        "        gradients, factor, norm = self._clip.factored(gradients)\n",
        "        scaled = [g * context.loss_scale for g in gradients]\n"
        "        gradients, factor, norm = self._clip.factored(scaled)\n"
        "        gradients = [g / context.loss_scale for g in gradients]\n",
    ),
    Break(
        "loss scale",
        "the gradient stays scaled",
        _SCALED,
        "engine/core/step.py",
        "gradients = [gradient / context.loss_scale for gradient in gradients]",
        "gradients = list(gradients)",
    ),
    Break(
        "loss scale",
        "the scale never shrinks",
        _VERDICT,
        "engine/optim/precision.py",
        "LossScaleState(tf.where(finite, grown, shrunk), ",
        "LossScaleState(tf.where(finite, grown, scale.value), ",
    ),
    Break(
        "loss scale",
        "the scale falls through its floor",
        _SCALE,
        "engine/optim/precision.py",
        "shrunk = tf.maximum(scale.value / self._factor, self._floor)",
        "shrunk = scale.value / self._factor",
    ),
    Break(
        "loss scale",
        "the scale grows to infinity",
        _SCALE,
        "engine/optim/precision.py",
        "grown = tf.where(tf.math.is_finite(grown), grown, scale.value)",
        "grown = tf.identity(grown)",
    ),
    Break(
        "loss scale",
        "good steps need not come in a row",
        _SCALE,
        "engine/optim/precision.py",
        "tf.where(finite & ~due, run, 0)",
        "tf.where(~due, run, 0)",
    ),
    # L3
    Break(
        "L3",
        "a recomputed module draws other random numbers",
        ("tests/laws/test_recompute.py",),
        "engine/models/recompute.py",
        "noise.at(copies[id(noise.step)], copies",
        "noise.at(copies[id(noise.step)] + 1, copies",
    ),
    Break(
        "L3",
        "epochs share one order",
        _RANDOMNESS,
        "pipelines/order.py",
        "np.random.SeedSequence([seed, epoch])",
        "np.random.SeedSequence([seed])",
    ),
    Break(
        "L3",
        "a picture has the same crop in each epoch",
        _CROPPING,
        "pipelines/augmentation/resized_crop.py",
        "order.uniform(seed, int(epoch), positions[rows]",
        "order.uniform(seed, 0, positions[rows]",
    ),
    Break(
        "L3",
        "dropout depends on the replica",
        _RANDOMNESS,
        "engine/core/step.py",
        "noise=StatelessRNG(self.seed, context.step, batch.row,",
        "noise=StatelessRNG(self.seed, context.step, 0 * batch.row,",
    ),
    Break(
        "L3",
        "every step drops out the same",
        _RANDOMNESS,
        "engine/core/step.py",
        "noise=StatelessRNG(self.seed, context.step, batch.row,",
        "noise=StatelessRNG(self.seed, 0 * context.step, batch.row,",
    ),
    Break(
        "L3",
        "the seed is forgotten",
        _RANDOMNESS,
        "pipelines/feeds/batch_layout.py",
        "return order.permutation(self.seed, epoch, self.examples)",
        "return np.random.permutation(self.examples).astype(np.int32)",
    ),
    Break(
        "L3",
        "augmentation depends on how the batch is cut",
        _AUGMENTING,
        "engine/core/augmentation.py",
        "StatelessRNG(seed, batch.epoch, batch.position,",
        "StatelessRNG(seed, batch.epoch, 0 * batch.position,",
    ),
    Break(
        "L3",
        "an image is equalized by the pixels of its batch",
        ("tests/unit/test_randaugment.py::test_operations_in_turn",),
        "pipelines/augmentation/randaugment.py",
        "place = tf.cast(value, tf.int64) + tf.range(rows)[:, tf.newaxis] * size",
        "place = tf.cast(value, tf.int64) + tf.range(rows)[:, tf.newaxis] * 0",
    ),
    Break(
        "L3",
        "layers inside a layer share its initial values and dropout masks",
        ("tests/unit/test_composite.py",),
        "engine/models/base.py",
        "return Initializer(self.seed, index, kind, path",
        "return Initializer(self.seed, self.index, kind, path",
    ),
    # L4
    Break(
        "L4",
        "the stream starts again at the epoch's begin",
        _DATA_STATE,
        "pipelines/feeds/stream.py",
        "args=(queue, replicas, step)",
        "args=(queue, replicas, 0)",
    ),
    Break(
        "L4",
        "the stream reads in file order",
        _DATA_STATE,
        "pipelines/feeds/block_reader.py",
        "plan.examples_at(epoch, positions[in_epoch])",
        "positions[in_epoch]",
    ),
    Break(
        "L4",
        "all steps of a table see its first rows",
        _DATA_STATE,
        "pipelines/feeds/stream.py",
        "first = ((step + offset) * self.layout.local_micro_batches + local) * rows",
        "first = (0 * (step + offset) * self.layout.local_micro_batches + local) * rows",
    ),
    Break(
        "L4",
        "the resident feed keeps the first epoch's order",
        _DATA_STATE,
        "pipelines/feeds/resident.py",
        "if self._opened is None or self._opened[0] != epoch:",
        "if self._opened is None:",
    ),
    # L5
    Break(
        "L5",
        "the optimizer's slots are not in the state",
        _ONE_STATE,
        "engine/core/state.py",
        "self.optimizer = optimizer",
        "self._slots = lambda: optimizer",
    ),
    Break(
        "L5",
        "the averaged weights are not in the state",
        _ONE_STATE,
        "engine/core/state.py",
        "self.ema = ema",
        "self._ema = lambda: ema",
    ),
    Break(
        "L5",
        "the loss scale is not in the checkpoint",
        _ONE_STATE,
        "engine/models/properties.py",
        "for path, variable in flat}",
        'for path, variable in flat if str(path[0]) != "loss_scale"}',
    ),
    Break(
        "L5",
        "the metric sums are not in the checkpoint",
        _ONE_STATE,
        "engine/models/properties.py",
        "for path, variable in flat}",
        'for path, variable in flat if str(path[0]) != "sums"}',
    ),
    Break(
        "L5",
        "what the disk gives is believed",
        _DAMAGE,
        "engine/checkpoint/checkpoint_file.py",
        "if _described(array) != expected:",
        "if False:",
    ),
    Break(
        "L5",
        "a checkpoint may have another's name",
        _DAMAGE,
        "engine/checkpoint/catalog.py",
        'if metadata["number"] != checkpoint_number(path):',
        "if False:",
    ),
    Break(
        "L5",
        "a checkpoint is written in its place",
        ("tests/unit/test_checkpoint_file.py",),
        "engine/checkpoint/checkpoint_file.py",
        "part = path + PART",
        "part = path",
    ),
    Break(
        "L5",
        "the best one is only ever the last that was saved",
        _DAMAGE,
        "engine/checkpoint/retention.py",
        "elif saved <= step:",
        "else:",
    ),
    Break(
        "L5",
        "of equal evaluations, the later one is the better",
        ("tests/unit/test_keeping.py::test_ranking",),
        "engine/core/early_stopping.py",
        "sum(not self._better(value, each, 0.0) for each, _ in ranking)",
        "sum(self._better(each, value, 0.0) for each, _ in ranking)",
    ),
    Break(
        "L5",
        "only the best of the best checkpoints survives the next save",
        ("tests/unit/test_keeping.py::test_kill_at_any_file_operation",),
        "engine/checkpoint/manager.py",
        '[metadata["best_step"], *metadata["best_steps"]]',
        '[metadata["best_step"]]',
    ),
    # L6
    Break(
        "L6",
        "the number of steps is a Python number",
        _ONE_TRACE,
        "engine/core/loop.py",
        "self._call(tf.constant(np.array([steps, *points], np.int64)), given)",
        "self._call([steps, *points], given)",
    ),
    Break(
        "L6",
        "evaluation's number of steps is a Python number",
        _ONE_TRACE,
        "engine/core/evaluation.py",
        "self._compiled(start, tf.constant(as_int64(steps)), given)",
        "self._compiled(start, steps, given)",
    ),
    Break(
        "L6",
        "a point is noted down wherever a call ends",
        _POINTS,
        "engine/core/loop.py",
        "tf.cast(tf.cast(index, tf.int64) == point, tf.int32)",
        "1",
    ),
    Break(
        "L6",
        "a call begins its epoch's sums anew at each point",
        _POINTS,
        "engine/trainer/train_logging.py",
        "        logged = point.sums\n",
        "",
    ),
    # L7
    Break(
        "L7",
        "gradients are not reduced",
        _TOPOLOGY,
        "engine/core/step.py",
        "return update(self.reduce(total), context)",
        "return update([*total[:-1], self.reduce(total)[-1]], context)",
    ),
    Break(
        "L7",
        "a pass that XLA fuses averages the gradient of a bias over the rows of a device",
        ("tests/laws/test_fused_passes.py::test_replicas_match_one_device",),
        "engine/models/fused_passes.py",
        "return tf.reduce_sum(tf.cast(x, tf.float32), list(range(x.shape.rank - 1)))",
        "return tf.reduce_mean(tf.cast(x, tf.float32), list(range(x.shape.rank - 1)))",
    ),
    Break(
        "L7",
        "steps that XLA compiles are not reduced",
        (f"{_COMPILED[0]}::test_replicas_match_one_device",),
        "engine/core/loop.py",
        "functools.partial(self._apply_gradients, update=update)",
        "update",
    ),
    Break(
        "L7",
        "batch norm sees one replica",
        _TOPOLOGY,
        "engine/models/batch_normalization.py",
        "context.all_reduce(",
        "list(",
    ),
    Break(
        "L7",
        "batch norm reduces a variance around zero in float32",
        ("tests/unit/test_batch_norm.py::test_first_batch_of_large_mean",),
        "engine/models/batch_normalization.py",
        "context.all_reduce([count * mean, count * mean_square, count])",
        "[tf.cast(tf.cast(each, tf.float32), tf.float64)"
        " for each in context.all_reduce([count * mean, count * mean_square, count])]",
    ),
    Break(
        "L7",
        "batch norm in a Keras model sees one replica",
        (f"{_FOREIGN}::test_same_on_other_devices",),
        "engine/models/keras_layers.py",
        "        forward.context,\n    )\n    _move",
        "        ForwardContext(True),\n    )\n    _move",
    ),
    Break(
        "L7",
        "the replicas of a Keras model share the context of the last one traced",
        (f"{_FOREIGN}::test_same_on_other_devices",),
        "engine/models/keras_forward.py",
        "_local = threading.local()",
        "_local = threading",
    ),
    Break(
        "L7",
        "on several devices the mean of batch norm's statistics is not resumed with",
        ("tests/laws/test_l7_other_devices.py",),
        "engine/checkpoint/restore.py",
        "variable.assign(contents.arrays[name])",
        '"moving_mean" in name or variable.assign(contents.arrays[name])',
    ),
    Break(
        "L7",
        "a worker keeps its own gradients and sums",
        ("tests/laws/test_l7_several_machines.py",),
        "engine/distributed/reduction.py",
        "return _unpacked(total, tensors)",
        "return list(tensors)",
    ),
    Break(
        "L7",
        "every worker streams the chief's rows",
        ("tests/laws/test_l7_several_machines.py",),
        "pipelines/feeds/replicas.py",
        "first = resolver.task_id * count if resolver is not None else 0",
        "first = 0",
    ),
    Break(
        "L7",
        "keys of an attention have a bias, which only rounding moves",
        _COMPOSED,
        "engine/models/layers/attention.py",
        'use_bias=learned_key_bias if name == "key" else self._use_bias',
        "use_bias=self._use_bias",
    ),
    # Shards
    Break(
        "shards",
        "the graph optimizer may add shards in another order",
        _TOPOLOGY,
        "engine/core/accumulation.py",
        "[tf.ensure_shape(a + b, a.shape) for a, b in zip(one, other, strict=True)]",
        "[a + b for a, b in zip(one, other, strict=True)]",
    ),
    Break(
        "shards",
        "replicas are added in a row and not as a tree",
        _TOPOLOGY,
        "engine/distributed/reduction.py",
        "stack = stack[0::2] + stack[1::2]",
        "stack = tf.concat([stack[:1] + stack[1:2], stack[2:]], 0)",
    ),
    Break(
        "shards",
        "a replica begins with its second shard and ends with its first",
        _TOPOLOGY,
        "engine/core/accumulation.py",
        "self.feed.batch(element, step, replica, index)",
        "self.feed.batch(element, step, replica, (index + self._layout.micro_batches) "
        "% self._layout.local_micro_batches)",
    ),
    Break(
        "shards",
        "batch norm sees more shards where a replica has fewer",
        _TOPOLOGY,
        "engine/distributed/reduction.py",
        "return (list, tree_reduce) if shards else (all_reduce, all_reduce)",
        "return (all_reduce, tree_reduce) if shards else (all_reduce, all_reduce)",
    ),
    Break(
        "shards",
        "a sparse gradient keeps its rows apart",
        _COMPOSED,
        "engine/core/step.py",
        "gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]",
        "gradients = list(gradients)",
    ),
    # L8
    Break(
        "L8",
        "evaluation counts padding",
        _ONCE,
        "pipelines/feeds/batch_layout.py",
        "tf.cast(valid, tf.float32)",
        "tf.ones_like(valid, tf.float32)",
    ),
    Break(
        "L8",
        "evaluation leaves the last batch out",
        _ONCE,
        "engine/core/evaluation.py",
        "step, end = 0, self._feed.steps_per_epoch",
        "step, end = 0, max(1, self._feed.steps_per_epoch - 1)",
    ),
    Break(
        "L8",
        "a collected metric loses the rows of all micro-batches but one",
        ("tests/unit/test_collected.py",),
        "engine/core/collected.py",
        "sources = tf.range(length, dtype=tf.int64) - batch.row",
        "sources = tf.range(length, dtype=tf.int64)",
    ),
    Break(
        "L8",
        "evaluation scores one example twice and leaves one out",
        _ONCE,
        "pipelines/feeds/resident.py",
        "indices = tf.gather(in_order, positions % self.examples)",
        "indices = tf.gather(in_order, tf.maximum(positions % self.examples, 1))",
    ),
    Break(
        "L7",
        "an embedding learns of the largest gradient of an id alone",
        ("tests/laws/test_compositions.py",),
        "engine/models/layers/embedding.py",
        "tf.math.unsorted_segment_sum(flat",
        "tf.math.unsorted_segment_max(flat",
    ),
    Break(
        "L8",
        "evaluation drops out",
        _ONCE,
        "engine/core/step.py",
        "context = ForwardContext(mask=batch.mask, dtype=dtype)",
        "context = ForwardContext(\n"
        "            training=True, mask=batch.mask, dtype=dtype,\n"
        "            noise=StatelessRNG(0, batch.position))",
    ),
    # Nothing lost
    Break(
        "nothing lost",
        "curves are not rewound",
        _RESUME,
        "engine/logging/metric_writer.py",
        'return row["step"] <= last[row["split"]]',
        "return True",
    ),
    Break(
        "nothing lost",
        "the sums of the epoch so far start again",
        _RESUME,
        "engine/checkpoint/restore.py",
        "variable.assign(contents.arrays[name])",
        'name == "sums" or variable.assign(contents.arrays[name])',
    ),
    Break(
        "nothing lost",
        "the first checkpoint is there before its options",
        ("tests/unit/test_trainer.py",),
        "engine/trainer/trainer.py",
        "        if self._collectives.is_chief:\n            run_directory.write_options",
        "        self._checkpoints.save_and_wait()\n"
        "        if self._collectives.is_chief:\n            run_directory.write_options",
    ),
    Break(
        "nothing lost",
        "where a command ends is taken for the step of an evaluation",
        ("tests/cli/test_lengths.py",),
        "engine/trainer/triggers.py",
        "        return step % self.evaluate_every == 0",
        "        return step % self.evaluate_every == 0 or step == self.total_steps",
    ),
    Break(
        "L5",
        "the state of the plateau schedule is not in the checkpoint",
        ("tests/cli/test_stopping.py",),
        "engine/core/state.py",
        "self.plateau = plateau",
        "self._plateau = [lambda: plateau]",
    ),
    Break(
        "nothing lost",
        "a checkpoint to keep is replaced by a later one in the queue",
        ("tests/unit/test_keeping.py",),
        "engine/checkpoint/manager.py",
        "replaceable = soon and not (best or kept)",
        "replaceable = soon and not best",
    ),
    Break(
        "nothing lost",
        "a run that ended by time is taken for complete",
        ("tests/cli/test_stopping.py",),
        "engine/assembly/run_directory.py",
        'if result.get("stopped_by") == "max_hours":',
        'if result.get("stopped_by") == "nothing":',
    ),
    Break(
        "nothing lost",
        "the metrics of training are of the epoch and not since the last evaluation",
        ("tests/cli/test_evaluation.py",),
        "engine/trainer/evaluator.py",
        "        state.sums.assign(tf.zeros_like(state.sums))\n",
        "        if step % self._triggers.steps_per_epoch == 0:\n"
        "            state.sums.assign(tf.zeros_like(state.sums))\n",
    ),
    Break(
        "nothing lost",
        "the rows of a command's end inside an epoch stay when it is lengthened",
        ("tests/cli/test_lengths.py",),
        "engine/trainer/restoration.py",
        "int(self._state.last_logged_step), int(self._state.last_evaluation_step)",
        "int(self._state.step), int(self._state.step)",
    ),
    Break(
        "nothing lost",
        "a length that the run is past is accepted",
        ("tests/unit/test_run_directory.py",),
        "engine/assembly/run_directory.py",
        "    if new < step:",
        "    if False:",
    ),
    Break(
        "nothing lost",
        "a finished run does its end again",
        ("tests/cli/test_finished.py",),
        "tapeline/command.py",
        "if message := run_directory.finished(config):",
        "if message := ():",
    ),
    Break(
        "nothing lost",
        "a bad step is not rolled back",
        _LEFT_OUT,
        "engine/trainer/bad_steps.py",
        "if self._in_a_row > self._most_in_a_row or self._bad > self._most_bad:",
        "if False:",
    ),
    Break(
        "nothing lost",
        "sound steps are left out once the loss is near 0",
        _GUARD,
        "engine/trainer/bad_steps.py",
        "            _OF_FALL * (self._start - median),\n",
        "",
    ),
    Break(
        "nothing lost",
        "a resumed run takes another loss for that at the start",
        _GUARD,
        "engine/trainer/bad_steps.py",
        "            self._watch.initial_loss.assign(as_float64(self._start))\n",
        "",
    ),
    Break(
        "nothing lost",
        "a resumed run forgets how long gradients were",
        _GUARD,
        "engine/trainer/bad_steps.py",
        "            self._watch.norms.assign(_padded(self._norms, LARGEST_NORMS))\n",
        "",
    ),
    Break(
        "nothing lost",
        "a step that is left out is taken after all",
        _LEFT_OUT,
        "engine/trainer/bad_steps.py",
        "return min((each - step for each in self.left_out if each >= step), default=1 << 62)",
        "return 1 << 62",
    ),
    Break(
        "nothing lost",
        "other data are not noticed",
        _LEFT_OUT,
        "engine/checkpoint/restore.py",
        'if not self._data.matches(DataIdentity(**contents.facts["data"])):',
        "if False:",
    ),
    Break(
        "nothing lost",
        "a mode gives up where a checkpoint is pruned before it is opened",
        ("tests/unit/test_catalog.py",),
        "engine/checkpoint/catalog.py",
        "            if path == previous:\n                raise",
        "            raise",
    ),
    Break(
        "nothing lost",
        "two processes write the same part of a file",
        ("tests/unit/test_atomic_files.py",),
        "engine/runtime/atomic_files.py",
        "if not lock(descriptor, temporary):",
        "if False:",
    ),
    Break(
        "nothing lost",
        "a signal that comes while workers agree is written over",
        ("tests/unit/test_signals.py",),
        "engine/runtime/signals.py",
        "        if agreed:  # a",
        "        if True:  # a",
    ),
    Break(
        "nothing lost",
        "a damaged program of the compilation cache is run",
        ("tests/cli/test_compilation_cache.py::test_damaged_files_are_left_out",),
        "pipelines/storage/cache.py",
        'if hashlib.sha256(content).hexdigest() == about["sha256"]:',
        "if about:",
    ),
    Break(
        "nothing lost",
        "the compilation cache takes a program of another processor",
        ("tests/cli/test_compilation_cache.py::test_key_of_another_machine",),
        "engine/trainer/compilation_cache.py",
        "_processor(), str(",
        "str(",
    ),
    # References
    Break(
        "references",
        "of equal maxima, the last gets the gradient of a max pool",
        ("tests/unit/test_max_pool.py",),
        "engine/models/max_pool.py",
        "better = best < part",
        "better = best <= part",
    ),
    Break(
        "references",
        "the gradients of overlapping max pools are added in another order",
        ("tests/unit/test_max_pool.py",),
        "engine/models/max_pool.py",
        "reversed(range(most))",
        "range(most)",
    ),
    Break(
        "references",
        "Lion's own beta is Adam's",
        _UPDATES,
        "engine/optim/lion.py",
        "def lion(beta_1: float, beta_2: float = 0.99,",
        "def lion(beta_1: float, beta_2: float = 0.999,",
    ),
    Break(
        "references",
        "Adam's correction is of the update before",
        _UPDATES,
        "engine/optim/base.py",
        "t = tf.cast(update + 1, tf.float64)",
        "t = tf.cast(tf.maximum(update, 1), tf.float64)",
    ),
    Break(
        "references",
        "biases decay",
        _UPDATES,
        "engine/optim/base.py",
        "filter(self.decays, variables)",
        "variables",
    ),
    Break(
        "references",
        "the schedule is a step late",
        _LOOP,
        "engine/core/step.py",
        "learning_rate = self.schedule(context.step, context.factor)",
        "learning_rate = self.schedule(tf.maximum(context.step - 1, 0))",
    ),
    Break(
        "references",
        "one cycle ends at another rate",
        _RATES,
        "engine/optim/schedules.py",
        "down = _cosine(1.0, 1 / 250_000,",
        "down = _cosine(1.0, 1 / 10_000,",
    ),
    Break(
        "references",
        "warmup begins at 0",
        _RATES,
        "engine/optim/schedules.py",
        "rising = self.learning_rate * tf.cast(step + 1, tf.float64)",
        "rising = self.learning_rate * tf.cast(step, tf.float64)",
    ),
    Break(
        "references",
        "a short gradient is stretched to the norm that is allowed",
        _LOOP,
        "engine/optim/clipping.py",
        "factor = self.norm / tf.maximum(clipped_norm, self.norm)",
        "factor = self.norm / clipped_norm",
    ),
    Break(
        "references",
        "averaged weights are rounded at each addition",
        ("tests/unit/test_averaging.py::test_average_matches_numpy",),
        "engine/checkpoint/averaging.py",
        "sums[name] = np.zeros(array.shape)",
        "sums[name] = np.zeros(array.shape, np.float32)",
    ),
    Break(
        "references",
        "the statistics of averaged weights are moved, not made again",
        ("tests/unit/test_statistics_pass.py::test_batch_norm_matches_numpy",),
        "engine/core/statistics_pass.py",
        "each if id(each.variable) in moved else each._replace(value=each.batch)",
        "each",
    ),
    Break(
        "references",
        "the momentum of a user's moving average is not found",
        ("tests/unit/test_statistics_pass.py::test_all_statistics_match_calls_of_the_model",),
        "engine/core/statistics_pass.py",
        "return momentum if moving else 0.0",
        "return 0.0",
    ),
    Break(
        "references",
        "averages follow from the first step at their last pace",
        _LOOP,
        "engine/optim/ema.py",
        "current_decay = tf.minimum(tf.constant(decay, tf.float64), (1.0 + t) / (10.0 + t))",
        "current_decay = tf.constant(decay, tf.float64) + 0.0 * t",
    ),
    # Golden
    Break(
        "golden",
        "first weights are a thousandth wider",
        _GOLDEN,
        "engine/models/base.py",
        "limit = math.sqrt(6 / (",
        "limit = math.sqrt(6.012 / (",
    ),
    Break(
        "golden",
        "images are divided by 256",
        _GOLDEN,
        "pipelines/preprocessing.py",
        "tf.cast(values, tf.float32) / 255.0",
        "tf.cast(values, tf.float32) / 256.0",
    ),
    Break(
        "golden",
        "Adam's default epsilon is another one",
        _GOLDEN,
        "engine/optim/options.py",
        "        1e-7,\n",
        "        1e-6,\n",
    ),
    Break(
        "golden",
        "a seed means another order",
        _GOLDEN,
        "pipelines/order.py",
        "np.random.SeedSequence([seed, epoch])",
        "np.random.SeedSequence([epoch, seed + 1])",
    ),
)

"""Expected memory of a step by its rows, what fits in memory, and what a lack of it says."""

from __future__ import annotations

import dataclasses

import hypothesis.strategies as st
import pytest
import tensorflow as tf
from hypothesis import given

from engine.assembly import device_memory, out_of_memory
from engine.assembly.device_memory import BatchDivision, StepMemory, data_fits, rows_that_fit
from engine.assembly.out_of_memory import Usage, evaluation_advice, training_advice
from engine.assembly.parts import assemble
from engine.config import flags
from engine.runtime.errors import EvaluationError, StepError, is_out_of_memory
from pipelines import choose_feed

MIB, GIB = 1 << 20, 1 << 30
USAGE = Usage(
    limit=10 * GIB, weights=GIB, slots=2 * GIB, ema=0, data=0, step=StepMemory(GIB, 64.0 * MIB)
)


@pytest.mark.parametrize(
    ("limit", "resident", "step", "rows", "fit"),
    [
        (None, 0, StepMemory(0, 1), 128, 64),  # no limit is known: half
        (10 * GIB, 0, None, 128, 64),  # nor is the step
        (10 * GIB, 0, StepMemory(GIB, 256 * MIB), 128, 32),  # (9 GiB - 1 GiB) / 256 MiB
        (10 * GIB, 4 * GIB, StepMemory(GIB, 256 * MIB), 128, 16),
        (10 * GIB, 0, StepMemory(GIB, MIB), 128, 64),  # more than expected did not fit
        (10 * GIB, 0, StepMemory(GIB, 0), 128, 64),
        (10 * GIB, 8 * GIB, StepMemory(GIB, 1), 128, 0),  # what is fixed does not fit
        (10 * GIB, 0, StepMemory(GIB, 9 * GIB), 128, 0),
        (None, 0, None, 1, 0),
    ],
)
def test_rows_that_fit(limit, resident, step, rows, fit):
    assert rows_that_fit(limit, resident, step, rows) == fit


@given(st.integers(1, 4096), st.integers(1, 8), st.sampled_from([1, 2, 3, 8]), st.integers(0, 4096))
def test_advised_batch_fits(batch, accumulate, shards, rows):
    """Whatever is advised has at most the rows that fit, fewer than now, and an example a shard."""
    division = BatchDivision(batch, accumulate, shards)
    if (count := division.accumulate_for(rows)) is not None:
        assert count > accumulate and division.rows(count) <= rows
        assert count * shards <= batch
    smaller = division.batch_for(rows)
    assert 0 <= smaller < batch
    if smaller:
        assert BatchDivision(smaller, accumulate, shards).rows() <= rows


def test_advice_for_training():
    said = training_advice(BatchDivision(512, 1, 2), USAGE, trained=False)
    # (9 - 3 - 1) GiB / 64 MiB = 80 rows: 256 / 4 = 64.
    assert said == (
        "256 rows at a time take about 20 GiB of 10 GiB (weights 1 GiB, optimizer 2 GiB, "
        "activations and gradients 17 GiB); give --accumulate=4, which computes 64 rows at a time "
        "with the same mathematics, or --global_batch_size=160; no step was lost: run the same "
        "command with one of these"
    )
    usage = USAGE._replace(data=2 * GIB)
    said = training_advice(BatchDivision(512, 1, 2), usage, trained=True, statistics=True)
    assert "data 2 GiB" in said and "--accumulate=8, which computes 32 rows" in said
    assert "but batch norm sees its micro-batch" in said
    assert "--feed=stream frees 2 GiB and changes no result" in said
    assert said.endswith("or with --feed=stream, and another batch is another --run_dir")
    said = training_advice(BatchDivision(2, 1, 2), USAGE, trained=False)
    assert "a single row does not fit" in said and "--accumulate" not in said
    # More micro-batches would leave shards without an example.
    said = training_advice(BatchDivision(7, 1, 4), USAGE, trained=False)
    assert "give --global_batch_size=4; " in said and "--accumulate" not in said


def test_advice_for_evaluation():
    said = evaluation_advice(512, 2, USAGE._replace(data=GIB))
    assert "give --evaluation_batch_size=128, which changes no result" in said  # 4 GiB / 64 MiB
    assert "--feed=stream frees 1 GiB" in said
    said = evaluation_advice(512, 2, USAGE._replace(limit=2 * GIB))
    assert "a single row does not fit" in said and "--evaluation_batch_size" not in said


def test_data_beside_a_step():
    def step():
        return StepMemory(GIB, MIB)

    def unknown():
        return None

    def never():
        raise AssertionError("a step was traced in vain")

    assert data_fits(50 * GIB, never, 64, None)  # the CPU, or a GPU that does not tell
    assert data_fits(GIB, never, 64, 64 * GIB)  # a negligible part
    assert data_fits(2 * GIB, step, 1024, 5 * GIB)  # 2 + 1 + 1 of 4.5 GiB
    assert not data_fits(2 * GIB, step, 2048, 5 * GIB)
    assert data_fits(GIB, unknown, 64, 4 * GIB) and not data_fits(GIB + 1, unknown, 64, 4 * GIB)
    assert not data_fits(1, step, 64, 0)


def config(cache_dir, *options):
    small = ("--model=mlp", "--hidden=32", "--validation_split=0.1", "--progress=off")
    return flags.parse([*small, f"--cache_dir={cache_dir}", *options])


@pytest.mark.parametrize(
    "options",
    ["--augment=mixup", "--virtual_devices=2", "--virtual_devices=2 --shards=4", "--ema=0.9"],
)
def test_memory_grows_with_rows(cache_dir, options):
    """The expected memory of a step has a part for each row, on one replica and on two."""
    parts = assemble(config(cache_dir, *options.split()))
    memory = {
        rows: device_memory.training_memory(parts.loop.step, parts.source, rows, "mixup" in options)
        for rows in (1, 64, 256)
    }
    parts.close()
    assert all(memory.values())
    # At least the gradient of the weights, and an example's inputs and hidden units as float32.
    weights = device_memory.module_bytes(parts.model)
    assert memory[256].fixed >= 0.9 * weights and memory[256].per_row >= 4 * (64 + 32)
    assert memory[64].of(64) <= memory[256].of(64) and memory[1].of(1) <= memory[256].of(1) + 1
    assert memory[256].of(128) < memory[256].of(256)


def test_step_that_cannot_be_traced(cache_dir):
    parts = assemble(config(cache_dir))
    parts.close()

    def compute(batch):
        raise TypeError("of a user's model")

    assert device_memory.step_memory(compute, parts.source, 8) is None


def test_automatic_feed_leaves_room(cache_dir, monkeypatch):
    """`--feed=auto` streams where the data and a step are more than the free memory of a GPU."""
    found = {}
    monkeypatch.setattr("engine.distributed.strategies.Devices.are_gpus", property(lambda _: True))
    for free in (None, GIB, MIB, 1):
        monkeypatch.setattr("engine.distributed.gpus.free_memory", lambda _, free=free: free)
        parts = assemble(config(cache_dir, "--jit=off"))
        found[free] = parts.feed_kind
        parts.close()
    # The digits are 0.12 MB; a step of 128 rows with its gradients takes less than 0.7 MB.
    assert found == {None: "resident", GIB: "resident", MIB: "resident", 1: "stream"}
    monkeypatch.setattr("engine.distributed.gpus.free_memory", lambda _: 1)
    parts = assemble(config(cache_dir, "--jit=off", "--feed=resident"))
    assert parts.feed_kind == "resident"  # as asked
    parts.close()


@pytest.mark.parametrize(("jit", "kept"), [("off", True), ("step", False)])
def test_old_values_of_an_update_on_a_gpu(cache_dir, monkeypatch, jit, kept):
    """Where the loop does not leave early, an update needs weights and slots twice."""
    monkeypatch.setattr("engine.distributed.strategies.Devices.are_gpus", property(lambda _: True))
    monkeypatch.setattr("engine.distributed.gpus.free_memory", lambda _: None)
    parts = assemble(config(cache_dir, f"--jit={jit}", "--model=mlp", "--optimizer=adam"))
    parts.close()
    state, loop = parts.state, parts.loop
    replaced = device_memory.replaced_bytes(state, early_exit=loop.early_exit, jit=loop.jit)
    weights = device_memory.module_bytes(state.model)
    assert 3 * weights <= replaced <= 3 * weights + 64 if kept else replaced == 0
    without = device_memory.training_memory(loop.step, parts.source, 8, False)
    memory = device_memory.training_memory(loop.step, parts.source, 8, False, replaced)
    assert memory.of(8) == without.of(8) + replaced


def test_room_is_looked_at_last(cache_dir):
    source = assemble(config(cache_dir)).source
    asked = []

    def fits(size):
        asked.append(size)
        return False

    assert choose_feed("auto", source, fits)[0] == "stream" and asked == [1797 * 68]
    assert choose_feed("resident", source, fits)[0] == "resident"
    huge = dataclasses.replace(
        source, decoded=(tf.TensorSpec((2000, 2000, 3), tf.uint8), source.decoded[1])
    )
    assert choose_feed("auto", huge, fits)[0] == "stream" and len(asked) == 1


def raised_from(error: Exception, cause: Exception) -> Exception:
    """Returns `error` as if it had been raised from `cause`."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("message", "lack"),
    [
        ("OOM when allocating tensor with shape[8] on GPU:0", True),
        ("Out of memory while trying to allocate 17179869184 bytes.", True),
        ("CUDA_ERROR_OUT_OF_MEMORY: out of memory", True),
        ("No space left on device", False),
        ("ZOOM", False),
    ],
)
def test_lack_of_memory_is_told_from_other_errors(message, lack):
    cause = tf.errors.ResourceExhaustedError(None, None, message)
    assert is_out_of_memory(raised_from(StepError("training failed", 3), cause)) == lack
    assert not is_out_of_memory(RuntimeError(message)) and not is_out_of_memory(None)


@pytest.mark.parametrize("replicas", [1, 2])
def test_explanation_of_a_run(cache_dir, tmp_path, replicas):
    """The batch that is advised is expected to fit within a device's limit."""
    parts = assemble(
        config(
            cache_dir,
            f"--run_dir={tmp_path}",
            *(("--virtual_devices=2",) if replicas == 2 else ()),
            "--global_batch_size=1024",
        )
    )
    parts.close()
    cause = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    step = device_memory.training_memory(parts.loop.step, parts.source, 1024 // replicas, False)
    state = device_memory.module_bytes(parts.model) + device_memory.module_bytes(
        parts.state.optimizer
    )
    room = int((parts.data_bytes + state + step.of(100)) / device_memory.USABLE)
    failed = raised_from(StepError("training failed after step 0: OOM", 0), cause)
    said = str(out_of_memory.explained(failed, parts, limit=room))
    rows = {1: (16, 64), 2: (8, 64)}[replicas]
    assert f"--accumulate={rows[0]}, which computes {rows[1]} rows at a time" in said, said
    failed = raised_from(EvaluationError("evaluation failed in batch 0: OOM", 144), cause)
    said = str(out_of_memory.explained(failed, parts, limit=GIB))
    assert f"{144 // replicas} rows at a time" in said and "--evaluation_batch_size=72," in said
    other = raised_from(StepError("training failed", 0), tf.errors.InternalError(None, None, "x"))
    assert out_of_memory.explained(other, parts) is None

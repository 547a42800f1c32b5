"""What `--jit=auto` chooses for a user's file, and that a run keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.assembly.compiled_step import KEY
from engine.checkpoint import checkpoint_file
from tests.cli.command import Warm
from tests.cli.user_task import HEAD, TASK

OPTIONS = ("--dataset=digits", "--global_batch_size=64", "--validation_split=0", "--test_split=")
NETWORKS = """import keras


@tl.model
def of_keras(inputs, outputs):
    layers = [keras.layers.Flatten(), keras.layers.Dense(16, "relu"), keras.layers.Dropout(0.2)]
    layers += [keras.layers.LayerNormalization(), keras.layers.Dense(outputs.shape[-1])]
    return tl.keras(keras.Sequential([keras.Input(inputs.shape), *layers]))

class Uncompiled(tl.models.Flatten):
    def __call__(self, x, context):
        x = super().__call__(tf.py_function(lambda x: x, [x], x.dtype), context)
        return tf.ensure_shape(x, [None, self.features])

@tl.model
def uncompiled(outputs):
    return [Uncompiled(), tl.models.Dense(outputs.shape[-1])]
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("user") / "my.py"
    path.write_text(f"{HEAD}{TASK}\n\n{NETWORKS}")
    return path


def trained(warm: Warm, run_dir: Path, file: Path, *options: str):
    named = f"--load={file}", "--task=mine", "--jit=auto", f"--cache_dir={run_dir.parent}/cache"
    return warm.train(run_dir, *OPTIONS, *named, *options)


def test_uncompilable_model(warm: Warm, tmp_path: Path, file: Path):
    """A layer with an operation that XLA cannot compile trains, and the operation is named."""
    run = trained(warm, tmp_path / "run", file, "--model=uncompiled", "--train_steps=2")
    assert run.result["jit"] == "off" and run.result["traces"] == {"train": 1}
    reason = "the step has the operation EagerPyFunc"
    assert run.result["jit_reason"] == reason
    assert f"--jit=auto: XLA compiles nothing: {reason}\n" in run.outcome.out


def test_older_run_keeps_its_choice(warm: Warm, tmp_path: Path, file: Path):
    """A run keeps its choice: one of this version, and one of a version that compiled nothing."""
    model = ("--model=of_keras", "--train_steps=4", "--checkpoint_every=2")
    run = trained(warm, tmp_path / "run", file, *model[:1], "--train_steps=2")
    assert run.result["jit"] == "loop" and run.result["traces"] == {"train": 1}
    resumed = trained(warm, tmp_path / "run", file, *model)
    whole = trained(warm, tmp_path / "whole", file, *model)
    assert resumed.result["jit"] == "loop"
    assert resumed.result["weights_sha256"] == whole.result["weights_sha256"]
    for path in (resumed.run_dir / "checkpoints").glob("*.npz"):
        metadata, arrays = checkpoint_file.read(str(path))
        checkpoint_file.write(str(path), {k: v for k, v in metadata.items() if k != KEY}, arrays)
    older = trained(warm, tmp_path / "run", file, "--model=of_keras", "--train_steps=6")
    assert older.result["jit"] == "off"
    assert older.result["jit_reason"].startswith("the run was started by a version")

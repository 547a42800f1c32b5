"""The trainings that the GPU benchmark measures, in full and in the size of a rehearsal.

This module imports only the standard library: the driver reads it, and does not import TensorFlow.
"""

from __future__ import annotations

from typing import Any, NamedTuple

LOADED = "benchmarks/gpu/networks.py"  # sources, task and networks, for --load


class GpuWorkload(NamedTuple):
    """A training that is the same for the engine, the loop by hand and Keras's `fit`.

    The optimizer is Adam with default settings.

    Attributes:
      name: name in the parts and tables.
      what: description.
      kind: "convolutional": the network of W1; "residual": a Keras model of images;
        "transformer": a `tf.Module` of token ids.
      precision: value of `--precision`.
      batch: examples of a step.
      source: name of the source in `LOADED`.
      data: arguments of the source.
      model: name of the network.
      arguments: arguments of the network.
      synthetic: whether the engine repeats one batch from device memory (`--benchmark_data`);
        otherwise it trains on all examples through the feed that `--feed=auto` chooses.
    """

    name: str
    what: str
    kind: str
    precision: str
    batch: int
    source: str
    data: dict[str, int]
    model: str
    arguments: dict[str, Any]
    synthetic: bool

    def options(self) -> list[str]:
        """Returns the command-line options of the engine's run."""
        task = []
        if self.kind == "transformer":
            task = ["--task=next_token", f"--task.vocabulary={self.data['vocabulary']}"]
        return [
            f"--load={LOADED}",
            f"--dataset={self.source}",
            *(f"--dataset.{name}={value}" for name, value in self.data.items()),
            *task,
            f"--model={self.model}",
            *(f"--model.{name}={value}" for name, value in self.arguments.items()),
            f"--global_batch_size={self.batch}",
            f"--precision={self.precision}",
            "--optimizer=adam",
            "--learning_rate=0.001",
            "--validation_split=0",
            "--test_split=",
            "--epochs=1000000",
            f"--benchmark_data={'synthetic' if self.synthetic else 'real'}",
            "--progress=off",
        ]


def _workloads(*each: GpuWorkload) -> dict[str, GpuWorkload]:
    return {workload.name: workload for workload in each}


FULL = _workloads(
    GpuWorkload(
        "W1",
        "two convolutions and two max pools on 28x28 images, batch 128",
        "convolutional",
        "float32",
        128,
        "random_pictures",
        {"side": 28, "channels": 1, "classes": 10, "examples": 59_904},
        "seed_003",
        {},
        False,
    ),
    GpuWorkload(
        "resnet50",
        "Keras's ResNet-50 at 224x224, batch 256",
        "residual",
        "mixed_bfloat16",
        256,
        "random_pictures",
        {"side": 224, "channels": 3, "classes": 1000, "examples": 2048},
        "residual_network",
        {"network": "ResNet50"},
        True,
    ),
    GpuWorkload(
        "gpt2",
        "GPT-2 small, context 1,024, batch 8",
        "transformer",
        "mixed_bfloat16",
        8,
        "random_tokens",
        {"context": 1024, "vocabulary": 50_304, "examples": 4096},
        "gpt2",
        {"vocabulary": 50_304, "depth": 12, "units": 768, "heads": 12},
        True,
    ),
)
REHEARSED = _workloads(
    FULL["W1"]._replace(
        what="the network of W1, batch 8",
        batch=8,
        data={"side": 28, "channels": 1, "classes": 10, "examples": 64},
    ),
    FULL["resnet50"]._replace(
        what="a residual network of one block at 32x32, batch 4",
        batch=4,
        data={"side": 32, "channels": 3, "classes": 10, "examples": 16},
        arguments={"network": "tiny"},
    ),
    FULL["gpt2"]._replace(
        what="a transformer of 1 block, context 16, batch 2",
        batch=2,
        data={"context": 16, "vocabulary": 64, "examples": 8},
        arguments={"vocabulary": 64, "depth": 1, "units": 32, "heads": 2},
    ),
)

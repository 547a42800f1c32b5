"""Trains the network of recipes/cifar10_resnet20.flags in PyTorch, on the engine's batches.

    python torch_resnet20.py inputs.npz STEPS [bit]

inputs.npz is what `benchmarks.first_epochs_inputs` writes: images, initial weights, the order of
the examples of each epoch, and their crops and flips. The learning rate is constant, so STEPS are
within the first half of the recipe. Moving variances of PyTorch's batch norms are unbiased, those
of the engine biased: they differ by a factor of n / (n - 1), where n is 5,120 at least.
With the argument "bit", the last bit of the first weight is changed before the first step.

Prints one line of JSON: the loss of each step; for the end of each epoch, and the last step, the
number of steps and the test error in percent; the seconds from the first step to the last test;
the number of weights and moving statistics; and the version.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import torch
from torch.nn import functional

from benchmarks.moves import moved
from benchmarks.peers.real_torch import model_of
from benchmarks.real.specs import SPECS

BATCH, RATE, MOMENTUM, DECAY, PADDING = 128, 0.1, 0.9, 1e-4, 4
TESTED = 500  # test images in a batch


def assign(model: torch.nn.Module, arrays: np.lib.npyio.NpzFile) -> None:
    """Assigns the arrays `weight_000`, `weight_001`, ..., in the order of the layers."""
    names = sorted(name for name in arrays.files if name.startswith("weight_"))
    with torch.no_grad():
        for name, parameter in zip(names, model.parameters(), strict=True):
            value = torch.from_numpy(arrays[name])
            if value.dim() == 4:  # [height, width, inputs, outputs]
                value = value.permute(3, 2, 0, 1)
            elif value.dim() == 2:
                value = value.T
            if value.shape != parameter.shape:
                raise ValueError(f"{name}: {value.shape} instead of {parameter.shape}")
            parameter.copy_(value)


def main() -> None:
    """Trains and tests a model, and prints the result."""
    arrays, steps = np.load(sys.argv[1]), int(sys.argv[2])
    images, labels, orders, moves = (arrays[n] for n in ("images", "labels", "orders", "moves"))
    test_images, test_labels = arrays["test_images"], torch.from_numpy(arrays["test_labels"])
    mean, deviation = torch.from_numpy(arrays["mean"]), torch.from_numpy(arrays["deviation"])
    model = model_of(SPECS["W6"]).to(memory_format=torch.channels_last)
    assign(model, arrays)
    parameters = list(model.parameters())
    if sys.argv[3:] == ["bit"]:
        with torch.no_grad():
            parameters[0][0, 0, 0, 0].view(torch.int32).bitwise_xor_(1)
    optimizer = torch.optim.SGD(parameters, RATE, MOMENTUM, weight_decay=DECAY, fused=True)

    def logits(batch: np.ndarray) -> torch.Tensor:
        # [rows, height, width, channels], seen as channels_last
        scaled = (torch.from_numpy(batch).float() - mean) / deviation
        return model(scaled.permute(0, 3, 1, 2))

    def test_error() -> float:
        model.eval()
        right = 0
        with torch.no_grad():
            for start in range(0, len(test_images), TESTED):
                some = slice(start, start + TESTED)
                right += int((logits(test_images[some]).argmax(1) == test_labels[some]).sum())
        model.train()
        return 100 - 100 * right / len(test_images)

    losses, errors = [], []
    started = time.perf_counter()
    for order, moves_of_epoch in zip(orders, moves, strict=True):
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            batch = moved(images[rows], moves_of_epoch[start : start + BATCH], PADDING)
            loss = functional.cross_entropy(logits(batch), torch.from_numpy(labels[rows]))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
            if len(losses) == steps:
                break
        errors.append([len(losses), test_error()])
    found = {"losses": losses, "errors": errors, "seconds": time.perf_counter() - started}
    count = sum(each.numel() for each in model.state_dict().values() if each.dim())
    print(json.dumps(found | {"parameters": count, "versions": {"torch": torch.__version__}}))


if __name__ == "__main__":
    main()

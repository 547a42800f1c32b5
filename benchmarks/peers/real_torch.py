"""Serves W5 to W8 in PyTorch on the CPU as a benchmark contender.

    python real_torch.py W6 float32 '{"compile": false, "channels_last": true}'

compile: whether `torch.compile` compiles loss and gradient. channels_last: whether images and
kernels are `torch.channels_last`. bfloat16 is by autocast. With "check", prints the number of
parameters and the losses of that many steps; see benchmarks/real/check.py.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.real import arrays
from benchmarks.real.serving import checked, final_of
from benchmarks.real.specs import SPECS, Spec
from benchmarks.serve import serve
from benchmarks.torch_blocks import TransformerBlock

PADDING = 4


def _convolution(spec: Spec, inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    norm = nn.BatchNorm2d(outputs, eps=spec.epsilon, momentum=1 - spec.momentum)
    return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), norm]


class Residual(nn.Module):
    """A block of two convolutions; a shortcut of option A where the stride is 2."""

    def __init__(self, spec: Spec, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first = _convolution(spec, inputs, outputs, stride)
        second = _convolution(spec, outputs, outputs)
        self.branch = nn.Sequential(*first, nn.ReLU(), *second)
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [rows, inputs, side, side] to [rows, outputs, side / stride, side / stride]."""
        shortcut = x
        if self.stride > 1:
            shortcut = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.more))
        return functional.relu(shortcut + self.branch(x))


def _block(spec: Spec, causal: bool) -> TransformerBlock:
    sizes = spec.sizes["units"], spec.sizes["heads"]
    return TransformerBlock(*sizes, causal=causal, epsilon=spec.epsilon)


class Transformer(nn.Module):
    """W7's network; the embedding and the last layer share their weights."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        units, sizes = spec.sizes["units"], spec.sizes
        self.tokens = nn.Embedding(sizes["vocabulary"], units)
        self.positions = nn.Parameter(torch.zeros(sizes["context"], units))
        self.blocks = nn.Sequential(*(_block(spec, True) for _ in range(sizes["depth"])))
        self.norm = nn.LayerNorm(units, eps=spec.epsilon)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Returns the logits, [rows, tokens, vocabulary], of ids, int64 [rows, tokens]."""
        x = self.norm(self.blocks(self.tokens(ids) + self.positions))
        return functional.linear(x, self.tokens.weight)


class ViT(nn.Module):
    """W8's network, with a class token."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        units, sizes = spec.sizes["units"], spec.sizes
        many = (spec.image[0] // sizes["patch"]) ** 2
        self.patches = nn.Conv2d(spec.image[2], units, sizes["patch"], sizes["patch"])
        self.token = nn.Parameter(torch.zeros(units))
        self.positions = nn.Parameter(torch.zeros(many + 1, units))
        self.blocks = nn.Sequential(*(_block(spec, False) for _ in range(sizes["depth"])))
        self.norm = nn.LayerNorm(units, eps=spec.epsilon)
        self.head = nn.Linear(units, sizes["classes"])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the logits of images, [rows, channels, side, side]."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.to(x.dtype).expand(len(x), 1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x)[:, 0]))


def model_of(spec: Spec) -> nn.Module:
    """Returns the workload's network, with the weights of `arrays.initial`."""
    width = spec.sizes.get("width", 0)
    if spec.network == "plain":
        layers, inputs = [], spec.image[2]
        for place in range(6):
            outputs = width << place // 2
            layers += [*_convolution(spec, inputs, outputs), nn.ReLU()]
            layers += [nn.MaxPool2d(2)] if place % 2 else []
            inputs = outputs
        features = (spec.image[0] // 8) ** 2 * inputs
        model = nn.Sequential(*layers, Channels(), nn.Linear(features, spec.sizes["classes"]))
    elif spec.network == "resnet":
        layers, inputs = [*_convolution(spec, spec.image[2], width), nn.ReLU()], width
        for stage in range(3):
            for block in range(spec.sizes["blocks"]):
                outputs = width << stage
                layers.append(Residual(spec, inputs, outputs, 2 if stage and not block else 1))
                inputs = outputs
        pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        model = nn.Sequential(*layers, *pool, nn.Linear(inputs, spec.sizes["classes"]))
    else:
        model = {"transformer": Transformer, "vit": ViT}[spec.network](spec)
    _assign(spec, model)
    return model


class Channels(nn.Module):
    """Flattens images in the order height, width, channels, as the other contenders do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [rows, channels, height, width] to [rows, features]."""
        return x.permute(0, 2, 3, 1).flatten(1)


def _assign(spec: Spec, model: nn.Module) -> None:
    """Assigns the initial weights; the parameters of a network are in the order of its layers."""
    values = {name: torch.from_numpy(value) for name, value in arrays.initial(spec).items()}
    for name in [name for name in values if name.endswith("/query_bias")]:
        values[name] = torch.cat([values[name], torch.zeros_like(values[name]), values[name]])
        del values[name.replace("query", "value")]  # zeros, too
    named = dict(model.named_parameters())
    for first in ("tokens.weight", "patches.weight", "patches.bias", "token", "positions"):
        if first in named:  # parameters of a module come before those of its children
            named[first] = named.pop(first)
    order = [n for n in named if n.split(".")[0] in ("tokens", "patches", "token", "positions")]
    order += [name for name in named if name not in order]
    with torch.no_grad():
        for name, value in zip(order, values.values(), strict=True):
            if value.dim() == 4:
                value = value.permute(3, 2, 0, 1)
            elif value.dim() == 2 and name not in ("tokens.weight", "positions"):
                value = value.T
            named[name].copy_(value)


def optimizer_of(spec: Spec, model: nn.Module) -> torch.optim.Optimizer:
    """Returns PyTorch's fused optimizer, whose SGD adds the decay to the gradient."""
    settings, parameters = spec.settings, list(model.parameters())
    groups = [
        {
            "params": [p for p in parameters if p.dim() > 1],
            "weight_decay": settings.get("decay", 0),
        },
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    if spec.optimizer == "momentum":
        return torch.optim.SGD(groups, settings["rate"], settings["momentum"], fused=True)
    betas = 0.9, settings["beta_2"]
    return torch.optim.AdamW(groups, settings["rate"], betas, settings["epsilon"], fused=True)


def augmented(images: torch.Tensor) -> torch.Tensor:
    """Returns images, uint8 [rows, channels, side, side], padded, cropped and flipped at random."""
    rows, channels, side, _ = images.shape
    padded = functional.pad(images, (PADDING,) * 4)
    corner = torch.randint(0, 2 * PADDING + 1, (2, rows, 1))
    places = torch.arange(side)
    columns = torch.where(torch.rand(rows, 1) < 0.5, side - 1 - places, places) + corner[1]
    flat = ((corner[0] + places)[:, :, None] * (side + 2 * PADDING) + columns[:, None]).flatten(1)
    flat = flat[:, None].expand(rows, channels, side * side)
    return padded.flatten(2).gather(2, flat).view(images.shape)


def main() -> None:
    """Serves requests for training steps through benchmarks/serve.py."""
    spec, precision, variant = SPECS[sys.argv[1]], sys.argv[2], json.loads(sys.argv[3])
    inputs, targets = arrays.examples_of(spec)
    if spec.image:
        inputs = torch.from_numpy(inputs.transpose(0, 3, 1, 2).copy())
    else:
        inputs = torch.from_numpy(inputs.astype(np.int64))
    targets = torch.from_numpy(targets.astype(np.int64))
    torch.manual_seed(0)
    last_layout = variant["channels_last"] and spec.image
    layout = torch.channels_last if last_layout else torch.contiguous_format
    model = model_of(spec).to(memory_format=layout)
    optimizer = optimizer_of(spec, model)

    def loss_of(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        if spec.image:
            x = x.to(memory_format=layout).float().div_(255)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits = model(x)
        return functional.cross_entropy(logits.float().flatten(0, -2), y.flatten())

    compiled = torch.compile(loss_of) if variant["compile"] else loss_of
    checks = sys.argv[4:] and int(sys.argv[4])
    order = torch.arange(spec.examples) if checks else torch.randperm(spec.examples)
    at, last = 0, torch.zeros(())

    def take(steps: int) -> None:
        nonlocal at, order, last
        for _ in range(steps):
            if at + spec.batch > spec.examples:
                order, at = torch.randperm(spec.examples), 0
            rows = order[at : at + spec.batch]
            at += spec.batch
            x = inputs[rows]
            if spec.augment and not checks:
                x = augmented(x)
            optimizer.zero_grad(set_to_none=True)
            last = compiled(x, targets[rows])
            last.backward()
            if "clip" in spec.settings:
                nn.utils.clip_grad_norm_(model.parameters(), spec.settings["clip"])
            optimizer.step()

    if checks:
        checked(take, lambda: float(last), checks, sum(p.numel() for p in model.parameters()))
        return
    take(3)
    serve(take, {"torch": torch.__version__}, lambda: final_of(float(last)))


if __name__ == "__main__":
    main()

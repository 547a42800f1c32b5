"""Examples and initial weights of W5 to W8, the same for all contenders, by NumPy alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.real.specs import SEED, Spec

_FOLLOWERS = 4  # characters that can follow another one


def examples_of(spec: Spec) -> tuple[np.ndarray, np.ndarray]:
    """Returns the inputs and targets of all examples of a workload, which a network can learn.

    Images are uint8 [n, height, width, channels], a picture of their class with noise; labels are
    int32 [n]. Characters are uint8 [n, context], of a random chain in which four characters can
    follow each; their targets are the next characters.
    """
    random = np.random.default_rng(SEED)
    if spec.network == "transformer":
        followers = random.integers(0, spec.sizes["vocabulary"], (spec.sizes["vocabulary"], 4))
        text = np.empty([spec.examples, spec.sizes["context"] + 1], np.uint8)
        text[:, 0] = random.integers(0, spec.sizes["vocabulary"], spec.examples)
        for place in range(1, text.shape[1]):
            chosen = random.integers(0, _FOLLOWERS, spec.examples)
            text[:, place] = followers[text[:, place - 1], chosen]
        return np.ascontiguousarray(text[:, :-1]), np.ascontiguousarray(text[:, 1:])
    labels = random.integers(0, spec.sizes["classes"], spec.examples, np.int32)
    pictures = random.integers(0, 128, (spec.sizes["classes"], *spec.image), np.uint8)
    images = random.integers(0, 128, (spec.examples, *spec.image), np.uint8)
    return images + pictures[labels], labels


def initial(spec: Spec) -> dict[str, np.ndarray]:
    """Returns the initial weights of a workload's network, float32, in the order of the layers.

    Kernels are [..., inputs, outputs]: He-normal before a ReLU, else normal with deviation 0.02
    (0.02 / sqrt(2 * depth) for layers that add to the residual stream). An attention has one
    kernel of query, key and value, and no bias of the key, which the softmax would cancel.
    """
    random = np.random.default_rng(SEED + 1)
    made: dict[str, np.ndarray] = {}
    depth = spec.sizes.get("depth", 0)
    for name, shape in shapes(spec):
        kind = name.rpartition("/")[2]
        if kind in ("bias", "offset", "query_bias", "value_bias"):
            made[name] = np.zeros(shape, np.float32)
        elif kind == "scale":
            made[name] = np.ones(shape, np.float32)
        else:
            deviation = 0.02
            if not depth:
                deviation = np.sqrt(2 / np.prod(shape[:-1]))
            elif "/output/" in name or "/contract/" in name:
                deviation /= np.sqrt(2 * depth)
            made[name] = (random.standard_normal(shape) * deviation).astype(np.float32)
    return made


def shapes(spec: Spec) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields name and shape of each trainable weight, in the order of the layers."""
    sizes = spec.sizes
    if spec.network == "plain":
        inputs, side = spec.image[2], spec.image[0]
        for place in range(6):
            outputs = sizes["width"] << place // 2
            yield from _normed(f"{place}", 3, inputs, outputs)
            inputs = outputs
        yield from _dense("head", (side // 8) ** 2 * inputs, sizes["classes"])
    elif spec.network == "resnet":
        inputs = sizes["width"]
        yield from _normed("stem", 3, spec.image[2], inputs)
        for stage in range(3):
            for block in range(sizes["blocks"]):
                outputs = sizes["width"] << stage
                yield from _normed(f"{stage}.{block}.0", 3, inputs, outputs)
                yield from _normed(f"{stage}.{block}.1", 3, outputs, outputs)
                inputs = outputs
        yield from _dense("head", inputs, sizes["classes"])
    else:
        units = sizes["units"]
        if spec.network == "transformer":
            yield "tokens/table", (sizes["vocabulary"], units)
            yield "positions/table", (sizes["context"], units)
        else:
            patch, tokens = sizes["patch"], (spec.image[0] // sizes["patch"]) ** 2
            yield "patches/kernel", (patch, patch, spec.image[2], units)
            yield "patches/bias", (units,)
            yield "class/token", (units,)
            yield "positions/table", (tokens + 1, units)
        for block in range(sizes["depth"]):
            yield from _block(f"{block}", units)
        yield from _scaled("norm", units)
        if spec.network == "vit":
            yield from _dense("head", units, sizes["classes"])


def _block(name: str, units: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _scaled(f"{name}/norm_1", units)
    yield f"{name}/attention/kernel", (units, 3 * units)
    yield f"{name}/attention/query_bias", (units,)
    yield f"{name}/attention/value_bias", (units,)
    yield from _dense(f"{name}/output", units, units)
    yield from _scaled(f"{name}/norm_2", units)
    yield from _dense(f"{name}/expand", units, 4 * units)
    yield from _dense(f"{name}/contract", 4 * units, units)


def _dense(name: str, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}/kernel", (inputs, outputs)
    yield f"{name}/bias", (outputs,)


def _scaled(name: str, units: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}/scale", (units,)
    yield f"{name}/offset", (units,)


def _normed(name: str, size: int, inputs: int, outputs: int) -> Iterator[tuple[str, tuple]]:
    yield f"{name}/kernel", (size, size, inputs, outputs)
    yield from _scaled(f"{name}", outputs)

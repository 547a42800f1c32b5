"""The workloads W5 to W8 that all contenders train.

This module imports only the standard library, because each contender has its own environment.
"""

from __future__ import annotations

from typing import NamedTuple

PRECISIONS = ("float32", "bfloat16")
SEED = 0


class Spec(NamedTuple):
    """A training that is the same for all contenders.

    Weights, optimizer and loss are float32. In bfloat16, products, convolutions and activations are
    bfloat16; sums of norms and softmaxes are float32.

    Attributes:
      name: short name, such as W5.
      what: description.
      network: "plain", "resnet", "transformer" or "vit"; see `benchmarks.real.arrays.initial`.
      batch: examples of a step.
      examples: examples of an epoch, a multiple of the batch size.
      image: height, width and channels of uint8 images, which are divided by 255; () for sequences
        of characters.
      sizes: sizes of the network.
      optimizer: "adam", "momentum" or "adamw".
      settings: the optimizer's "rate", "momentum", "beta_2", "epsilon", "decay" (decoupled, not of
        biases and norms) and "clip" (the maximum global norm of the gradient).
      augment: whether images are padded by 4, cropped at random and flipped at random.
      fused: whether the loop by hand takes TensorFlow's fused batch norm in float32, too.
    """

    name: str
    what: str
    network: str
    batch: int
    examples: int
    image: tuple[int, ...]
    sizes: dict[str, int]
    optimizer: str
    settings: dict[str, float]
    augment: bool = False
    fused: bool = False

    @property
    def momentum(self) -> float:
        """Decay of the moving averages of batch norm."""
        return 0.9 if self.network == "resnet" else 0.99

    @property
    def epsilon(self) -> float:
        """Number that norms add to the variance."""
        return {"plain": 1e-3, "resnet": 1e-5, "transformer": 1e-5, "vit": 1e-6}[self.network]

    def smaller(self, **sizes: int) -> Spec:
        """Returns the workload with other sizes of the network, and few examples, for a test.

        Args:
          **sizes: "batch", "examples", "side" of an image, and sizes of the network.
        """
        batch, examples = sizes.pop("batch"), sizes.pop("examples")
        side = sizes.pop("side", 0)
        image = (side, side, self.image[2]) if side else self.image
        return self._replace(
            batch=batch, examples=examples, image=image, sizes={**self.sizes, **sizes}
        )


SPECS = {
    each.name: each
    for each in (
        Spec(
            "W5",
            "six times convolution 3x3, batch norm, ReLU; batch 128 of 28x28x1, Adam",
            "plain",
            128,
            59_904,
            (28, 28, 1),
            {"width": 32, "classes": 10},
            "adam",
            {"rate": 1e-3, "beta_2": 0.999, "epsilon": 1e-7},
        ),
        Spec(
            "W6",
            "ResNet-20, batch 128 of 32x32x3 with crop and flip, SGD with momentum",
            "resnet",
            128,
            49_920,
            (32, 32, 3),
            {"width": 16, "blocks": 3, "classes": 10},
            "momentum",
            {"rate": 0.1, "momentum": 0.9, "decay": 1e-4},
            augment=True,
        ),
        Spec(
            "W7",
            "nanoGPT's network for CPUs: 4 layers, width 128, batch 12 of 64 characters, AdamW",
            "transformer",
            12,
            49_920,
            (),
            {"depth": 4, "heads": 4, "units": 128, "context": 64, "vocabulary": 65},
            "adamw",
            {"rate": 1e-3, "beta_2": 0.99, "epsilon": 1e-8, "decay": 0.1, "clip": 1.0},
        ),
        Spec(
            "W8",
            "ViT Ti with patches of 4x4, batch 64 of 32x32x3, AdamW",
            "vit",
            64,
            49_920,
            (32, 32, 3),
            {"depth": 12, "heads": 3, "units": 192, "patch": 4, "classes": 10},
            "adamw",
            {"rate": 1e-3, "beta_2": 0.999, "epsilon": 1e-8, "decay": 0.05},
        ),
    )
}


def options(spec: Spec, precision: str) -> list[str]:
    """Returns Tapeline's command-line options of a workload.

    Args:
      spec: what to train.
      precision: "float32" or "bfloat16".
    """
    named = {
        "rate": "learning_rate",
        "momentum": "momentum",
        "beta_2": "beta_2",
        "epsilon": "epsilon",
        "decay": "weight_decay",
        "clip": "clip_norm",
    }
    made = ["--load=benchmarks/real/engine_networks.py", *_network(spec)]
    made += [f"--optimizer={spec.optimizer}", f"--global_batch_size={spec.batch}"]
    made += [f"--{named[name]}={value:g}" for name, value in spec.settings.items()]
    if precision == "bfloat16":
        made.append("--precision=mixed_bfloat16")
    if spec.augment:
        made.append("--augment=crop:4:zeros,flip")
    if spec.network == "transformer":
        made.append("--task=next_character")
    return made


def _network(spec: Spec) -> list[str]:
    """Returns the options of the network of a workload."""
    sizes = spec.sizes
    if spec.network == "plain":
        return ["--model=real_plain", f"--model.width={sizes['width']}"]
    if spec.network == "resnet":
        return ["--model=resnet", f"--model.depth={6 * sizes['blocks'] + 2}"]
    if spec.network == "vit":
        return ["--model=vit", "--model.size=Ti", f"--model.patch={sizes['patch']}"]
    named = {"layers": sizes["depth"], "heads": sizes["heads"], "width": sizes["units"]}
    return ["--model=transformer", *(f"--model.{name}={size}" for name, size in named.items())]

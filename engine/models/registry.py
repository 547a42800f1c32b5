"""Registry of networks by the names that `--model` accepts.

The factory of a network has any of the parameters `inputs` and `outputs`, nests of specs
(`tf.TensorSpec`) of the inputs and outputs of an example without the batch axis, and `hidden`, the
numbers of units of the hidden layers. It returns a list of new layers at each call, or a
`tf.Module` that is called with inputs [rows, ...] and a `ForwardContext`::

    @NETWORKS.register
    def linear(outputs):
        return [Flatten(), Dense(outputs.shape[-1])]

Other keyword-only parameters of a factory become flags, such as `--model.depth`, if a user
registers it or it is one of `engine.models.networks.factories`. This module does not import
TensorFlow, so that the names are known before TensorFlow is imported.
"""

from __future__ import annotations

from engine.config.registry import Registry

DENSE = ("logistic", "mlp")  # built-in networks with dense layers only
_CONVOLUTIONAL = (
    *("cnn", "resnet", "airbench", "speedrun"),
    *(f"seed_{number:03}" for number in range(5)),
)
_OF_DIGITS = ("logistic", "mlp", "cnn", "speedrun", *(f"seed_{n:03}" for n in range(5)))
_FAMILIES = ("resnet", "airbench", "vit", "transformer")

NETWORKS = Registry(
    "model",
    {
        **{name: f"engine.models.networks.digits:{name}" for name in _OF_DIGITS},
        **{name: f"engine.models.networks.factories:{name}" for name in _FAMILIES},
    },
    passed=("inputs", "outputs", "hidden"),
    with_flags=_FAMILIES,
)


def kind(model: str) -> str:
    """Returns the kind of a network by its name, by which options are chosen automatically.

    The kinds are "dense" and "convolutional", the names "vit" and "transformer" of the networks of
    a kind of their own, and "unknown" of a network that a user registers.
    """
    if model in DENSE:
        return "dense"
    if model in _CONVOLUTIONAL:
        return "convolutional"
    return model if model in _FAMILIES else "unknown"

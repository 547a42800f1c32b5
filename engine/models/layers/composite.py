"""Layers that consist of lists of layers: residual blocks and concatenated branches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import tensorflow as tf

from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.batch_norm import BatchNorm
from engine.models.layers.activation import Activation
from engine.models.layers.checks import called
from engine.models.layers.dense import Flatten
from engine.models.layers.pooling import MaxPool


class Part(NamedTuple):
    """Named list of layers inside a composite layer, such as the branch of a residual block."""

    name: str  # for example "branch"; in the names of variables: "branch_0_dense/kernel"
    layers: Sequence[Layer]
    output_shapes: Sequence[Shape]  # of each layer, without the batch dimension


class Composite(Layer):
    """Base class of layers that apply lists of layers to their input.

    Each nested layer has separate variables, initial values and dropout masks. A subclass
    implements `_lists`, which returns the lists of layers by name.
    """

    def _lists(self) -> dict[str, Sequence[Layer]]:
        raise NotImplementedError

    @property
    def parts(self) -> list[Part]:
        """The lists of layers and each layer's output shape; available only after `build`."""
        lists = self._lists().items()
        return [
            Part(name, layers, [tuple(shape) for shape in shapes])
            for (name, layers), shapes in zip(lists, self._output_shapes, strict=True)
        ]

    def _build(self, input_shape: Shape, initializer: Initializer) -> list[Shape]:
        """Builds the layers of all lists; returns the output shape of each list, in order.

        The output shape of an empty list is `input_shape`. Raises ValueError if a layer is listed
        twice.
        """
        nested = with_nested(self)
        if len({id(layer) for layer in nested}) < len(nested):
            raise ValueError(
                f"{called(self, initializer)}: a layer is listed twice; make one object per layer"
            )
        self._output_shapes = [
            _build_list(layers, input_shape, initializer, name)
            for name, layers in self._lists().items()
        ]
        return [tuple([input_shape, *shapes][-1]) for shapes in self._output_shapes]

    def expect_norm(self) -> None:
        """Calls `expect_norm` of each list's last layer that is not a `Flatten` or `MaxPool`."""
        for layers in self._lists().values():
            last = next((x for x in reversed(layers) if not isinstance(x, Flatten | MaxPool)), None)
            if last is not None:
                last.expect_norm()


class Residual(Composite):
    """Residual block: the sum of a branch and a shortcut, both lists of layers.

    He et al., 2016, "Deep residual learning for image recognition". The branch and the shortcut get
    the same input, and their output shapes must agree. The shortcut, a layer or a list of layers,
    is the identity by default.

    Raises:
      ValueError: if the branch has no layer.
    """

    kind = "residual"

    def __init__(self, *layers: Layer, shortcut: Layer | Sequence[Layer] = ()):
        super().__init__()
        if not layers:
            raise ValueError("a residual needs a layer: give its branch, Residual(layer, ...)")
        self.branch, self.shortcut = _listed(layers), _listed(shortcut)

    def _lists(self) -> dict[str, Sequence[Layer]]:
        return {"branch": self.branch, "shortcut": self.shortcut}

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Builds the layers; returns the output shape, which branch and shortcut share.

        Raises:
          ValueError: if the output shapes of branch and shortcut differ, or a layer is listed twice
            or does not support its input shape.
        """
        branch, shortcut = self._build(input_shape, initializer)
        if branch != shortcut:
            raise ValueError(
                f"{called(self, initializer)} adds shape {branch} of the branch and {shortcut} of"
                " the shortcut: give it a shortcut=(layer, ...) with the branch's output shape"
            )
        return branch

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Returns branch(x) + shortcut(x), `[rows, *output_shape]`."""
        shortcut = apply(self.shortcut, x, context)
        return shortcut + apply(self.branch, x, context)


class Concatenate(Composite):
    """Concatenation of the outputs of branches on the last axis.

    A branch is a layer or a list of layers. All branches get the same input; an empty list is the
    identity. For example, `Concatenate([], [Convolution(8, padding="SAME")])` appends 8 channels to
    an image.

    Raises:
      ValueError: if there is no branch.
    """

    kind = "concatenate"

    def __init__(self, *branches: Layer | Sequence[Layer]):
        super().__init__()
        if not branches:
            raise ValueError("a concatenate needs a branch: Concatenate([layer, ...], ...)")
        self.branches = [_listed(branch) for branch in branches]

    def _lists(self) -> dict[str, Sequence[Layer]]:
        return {f"branch{index}": layers for index, layers in enumerate(self.branches)}

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Builds the layers; returns the output shape, (..., sum of the branches' channels).

        Raises:
          ValueError: if the output shapes of the branches differ in another side than the last or
            have no sides, or if a layer is listed twice or does not support its input shape.
        """
        shapes = self._build(input_shape, initializer)
        if not all(shapes) or len({shape[:-1] for shape in shapes}) > 1:
            raise ValueError(
                f"{called(self, initializer)} joins shapes {', '.join(map(str, shapes))} on the"
                " last axis: the other sides must agree"
            )
        return (*shapes[0][:-1], sum(shape[-1] for shape in shapes))

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Applies all branches to `x`; returns [rows, ..., sum of the branches' channels]."""
        return tf.concat([apply(layers, x, context) for layers in self.branches], -1)


def _listed(layers: Layer | Iterable[Layer]) -> list[Layer]:
    return [layers] if isinstance(layers, Layer) else list(layers)


def with_nested(layer: Layer) -> list[Layer]:
    """Returns a layer and all layers inside it, depth first; duplicates are kept."""
    parts = layer._lists().values() if isinstance(layer, Composite) else ()
    return [layer, *(each for layers in parts for inner in layers for each in with_nested(inner))]


def _build_list(
    layers: Sequence[Layer], input_shape: Shape, initializer: Initializer, name: str
) -> list[Shape]:
    """Builds layers that are applied one after the other; returns the output shape of each."""
    shapes = [input_shape]
    for index, layer in enumerate(layers):
        following = (x for x in layers[index + 1 :] if not isinstance(x, Flatten | MaxPool))
        if isinstance(next(following, None), BatchNorm):
            layer.expect_norm()
        if isinstance(layer, Activation) and isinstance(layers[max(index - 1, 0)], BatchNorm):
            layer.follow_norm()
        shapes.append(layer.build(shapes[-1], initializer.nested(f"{name}_{index}", layer.kind)))
    return shapes[1:]


def apply(layers: Sequence[Layer], x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
    """Applies layers one after the other to `x`, [rows, ...]; returns the output of the last."""
    for layer in layers:
        with tf.name_scope(layer.name):
            x = layer(x, context)
    return x

"""Embeddings of integer ids and of positions in a sequence."""

from __future__ import annotations

import math

import tensorflow as tf

from engine.models import row_sums
from engine.models.base import ForwardContext, Initializer, Layer, Shape
from engine.models.layers.checks import at_least_one, called, one_of
from engine.models.layers.kernel import STDDEV

_FEW = 128  # ids up to which a product with them takes less time than a sum over segments
_INITIALIZERS = "truncated_normal", "normal"  # BERT's (Devlin et al. 2019), GPT-2's


class Embedding(Layer):
    """Layer that maps integer ids to vectors, with a learned vector for each id below `vocabulary`.

    Ids, of any integer dtype, are never cast to the compute dtype, which would round large ones.
    The vector of an id out of range is NaN, so that the step is skipped; on a CPU, `tf.gather`
    raises an error instead unless XLA compiles it. Padding rows may hold any ids.

    Args:
      vocabulary: number of ids; valid ids are 0 to `vocabulary` - 1.
      units: number of elements of each vector.
      initializer: distribution of the initial values, "truncated_normal" or "normal", of standard
        deviation 0.02.

    Raises:
      ValueError: if an argument is invalid.
    """

    kind = "embedding"

    def __init__(self, vocabulary: int, units: int, *, initializer: str = "truncated_normal"):
        super().__init__()
        self.initializer = one_of("initializer", initializer, _INITIALIZERS)
        self.vocabulary = at_least_one("the vocabulary of an embedding", vocabulary)
        self.units = at_least_one("the units of an embedding", units)

    @property
    def label(self) -> str:
        """Label of the layer, for example "embedding of 256 ids"."""
        return f"embedding of {self.vocabulary} ids"

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Creates the table [vocabulary, units]; returns the input shape followed by `units`."""
        shape = self.vocabulary, self.units
        self.table = getattr(initializer, self.initializer)("table", shape, STDDEV)
        return (*input_shape, self.units)

    def __call__(self, ids: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Maps integer ids [rows, ...] to their vectors, [rows, ..., units] in `context.dtype`.

        Raises:
          ValueError: if the ids are not integers.
          tf.errors.InvalidArgumentError: for an id out of range, on a CPU without XLA.
        """
        if not ids.dtype.is_integer:
            raise ValueError(
                f"{self.label} takes integer ids, got {ids.dtype.name}: give it the ids as they are"
                " in the data set, without scaling"
            )
        ids = tf.cast(ids, tf.int64)  # a GPU compares int32 on the host
        if context.padding_mask is not None:
            valid = tf.reshape(context.padding_mask > 0, [-1] + [1] * (ids.shape.rank - 1))
            ids = tf.where(valid, ids, tf.zeros_like(ids))
        table = tf.convert_to_tensor(self.table)
        of_product = context.compiled and self.vocabulary <= _FEW
        if of_product and not tf.config.list_logical_devices("GPU"):
            found = _few_rows_of(table, ids)
        else:
            found = _known(_rows_of(table, ids), ids, self.vocabulary)
        return tf.cast(found, context.dtype)


class PositionEmbedding(Layer):
    """Layer that adds a learned vector to each position (Devlin et al. 2019, "BERT").

    The inputs are sequences, [rows, tokens, units].

    Args:
      initializer: as in `Embedding`.

    Raises:
      ValueError: if `initializer` is not one of the known ones.
    """

    kind = "position embedding"

    def __init__(self, *, initializer: str = "truncated_normal"):
        super().__init__()
        self.initializer = one_of("initializer", initializer, _INITIALIZERS)

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Creates the table [tokens, units]; returns the output shape, which is the input shape.

        Raises:
          ValueError: if the inputs are not sequences.
        """
        if len(input_shape) < 2:
            raise ValueError(
                f"{called(self, initializer)} takes sequences (tokens, units), got shape"
                f" {input_shape}: put it after Embedding or Dense"
            )
        self.table = getattr(initializer, self.initializer)("table", input_shape, STDDEV)
        return input_shape

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Adds the table to each row of `x`, [rows, tokens, units]; returns the same shape."""
        if row_sums.needed(context):
            return _add_to_rows(x, tf.convert_to_tensor(self.table))
        return x + tf.cast(self.table, context.dtype)


class TiedOutput(Layer):
    """Output layer whose kernel is the table of an `Embedding` (Press and Wolf 2017).

    The logit of an id is the product of the inputs and the vector of the id. The layer has no
    variables of its own: the gradients of both uses of the table are added.

    Args:
      embedding: an embedding of the same network, which is built before.
    """

    kind = "tied output"
    # The table is a variable of the embedding alone.
    _TF_MODULE_IGNORED_PROPERTIES = tf.Module._TF_MODULE_IGNORED_PROPERTIES | {"_embedding"}

    def __init__(self, embedding: Embedding):
        super().__init__()
        self._embedding = embedding

    def build(self, input_shape: Shape, initializer: Initializer) -> Shape:
        """Returns the output shape, (..., vocabulary).

        Raises:
          ValueError: if the embedding is not built, or has another number of units.
        """
        table = getattr(self._embedding, "table", None)
        if table is None:
            raise ValueError(
                f"{called(self, initializer)} uses the table of an embedding that is not built: put"
                " the embedding before it"
            )
        if not input_shape or input_shape[-1] != table.shape[1]:
            raise ValueError(
                f"{called(self, initializer)} takes as many units as the embedding has,"
                f" {table.shape[1]}, got shape {input_shape}: put Dense({table.shape[1]}) before it"
            )
        self._axes = input_shape[:-1]
        return (*self._axes, table.shape[0])

    def __call__(self, x: tf.Tensor, context: ForwardContext) -> tf.Tensor:
        """Maps [rows, ..., units] to logits, [rows, ..., vocabulary] in `context.dtype`."""
        table = tf.cast(self._embedding.table, context.dtype)
        logits = tf.matmul(tf.reshape(x, [-1, table.shape[1]]), table, transpose_b=True)
        return tf.reshape(logits, [-1, *self._axes, table.shape[0]])


@tf.custom_gradient
def _add_to_rows(x, table):
    """Adds a float32 table to each row of `x` of 16 bits; its gradient is summed by `row_sums`."""
    return x + tf.cast(table, x.dtype), lambda upstream: (upstream, row_sums.sum_over(upstream, 1))


@tf.custom_gradient
def _rows_of(table, ids):
    """Returns the rows `ids` of a table; the gradient is dense and summed in a fixed order."""
    # `tf.gather` itself has a sparse gradient, which cannot be added up in a fixed order.
    vocabulary, units = table.shape

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        flat = tf.reshape(upstream, [-1, units])
        return tf.math.unsorted_segment_sum(flat, tf.reshape(ids, [-1]), vocabulary), None

    return tf.gather(table, ids), gradient


@tf.custom_gradient
def _few_rows_of(table, ids):
    """Returns the rows `ids` of a small table, or NaN; the gradient is a matrix product.

    XLA for CPUs computes all elementwise operations before a sum over segments a second time, for
    the next other use of their result, such as the gradient of a position embedding. It does not
    for a product, whose operands it keeps.
    """
    vocabulary, units = table.shape

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        chosen = tf.one_hot(tf.reshape(ids, [-1]), vocabulary, dtype=upstream.dtype)
        return tf.matmul(chosen, tf.reshape(upstream, [-1, units]), transpose_a=True), None

    return _known(tf.gather(table, ids), ids, vocabulary), gradient


def _known(rows: tf.Tensor, ids: tf.Tensor, vocabulary: int) -> tf.Tensor:
    """Returns `rows`, [..., units], with NaN in place of those of ids that are out of range."""
    known = (ids >= 0) & (ids < vocabulary)
    return tf.where(known[..., tf.newaxis], rows, math.nan)

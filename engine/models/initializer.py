"""Factory of the variables of layers, with their initial values."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

Shape = tuple[int, ...]  # without the batch dimension

# Standard deviation of a unit normal distribution that is truncated at -2 and 2.
_TRUNCATED_STDDEV = 0.87962566103423978


@dataclass(frozen=True)
class Initializer:
    """Factory of a layer's variables; random initial values are a pure function of (seed, index).

    Two kernels of the same shape and distribution from one initializer would be equal: create each
    kernel of a layer with a separate `nested` initializer.
    """

    seed: int
    index: int  # of the layer in its network, from 0; of a nested layer, a hash of its place
    kind: str  # type of the layer, as in the names of variables, "{index}_{kind}/{variable}"
    path: str = ""  # of a nested layer, its place: "3.branch_0"
    scope: str = ""  # of a nested layer, the part before the variable: "3_residual/branch_0_dense"

    @property
    def place(self) -> str:
        """Place of the layer in its network, for errors: "3", or "3.branch_0" if it is nested."""
        return self.path or str(self.index)

    def nested(self, place: str, kind: str) -> Initializer:
        """Returns the initializer of a layer that is nested in the layer of this initializer.

        The variables of the nested layer are named like "3_residual/branch_0_dense/kernel": by
        index and kind of the outermost layer, then by place and kind at each level of nesting. The
        `index` of the nested layer, which selects its initial values and dropout masks, is a hash
        of at least 2^62, so that it differs from the index of any layer that is not nested.

        Args:
          place: name that is unique among the layers nested in this layer, such as "branch_0".
          kind: type of the nested layer, such as "dense" (`Layer.kind`).
        """
        path = f"{self.place}.{place}"
        digest = hashlib.blake2b(path.encode(), digest_size=8).digest()
        index = 2**62 + int.from_bytes(digest, "little") % 2**62
        kind = kind.replace(" ", "_")
        return Initializer(self.seed, index, kind, path, f"{self._name(place)}_{kind}")

    def glorot_uniform(self, name: str, shape: Shape, groups: int = 1) -> tf.Variable:
        """Returns a trainable kernel with Glorot-uniform elements, float32 of `shape`.

        The elements are uniform in +-sqrt(6 / (fan_in + fan_out)), where a fan is the number of
        input or output channels times the spatial positions of the kernel (Glorot and Bengio 2010,
        "Understanding the difficulty of training deep feedforward neural networks").

        Args:
          name: name of the variable within the layer, such as "kernel".
          shape: [..., inputs, outputs]; the axes before these two are spatial.
          groups: number of groups of a grouped convolution. `inputs` are then the input channels of
            one group, each of which is connected to outputs / groups output channels.
        """
        fans = shape[-2] + shape[-1] // groups
        limit = math.sqrt(6 / (math.prod(shape[:-2]) * fans))
        return tf.Variable(self._uniform(shape, limit), name=self._name(name))

    def fan_in_uniform(self, name: str, shape: Shape) -> tf.Variable:
        """Returns a trainable kernel, float32 [..., inputs, outputs], uniform in +-1/sqrt(fan_in).

        `fan_in` is the number of input channels times the spatial positions. PyTorch initializes
        its linear layers and convolutions like this.
        """
        limit = 1 / math.sqrt(math.prod(shape[:-1]))
        return tf.Variable(self._uniform(shape, limit), name=self._name(name))

    def dirac(self, name: str, shape: Shape, groups: int = 1) -> tf.Variable:
        """Returns a trainable kernel whose first filters return their inputs, float32 of `shape`.

        Output k of a group is input k, as far as there are as many of both (Zagoruyko and Komodakis
        2017, "DiracNets"): with padding "SAME", the layer starts as an identity. Further outputs
        have filters as those of `fan_in_uniform`.

        Args:
          name: name of the variable within the layer.
          shape: [..., inputs, outputs]; the axes before these two are spatial.
          groups: as in `glorot_uniform`.
        """
        inputs, outputs = shape[-2], shape[-1] // groups
        places = [each * outputs + k for each in range(groups) for k in range(min(inputs, outputs))]
        identity = np.zeros(shape, np.float32)
        centre = tuple((side - 1) // 2 for side in shape[:-2])
        for place in places:
            identity[(*centre, place % outputs, place)] = 1
        chosen = np.isin(np.arange(shape[-1]), places)
        others = self._uniform(shape, 1 / math.sqrt(math.prod(shape[:-1])))
        return tf.Variable(tf.where(chosen, identity, others), name=self._name(name))

    def he_normal(self, name: str, shape: Shape) -> tf.Variable:
        """Returns a trainable kernel for a layer with a ReLU, float32 [..., inputs, outputs].

        The elements have the standard deviation sqrt(2 / fan_in), where `fan_in` is the number of
        input channels times the spatial positions (He et al. 2015, "Delving deep into rectifiers").
        As in Keras, they are drawn from a normal distribution that is truncated at two of its
        standard deviations.
        """
        stddev = math.sqrt(2 / math.prod(shape[:-1]))
        return self.truncated_normal(name, shape, stddev / _TRUNCATED_STDDEV)

    def he_normal_fan_out(self, name: str, shape: Shape) -> tf.Variable:
        """Returns a trainable kernel for a layer with a ReLU, float32 [..., inputs, outputs].

        The elements are normal with the standard deviation sqrt(2 / fan_out), where `fan_out` is
        the number of output channels times the spatial positions (He et al. 2015). torchvision
        initializes the convolutions of its ResNets like this.
        """
        return self.normal(name, shape, math.sqrt(2 / math.prod((*shape[:-2], shape[-1]))))

    def normal(self, name: str, shape: Shape, stddev: float) -> tf.Variable:
        """Returns a trainable float32 variable of normal random numbers of mean 0."""
        # In float64, as in `truncated_normal`. The draws include -1, whose quantile is infinite.
        with tf.device("CPU:0"):
            uniform = tf.random.stateless_uniform(
                shape, self._key(), -1, 1, dtype=tf.float64, alg="philox"
            )
            value = math.sqrt(2) * tf.math.erfinv(tf.maximum(uniform, 2.0**-52 - 1))
            value = tf.cast(value * stddev, tf.float32)
        return tf.Variable(value, name=self._name(name))

    def truncated_normal(self, name: str, shape: Shape, stddev: float) -> tf.Variable:
        """Returns a trainable float32 variable of truncated normal random numbers.

        The normal distribution is truncated at two standard deviations. `stddev` is the standard
        deviation before the truncation, which makes it 12% smaller. BERT (Devlin et al. 2019)
        initializes all its weights like this, with 0.02.
        """
        # The inverse of the distribution function at uniform numbers, in float64: rounding to
        # float32 hides differences in the last digits between the processors' kernels.
        with tf.device("CPU:0"):
            uniform = tf.random.stateless_uniform(
                shape, self._key(), -1, 1, dtype=tf.float64, alg="philox"
            )
            value = math.sqrt(2) * tf.math.erfinv(uniform * math.erf(math.sqrt(2)))
            value = tf.cast(tf.clip_by_value(value, -2, 2) * stddev, tf.float32)
        return tf.Variable(value, name=self._name(name))

    def zeros(self, name: str, shape: Shape) -> tf.Variable:
        """Returns a trainable float32 variable of zeros.

        If the last kernel of a residual branch is 0, the block returns the output of its shortcut
        before training. Goyal et al. 2017, "Accurate, large minibatch SGD", set the scale of the
        branch's last batch norm to 0 for this.
        """
        return self.constant(name, shape, 0.0)

    def constant(self, name: str, shape: Shape, value: float) -> tf.Variable:
        """Returns a trainable float32 variable whose elements all start at `value`."""
        return tf.Variable(tf.fill(shape, value), name=self._name(name))

    def frozen(self, name: str, shape: Shape) -> tf.Variable:
        """Returns a non-trainable float32 variable of zeros, which no training step updates.

        For weights that `initialize_from` computes; see `Sequential.initialize_from`.
        """
        return tf.Variable(tf.zeros(shape), name=self._name(name), trainable=False)

    def statistic(self, name: str, shape: Shape, value: float) -> tf.Variable:
        """Returns a non-trainable float32 variable, such as a moving mean, that starts at `value`.

        A layer does not assign this variable, but appends new values to `ForwardContext.updates`.
        """
        # All replicas assign the same all-reduced value, so that of the first replica is used.
        return tf.Variable(
            tf.fill(shape, value),
            name=self._name(name),
            trainable=False,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def _uniform(self, shape: Shape, limit: float) -> tf.Tensor:
        """Returns random numbers that are uniform in +-limit, float32 of `shape`."""
        # On the CPU, so that the weights are bitwise identical on any device; the caller's strategy
        # places the variable.
        with tf.device("CPU:0"):
            return tf.random.stateless_uniform(shape, self._key(), -limit, limit, alg="philox")

    def _key(self) -> tf.Tensor:
        return tf.constant([self.seed, self.index], tf.int64)

    def _name(self, variable: str) -> str:
        return f"{self.scope or f'{self.index}_{self.kind}'}/{variable}"

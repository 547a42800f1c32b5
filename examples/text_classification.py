"""Trains text classification: which of six Python modules a piece of 64 characters is from.

    python examples/text_classification.py --dataset=modules --model=text --epochs=5 \
        --learning_rate=0.003

25 s on two CPU cores; the test accuracy is 86%.
"""

import argparse
import doctest
import inspect
import pickle
import statistics
import tarfile
import typing

import numpy as np
import tensorflow as tf

import tapeline as tl

MODULES = (argparse, doctest, pickle, statistics, tarfile, typing)


@tl.source
def modules(*, length: int = 64):
    pieces, labels = [], []
    for label, module in enumerate(MODULES):
        text = np.frombuffer(inspect.getsource(module).encode("ascii", "replace"), np.uint8)
        pieces += np.split(text[: len(text) // length * length], len(text) // length)
        labels += [label] * (len(text) // length)
    names, inputs = [module.__name__ for module in MODULES], np.stack(pieces)
    return tl.arrays(inputs=inputs, targets=np.array(labels), test=0.2, class_names=names)


class Fives(tf.Module):
    """Text classifier: a convolution over 5 characters, its maximum over the text, a dense layer"""

    def __init__(self, classes, units, features):
        super().__init__("fives")
        initial = tf.initializers.GlorotUniform()
        self.embedding = tf.Variable(initial([128, units]))
        self.kernel = tf.Variable(initial([5, units, features]))
        self.dense = tf.Variable(initial([features, classes]))

    def __call__(self, texts, context):
        embedding, kernel, dense = (
            tf.cast(weights, context.dtype) for weights in (self.embedding, self.kernel, self.dense)
        )
        x = tf.nn.conv1d(tf.gather(embedding, tf.cast(texts, tf.int32)), kernel, 1, "VALID")
        return tf.nn.relu(tf.reduce_max(x, axis=1)) @ dense


@tl.model
def text(outputs, *, units: int = 32, features: int = 256):
    return tl.module(Fives(outputs.shape[0], units, features))


tl.main()

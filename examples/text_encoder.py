"""Trains a text encoder, a bidirectional transformer: from which Python module is a text?

    python examples/text_encoder.py --dataset=modules --model=encoder --epochs=3 \
        --learning_rate=0.002 --schedule=one_cycle

1 min on two CPU cores; the test accuracy is 63%.
"""

import argparse
import doctest
import inspect
import tarfile
import typing

import numpy as np

import tapeline as tl

MODULES = (argparse, doctest, tarfile, typing)
layers = tl.models


@tl.source
def modules(*, length: int = 64):
    pieces, labels = [], []
    for label, module in enumerate(MODULES):
        text = np.frombuffer(inspect.getsource(module).encode("ascii", "replace"), np.uint8)
        pieces += np.split(text[: len(text) // length * length], len(text) // length)
        labels += [label] * (len(text) // length)
    names, inputs = [module.__name__ for module in MODULES], np.stack(pieces)
    return tl.arrays(inputs=inputs, targets=np.array(labels), test=0.2, class_names=names)


@tl.model
def encoder(outputs, *, blocks: int = 2, width: int = 64, heads: int = 4, dropout: float = 0.1):
    return [
        *(layers.Embedding(128, width), layers.ClassToken(), layers.PositionEmbedding()),
        *(layers.TransformerBlock(width, heads, dropout=dropout) for _ in range(blocks)),
        *(layers.SelectToken(0), layers.LayerNorm(), layers.Dense(outputs.shape[0])),
    ]


tl.main()

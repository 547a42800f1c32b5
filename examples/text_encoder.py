"""Trains a text encoder, a bidirectional transformer: from which Python module is a text?

    python examples/text_encoder.py --dataset=modules --model=encoder --epochs=3 \
        --learning_rate=0.002 --schedule=one_cycle

The data set is that of text_classification.py, beside this file. 1 min on two CPU cores; the test
accuracy is 58%.
"""

import text_classification  # noqa: F401 - for its data set; its tl.main() does nothing here

import tapeline as tl

layers = tl.models


@tl.model
def encoder(outputs, *, blocks: int = 2, width: int = 64, heads: int = 4, dropout: float = 0.1):
    return [
        *(layers.Embedding(128, width), layers.ClassToken(), layers.PositionEmbedding()),
        *(layers.TransformerBlock(width, heads, dropout=dropout) for _ in range(blocks)),
        *(layers.SelectToken(0), layers.LayerNorm(), layers.Dense(outputs.shape[0])),
    ]


tl.main()

"""Tapeline's training engine: from batches of examples to a trained model.

To follow a run, read `config`, `trainer`, `core.state`, `core.step`, `core.loop` and
`core.evaluation`, in this order. Importing this package imports no heavy dependency, so that
invalid flags fail before TensorFlow is imported.
"""

__version__ = "0.4.0"

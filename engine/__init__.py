"""Tapeline's engine: batches in, a trained model out.

Read in the order a run happens: `config`, `trainer`, `state`, `step`, `loop`, `evaluate`.
Importing the package imports nothing heavy, so that bad flags fail before TensorFlow loads.
"""

__version__ = "0.4.0"

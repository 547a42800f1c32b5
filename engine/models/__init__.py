"""Networks by name: `tf.Module`s built from `tf.nn` operations.

A network is a list of layers. A layer has no side effects on variables: a `ForwardContext` holds
all inputs of a forward pass except the images and the weights, and collects the new values of
non-trainable variables in `updates`. A custom layer derives from `Layer` (`base.py`). The package
is independent of training: of `engine`, it imports `config` only, and it does not import
`pipelines`.
"""

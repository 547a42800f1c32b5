"""Networks by name, as `tf.Module`s on `tf.nn`.

A network is a list of layers. Layers are pure functions: a `ForwardContext` holds all inputs of a
forward pass except the images, and `ForwardContext.updates` collects the new values of variables.
A custom layer derives from `Layer` (`base.py`). The package is independent of training: of
`engine`, it imports `config` alone, and it does not import `pipelines`.
"""

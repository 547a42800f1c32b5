"""Networks by name: lists of layers, which are `tf.Module`s built from `tf.nn` operations.

A layer has no side effects on variables: `ForwardContext` holds all inputs of a forward pass except
the images and the weights, and collects the new values of non-trainable variables.
"""

"""Networks by name: lists of layers, which are `tf.Module`s built from `tf.nn` operations.

A layer assigns no variable: `ForwardContext` holds all that a forward pass depends on except the
images and the variables, and collects the new values of non-trainable variables.
"""

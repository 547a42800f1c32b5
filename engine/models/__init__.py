"""Networks by name, such as lists of layers: `tf.Module`s built from `tf.nn` operations.

A layer assigns no variable: `ForwardContext` holds all that a forward pass depends on except the
images and the variables, and collects the new values of non-trainable variables.
"""

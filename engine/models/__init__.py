"""Networks by name, layers built from `tf.nn` operations, and adapters of Keras models and modules.

A forward pass assigns no variable: `ForwardContext` holds everything that it depends on except the
inputs and the variables, and collects the new values of non-trainable variables.
"""

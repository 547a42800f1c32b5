"""Networks by name, layers built from `tf.nn` operations, and adapters of other models.

The adapters make a Keras model or a `tf.Module` a network of the engine. A forward pass assigns no
variable: `ForwardContext` holds everything that it depends on except the inputs and the variables,
and collects the new values of non-trainable variables.
"""

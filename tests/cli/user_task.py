"""Text of a file for `--load`: imports, and a task whose parts a test replaces."""

HEAD = """import tensorflow as tf

import tapeline as tl


"""

# Lines 6 to 16 of a file that starts with `HEAD`.
TASK = """@tl.task
class Mine(tl.Task):
    def __init__(self):
        self.metrics = {"right": tl.metrics.Mean()}

    def output_spec(self, source):
        return tf.TensorSpec([source.classes], tf.float32)

    def __call__(self, model, batch, context):
        logits = model(batch.inputs, context)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(batch.targets, logits)
        return tl.TaskOutput(losses, {"right": (losses,)})
"""
# What the last line returns.
RETURNED = 'tl.TaskOutput(losses, {"right": (losses,)})'

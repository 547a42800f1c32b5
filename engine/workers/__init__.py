"""Several processes, usually on several machines, that train as one.

Who they are (`cluster`); how they know that all are there (`meeting`) and alive (`peers`, each over
a `connection`), from before TensorFlow's import to the end (`company`); and how they agree on what
only the host knows (`crew`, which alone needs TensorFlow).
"""

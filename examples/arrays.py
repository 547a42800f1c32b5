"""NumPy arrays: a table of numbers with a class for each row.

    python examples/arrays.py --dataset=wine --model=mlp --hidden=32 --scale=standardize --epochs=40

10 s on two CPU cores; about 97% of the test wines are right.
"""

from sklearn.datasets import load_wine

import tapeline as tl


@tl.source
def wine():
    data = load_wine()
    inputs, names = data.data.astype("float32"), [str(name) for name in data.target_names]
    return tl.arrays(inputs=inputs, targets=data.target, test=0.2, class_names=names)


tl.main()

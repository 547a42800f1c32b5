"""Trains regression: the progression of diabetes in a year, from ten measurements.

    python examples/regression.py --dataset=diabetes --task=regression --model=mlp --hidden=32 \
        --scale=standardize --metrics=mean_absolute_error,r2 --epochs=40 --learning_rate=0.01

15 s on two CPU cores; R2 on the test rows is 0.3, because the measurements predict little more.
"""

from sklearn.datasets import load_diabetes

import tapeline as tl


@tl.source
def diabetes():
    data = load_diabetes()
    inputs, targets = data.data.astype("float32"), data.target.astype("float32") / 100
    return tl.arrays(inputs=inputs, targets=targets, test=0.2)


tl.main()

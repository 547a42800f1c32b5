"""Multi-label classification: which of five topics a bag of words is about.

    python examples/multi_label.py --dataset=topics --task=multi_label --model=mlp --hidden=64 \
        --metrics=accuracy,f1,auc --epochs=10

10 s on two CPU cores; about 88% of the labels of the test rows are right.
"""

from sklearn.datasets import make_multilabel_classification

import tapeline as tl


@tl.source
def topics(*, examples: int = 4000):
    words, labels = make_multilabel_classification(examples, random_state=0)
    return tl.arrays(inputs=words.astype("float32") / 10, targets=labels, test=0.2)


tl.main()

"""Trains a wide residual network (Zagoruyko and Komodakis 2016), WRN-16-4, on CIFAR-10.

    python examples/wide_resnet.py --dataset=cifar10 --model=wide_resnet --epochs=6 \
        --data_dir=DIRECTORY --train_split=train[:5000] --global_batch_size=64 \
        --optimizer=nesterov --learning_rate=0.1 --weight_decay=0.0005 --schedule=one_cycle \
        --augment=crop:4,flip

DIRECTORY holds cifar10 as TFDS prepares it; without the option, TFDS downloads it. 4 to 10 minutes
on two CPU cores; the test accuracy is 64%, after 426 steps on 4,500 images. The paper's is 95%,
after 200 epochs of all 50,000.
"""

import tapeline as tl

layers = tl.models


def convolved(filters, size=3, stride=1):
    he = {"kernel_initializer": "he_normal_fan_out", "use_bias": False}
    return layers.Convolution(filters, size, stride, size // 2, **he)


def activated():
    return layers.BatchNorm(momentum=0.9, epsilon=1e-5), layers.Activation("relu")


@tl.model
def wide_resnet(outputs, *, depth: int = 16, width: int = 4, dropout: float = 0.0):
    found = [convolved(16)]
    for filters, first_stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
        for block in range((depth - 4) // 6):
            stride = 1 if block else first_stride
            inner = [convolved(filters, 3, stride), *activated()]
            inner += [layers.Dropout(dropout), convolved(filters)]
            if block:
                found.append(layers.Residual(*activated(), *inner))
            else:  # the projection has the activated input, as the first convolution has
                projected = [convolved(filters, 1, stride)]
                found += [*activated(), layers.Residual(*inner, shortcut=projected)]
    return [*found, *activated(), layers.GlobalAveragePool(), layers.Dense(outputs.shape[0])]


tl.main()

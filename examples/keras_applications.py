"""Keras applications, such as MobileNetV2 and EfficientNetB0, with new weights on CIFAR-10.

    python examples/keras_applications.py --dataset=cifar10 --model=application \
        --model.network=MobileNetV2 --epochs=20 --data_dir=DIRECTORY \
        --train_split=train[:5000] --global_batch_size=32 --schedule=one_cycle

    python examples/keras_applications.py --dataset=cifar10 --model=application \
        --model.network=EfficientNetB0 --epochs=6 --data_dir=DIRECTORY \
        --train_split=train[:5000] --global_batch_size=32 --schedule=one_cycle --scale=none

DIRECTORY holds cifar10 as TFDS prepares it; without the option, TFDS downloads it. Measured
on two CPU cores:

- MobileNetV2: 3 to 13 minutes; the test accuracy is 33%, that on the images it trains on 82%.
- EfficientNetB0: 2 to 5 minutes; the test accuracy is 22%, after 846 steps. The network scales
  the images itself: `--scale=none`.

The batch norms of these networks average over 100 or 1,000 steps, which is long for such short
runs: evaluation would see averages of the first steps. Here they average over about ten. Give
`--shards=2` to get the same bits on 1 and 2 devices.
"""

import keras

import tapeline as tl

NEW = {"weights": None, "classifier_activation": None}


@tl.model
def application(inputs, outputs, *, network="MobileNetV2"):
    build = getattr(keras.applications, network)
    model = build(input_shape=inputs.shape, classes=outputs.shape[-1], **NEW)
    for layer in model.layers:
        layer.momentum = 0.9  # of batch norms; other layers do not read it
    return tl.keras(model)


tl.main()

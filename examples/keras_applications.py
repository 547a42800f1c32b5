"""Keras applications: MobileNetV2 and EfficientNetB0 with new weights, on images of CIFAR-10.

    python examples/keras_applications.py --dataset=cifar10 --model=mobilenet --epochs=20 \
        --data_dir=DIRECTORY --train_split=train[:5000] --global_batch_size=32 \
        --schedule=one_cycle

    python examples/keras_applications.py --dataset=cifar10 --model=efficientnet --epochs=6 \
        --data_dir=DIRECTORY --train_split=train[:5000] --global_batch_size=32 \
        --schedule=one_cycle --scale=none

DIRECTORY holds cifar10 as TFDS prepares it; without the option, TFDS downloads it. Measured
on two CPU cores:

- mobilenet: 13 minutes. The accuracy on the images it trains on is 82%. On others it stays at 10%
  for the first thousands of steps, because the batch norms of Keras's MobileNetV2 average over
  1,000 steps: in short runs, set `layer.momentum = 0.9` for each layer of `model.layers`.
- efficientnet: 5 minutes; the test accuracy is 22%, after 846 steps. The network scales
  the images itself: `--scale=none`.

Either way, give `--shards=2` to get the same bits on 1 and 2 devices.
"""

import keras

import tapeline as tl

NEW = {"weights": None, "classifier_activation": None}


@tl.model
def mobilenet(inputs, outputs):
    application = keras.applications.MobileNetV2
    return tl.keras(application(inputs.shape, classes=outputs.shape[-1], **NEW))


@tl.model
def efficientnet(inputs, outputs):
    application = keras.applications.EfficientNetB0
    return tl.keras(application(input_shape=inputs.shape, classes=outputs.shape[-1], **NEW))


tl.main()

"""Keras applications: MobileNetV2 and EfficientNetB0 with new weights, on the images of CIFAR-10.

    python examples/keras_applications.py --dataset=cifar10 --model=mobilenet \
        --data_dir=DIRECTORY --train_split=train[:5000] --epochs=6 --schedule=one_cycle

    python examples/keras_applications.py --dataset=cifar10 --model=efficientnet --scale=none \
        --data_dir=DIRECTORY --train_split=train[:5000] --epochs=6 --schedule=one_cycle

DIRECTORY holds cifar10 as TFDS prepares it; without the option, TFDS downloads it.
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

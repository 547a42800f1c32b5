"""Implements `--mode=export`: a SavedModel that needs only TensorFlow, and a TFLite model."""

from __future__ import annotations

import itertools
import json
import os
import traceback
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

import engine
import pipelines
from engine.assembly import data
from engine.assembly.trained import TrainedModel, trained_model
from engine.config.schema import Config
from engine.runtime.atomic_files import replace_file
from engine.runtime.native_stderr import capture_stderr
from engine.serving.directory import publish, temporary_directory
from engine.serving.module import ServingModule, predict

ALLOWED = 1e-6  # bound on the difference between predictions of the export and of the run
_CHECKED = 512  # maximum number of examples that are compared
_RANDOM = 64  # number of random examples that are compared if the data set is not on disk
_MAX_BYTES = 256 << 20  # maximum decoded size of the examples that are compared


class _Examples(NamedTuple):
    """Examples on which the predictions of the exported model and of the run are compared."""

    inputs: Any  # nest of arrays, decoded inputs [n, ...]
    served: list[list[np.ndarray]]  # batches of the arguments of the signature
    description: str  # "360 examples"


def run(config: Config) -> int:
    """Exports the trained network to run_dir/export: a SavedModel, a TFLite model and about.json.

    The predictions of the SavedModel are compared with those of the run before the new export
    replaces an earlier one. If TensorFlow cannot convert the network to TFLite, tflite_error.txt
    is written in place of the TFLite model. Prints a summary and about.json; returns the exit
    status, 0.

    Raises:
      ValueError: if the run has no weights that `--weights` selects, if the options are those of
        another network, if the devices cannot be used, or if `--averaged=yes` is given for a run
        without EMA.
      OSError: if the checkpoint is damaged, TensorFlow fails, or the export cannot be written.
      RuntimeError: if a prediction of the SavedModel differs by more than `ALLOWED`, or by nan.
    """
    folder = os.path.join(config.run.run_dir, "export")
    trained = trained_model(config, averaged=_uses_ema(config))
    which = "averaged, " if trained.averaged else ""
    print(f"exporting {which}{trained.description}, {trained.path}", flush=True)
    source = trained.source
    # A network of the stored size accepts only that size, because resizing could hide a mistake.
    any_size = source.has_images and source.stored_size != source.image_shape[:2]
    serving = ServingModule(trained.model, trained.task, source, trained.dtype, any_size=any_size)
    examples = _examples(trained, any_size)
    try:
        with temporary_directory(folder) as temporary:
            signatures = {"serving_default": serving.serve}
            tf.saved_model.save(serving, temporary, signatures=signatures)
            expected = _expected(trained, examples.inputs)
            difference = _max_difference(_served(temporary, serving, examples), expected)
            if not difference <= ALLOWED:
                raise RuntimeError(
                    f"the export differs from the run by {difference:.1e}, {ALLOWED:g} is "
                    "allowed; nothing was exported"
                )
            about = _metadata(trained, serving, difference)
            about["tflite"] = _export_tflite(serving, temporary, examples.inputs, expected)
            text = json.dumps(about, indent=2) + "\n"
            replace_file(os.path.join(temporary, "about.json"), text)
            publish(temporary, folder)
    except tf.errors.OpError as error:
        raise OSError(f"cannot write {folder}: {pipelines.reason(error)}") from error
    print(
        f"export {folder}: {difference:.1e} off the run on {examples.description}; "
        f"{about['tflite']['words']}"
    )
    print(json.dumps(about))
    return 0


def _uses_ema(config: Config) -> bool:
    averaged, has_ema = config.serving.averaged, bool(config.optimizer.ema)
    if averaged == "yes" and not has_ema:
        raise ValueError(f"--averaged=yes: {config.run.run_dir} keeps no averaged weights")
    automatic = averaged == "auto" and config.evaluation.evaluate_ema
    return has_ema and (averaged == "yes" or automatic)


def _examples(trained: TrainedModel, any_size: bool) -> _Examples:
    """Returns examples to compare: of the run's data set, or random ones.

    Examples are the first ones of the test, else the validation, else the training split: at most
    512, which take at most 256 MiB, but at least 1. If the data set is not on disk, cannot be read
    or has changed, the result is 64 random examples. With `any_size`, the signature gets the images
    of the data set in the stored sizes.
    """
    try:
        source = data.open_source(trained.config, prepared_only=True)
        if pipelines.source_to_json(source) != pipelines.source_to_json(trained.source):
            raise ValueError("the data set has changed")
        records = source.test or source.validation or source.train
        per_example = max(1, pipelines.example_bytes(source.decoded[0]))
        count = max(1, min(len(records), _CHECKED, _MAX_BYTES // per_example))
        indices, cache = np.arange(count), data.cache_dir(trained.config)
        inputs = pipelines.read_examples(source, records, indices, cache).inputs
        served = [tf.nest.flatten(inputs)]
        if any_size:
            images = pipelines.read_stored_images(source, records, indices, cache)
            groups = itertools.groupby(images, np.shape)
            served = [[np.stack(list(group))] for _, group in groups]
        return _Examples(inputs, served, f"{count} examples")
    except (ValueError, OSError):
        random = np.random.default_rng(0)
        inputs = tf.nest.map_structure(
            lambda spec: _random(random, spec), trained.source.decoded[0]
        )
        return _Examples(inputs, [tf.nest.flatten(inputs)], f"{_RANDOM} random inputs")


def _random(random: np.random.Generator, spec: tf.TensorSpec) -> np.ndarray:
    """Returns `_RANDOM` random examples of a spec, [`_RANDOM`, ...], of the spec's dtype.

    The values are standard normal for floats, 0 to 255 for images of uint8, and 0 or 1 for others,
    which may be ids of a small vocabulary.
    """
    shape, dtype = [_RANDOM, *spec.shape], spec.dtype.as_numpy_dtype
    if spec.dtype.is_floating:
        return random.standard_normal(shape).astype(dtype)
    is_image = spec.dtype == tf.uint8 and spec.shape.rank == 3
    return random.integers(0, 256 if is_image else 2, shape).astype(dtype)


def _expected(trained: TrainedModel, inputs: Any) -> dict[str, np.ndarray]:
    @tf.function(autograph=False)
    def expected(inputs: Any) -> dict[str, tf.Tensor]:
        return predict(trained.model, trained.task, trained.source, inputs, trained.dtype)

    return _arrays(expected(tf.nest.map_structure(tf.constant, inputs)))


def _served(folder: str, serving: ServingModule, examples: _Examples) -> dict[str, np.ndarray]:
    """Loads the SavedModel in `folder`; returns the predictions for the examples, by name."""
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    batches = [
        _arrays(serve(**dict(zip(serving.input_names, map(tf.constant, batch), strict=True))))
        for batch in examples.served
    ]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _arrays(predictions: Mapping[str, tf.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in predictions.items()}


def _max_difference(actual: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """Returns the largest difference over all outputs in `expected`; 0 if all are equal.

    The difference of a float output is the maximum of |actual - expected| / max(1, |expected|) over
    the elements; of another dtype, the fraction of the elements that differ. The result is nan if
    an element is nan in only one of `actual` and `expected`, or if an element is infinite in
    `expected` and has another value in `actual`.
    """
    differences = [0.0]
    for name, wanted in expected.items():
        found = actual[name]
        if np.issubdtype(wanted.dtype, np.floating):
            found, wanted = found.astype(np.float64), wanted.astype(np.float64)
            equal = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
            with np.errstate(invalid="ignore"):
                apart = np.abs(found - wanted) / np.maximum(1, np.abs(wanted))
            differences.append(float(np.where(equal, 0, apart).max(initial=0)))
        else:
            differences.append(float(np.mean(found != wanted)))
    return float(np.max(differences))  # nan if any is


def _metadata(trained: TrainedModel, serving: ServingModule, difference: float) -> dict[str, Any]:
    config, source = trained.config, trained.source
    about: dict[str, Any] = {
        "model": config.model.model,
        "task": config.task.task,
        "dataset": f"{source.name}:{source.version}",
        "inputs": {
            each.name: {"shape": each.shape.as_list(), "dtype": each.dtype.name}
            for each in serving.serve.input_signature
        },
        "outputs": {
            name: {"shape": each.shape.as_list(), "dtype": each.dtype.name}
            for name, each in serving.serve.get_concrete_function().structured_outputs.items()
        },
    }
    steps = []
    if source.has_images:
        image_shape = serving.serve.input_signature[0].shape.as_list()[1:]
        if None in image_shape:
            steps.append(f"resized to {'x'.join(map(str, source.resize.shape))}")
        about |= {
            "image_shape": list(source.image_shape),
            "image_dtype": source.dtype,
            "images": image_shape,  # None, null in JSON: any size
            "fit": source.fit,
            "antialias": source.antialias,
        }
    steps += source.preprocess.steps
    return about | {
        "preprocessing": f"{', '.join(steps)} inside" if steps else "none",
        "class_names": list(source.class_names),
        "weights": trained.description,
        "averaged": trained.averaged,
        **({"evaluation_views": views} if (views := config.evaluation.evaluation_views) else {}),
        "precision": config.precision.precision,
        "difference": difference,
        "versions": {"tapeline": engine.__version__, "tensorflow": tf.__version__},
    }


def _export_tflite(
    serving: ServingModule, folder: str, inputs: Any, expected: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Writes model.tflite if TensorFlow can convert the network, else tflite_error.txt.

    The TFLite model takes one example, [1, ...], and images only in the network's size, because no
    TFLite operation resizes as TensorFlow does. The model outputs the task's floating-point
    predictions, or all predictions if none is floating-point. If the conversion or the first run
    fails, the messages are written to tflite_error.txt, not to standard error.

    Args:
      serving: module to convert.
      folder: directory of the files.
      inputs: nest of decoded inputs [n, ...], on which the model is compared with `expected`.
      expected: predictions of the run for `inputs`, by name.

    Returns:
      The value of "tflite" in about.json: "images", the shape of the first input (None without a
      model); "difference", as in `_max_difference` (only with a model); "words", for display.

    Raises:
      OSError: if a file cannot be written.
    """
    floats = [name for name, each in expected.items() if np.issubdtype(each.dtype, np.floating)]
    names = floats or list(expected)
    one = [tf.TensorSpec([1, *s.shape[1:]], s.dtype, s.name) for s in serving.specs.values()]

    def predictions(*inputs: tf.Tensor) -> Any:
        found = serving.predictions(*inputs)
        return found[names[0]] if len(names) == 1 else {name: found[name] for name in names}

    with capture_stderr() as stderr:
        try:
            traced = tf.function(predictions, autograph=False)
            functions = [traced.get_concrete_function(*one)]
            content = tf.lite.TFLiteConverter.from_concrete_functions(functions, serving).convert()
            actual = _tflite_predictions(content, tf.nest.flatten(inputs), list(serving.specs))
            if len(names) == 1:
                actual = dict(zip(names, actual.values(), strict=True))
        except Exception:  # the converter and the interpreter raise exceptions of any type
            stderr.seek(0)
            messages = stderr.read().decode(errors="replace") + traceback.format_exc()
            replace_file(os.path.join(folder, "tflite_error.txt"), messages)
            return {
                "images": None,
                "words": "no TFLite model: TensorFlow's converter cannot make one of this network, "
                "see tflite_error.txt",
            }
    difference = _max_difference(actual, {name: expected[name] for name in names})
    replace_file(os.path.join(folder, "model.tflite"), content)
    shapes = [spec.shape.as_list() for spec in one]
    return {
        "images": shapes[0],
        "difference": difference,
        "words": f"model.tflite, one {serving.noun} at a time: {difference:.1e} off",
    }


def _tflite_predictions(
    content: bytes, inputs: list[np.ndarray], names: list[str]
) -> dict[str, np.ndarray]:
    """Runs a TFLite model on n examples, one at a time; returns {output name: [n, ...]}.

    Args:
      content: content of the .tflite file.
      inputs: arrays [n, ...], one per input.
      names: names of the inputs.
    """
    interpreter = tf.lite.Interpreter(model_content=content)
    run = interpreter.get_signature_runner()
    rows = [
        run(**{name: each[row : row + 1] for name, each in zip(names, inputs, strict=True)})
        for row in range(len(inputs[0]))
    ]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

"""`--mode=export`: exports a SavedModel that needs only TensorFlow, and a TFLite model."""

from __future__ import annotations

import contextlib
import errno
import glob
import itertools
import json
import os
import shutil
import traceback
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

import engine
import pipelines
from engine.assembly import factories
from engine.assembly.data import cache_dir
from engine.assembly.parts import Parts
from engine.assembly.trained import RestoredRun, restored
from engine.config.schema import Config
from engine.models.base import ForwardContext
from engine.models.sequential import Sequential
from engine.optim.precision import compute_dtype
from engine.runtime.atomic_files import lock, replace_file
from engine.runtime.native_stderr import capture_stderr
from engine.tasks.classification import probabilities

ALLOWED = 1e-6  # bound on the difference between probabilities of the export and of the run
_CHECKED = 512  # maximum number of examples that are compared


class ServingModule(tf.Module):
    """The module to export: a network with its preprocessing and class names.

    `images` is the spec [H, W, C] of the network's input, and `dtype` the compute dtype of its
    layers. Without `resize`, `serve` accepts only images of that size.
    """

    def __init__(
        self,
        model: Sequential,
        class_names: tuple[str, ...],
        images: tf.TensorSpec,
        dtype: tf.DType,
        resize: pipelines.Resize | None,
    ) -> None:
        super().__init__(name="tapeline")
        self._model, self._dtype, self._resize = model, dtype, resize
        self._names = class_names
        self.network_images = images
        height, width, channels = images.shape
        sizes = [height, width] if resize is None else [None, None]
        batch = tf.TensorSpec([None, *sizes, channels], images.dtype, "images")
        self.serve = tf.function(self._serve, input_signature=[batch], autograph=False)
        names = tf.function(lambda: tf.constant(class_names), input_signature=[], autograph=False)
        self.class_names = names

    def probabilities(self, images: tf.Tensor) -> tf.Tensor:
        """Returns class probabilities [n, classes] of images at the network's input size."""
        return probabilities(self._model, images, ForwardContext(dtype=self._dtype))

    def _serve(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        if self._resize is not None:
            images = self._resize(images)
        scores = self.probabilities(images)
        classes = tf.argmax(scores, axis=-1)
        return {
            "probabilities": scores,
            "classes": classes,
            "labels": tf.gather(tf.constant(self._names), classes),
        }


def run(config: Config) -> int:
    """Exports the trained network to run_dir/export: a SavedModel, a TFLite model and about.json.

    The SavedModel is compared with the run before it replaces an earlier export. If TensorFlow
    cannot convert the network, tflite_error.txt replaces the TFLite model. Prints a summary;
    returns the exit status, 0.

    Raises:
      ValueError: if the run has no weights that --weights selects, or no EMA for --averaged=yes.
      OSError: if the checkpoint is damaged or the export cannot be written.
      RuntimeError: if a probability of the SavedModel differs by more than ALLOWED.
    """
    folder = os.path.join(config.run.run_dir, "export")
    with restored(config) as restored_run:
        parts = restored_run.parts
        averaged = _uses_ema(config, has_ema=parts.state.ema is not None)
        trained = parts.state.scored_model(averaged)
        which = "averaged, " if averaged else ""
        print(f"exporting {which}{restored_run.description}, {restored_run.path}", flush=True)
        serving = _serving_module(parts, trained)
        try:
            with _temporary_directory(folder) as temporary:
                signatures = {"serving_default": serving.serve}
                tf.saved_model.save(serving, temporary, signatures=signatures)
                examples, stored_images = _examples(parts)
                expected = _expected(parts, trained, examples.inputs)
                difference = _max_difference(_served(temporary, stored_images), expected)
                if not difference <= ALLOWED:
                    raise RuntimeError(
                        f"the export differs from the run by {difference:.1e}, {ALLOWED:g} is "
                        "allowed; nothing was exported"
                    )
                about = _metadata(restored_run, serving, averaged, difference)
                about["tflite"] = _export_tflite(serving, temporary, examples.inputs, expected)
                text = json.dumps(about, indent=2) + "\n"
                replace_file(os.path.join(temporary, "about.json"), text)
                _publish(temporary, folder)
        except tf.errors.OpError as error:
            raise OSError(f"cannot write {folder}: {pipelines.reason(error)}") from error
    print(
        f"export {folder}: {difference:.1e} off the run on {len(examples.indices)} examples; "
        f"{about['tflite']['words']}"
    )
    print(json.dumps(about))
    return 0


def _uses_ema(config: Config, *, has_ema: bool) -> bool:
    averaged = config.serving.averaged
    if averaged == "yes" and not has_ema:
        raise ValueError(f"--averaged=yes: {config.run.run_dir} keeps no averaged weights")
    return has_ema and (averaged == "yes" or (averaged == "auto" and config.stopping.evaluate_ema))


def _serving_module(parts: Parts, trained: Sequential) -> ServingModule:
    """Returns a module with copies of `trained`'s variables on one device, for any strategy."""
    config, source = parts.config, parts.source
    model = factories.build_network(config, source)
    for variable, value in zip(model.variables, trained.variables, strict=True):
        variable.assign(value.numpy())
    images = tf.TensorSpec(source.image_shape, source.dtype)
    dtype = compute_dtype(config.precision.precision)
    # A network of the stored size accepts only that size, because resizing could hide a mistake.
    resize = None if source.stored_size == source.image_shape[:2] else source.resize
    return ServingModule(model, source.class_names, images, dtype, resize)


def _examples(parts: Parts) -> tuple[pipelines.Examples, Iterator[np.ndarray]]:
    """Returns examples at the network's input size, and their images at their stored sizes."""
    source, cache = parts.source, cache_dir(parts.config)
    records = source.test or source.validation or source.train
    indices = np.arange(min(len(records), _CHECKED))
    stored_images = pipelines.read_stored_images(source, records, indices, cache)
    return pipelines.read_examples(source, records, indices, cache), stored_images


def _expected(parts: Parts, trained: Sequential, images: np.ndarray) -> np.ndarray:
    context = ForwardContext(dtype=compute_dtype(parts.config.precision.precision))
    score = tf.function(lambda x: probabilities(trained, x, context), autograph=False)
    return score(tf.constant(images)).numpy()


def _served(folder: str, images: Iterable[np.ndarray]) -> np.ndarray:
    """Returns the class probabilities of a SavedModel for images of any sizes, [n, classes]."""
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    batches = (np.stack(list(group)) for _, group in itertools.groupby(images, np.shape))
    return np.concatenate(
        [serve(images=tf.constant(batch))["probabilities"].numpy() for batch in batches]
    )


def _max_difference(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual.astype(np.float64) - expected).max())


def _metadata(
    run: RestoredRun, serving: ServingModule, averaged: bool, difference: float
) -> dict[str, Any]:
    config, source = run.parts.config, run.parts.source
    image_shape = serving.serve.input_signature[0].shape.as_list()[1:]
    steps = [f"resized to {'x'.join(map(str, source.resize.shape))}"] * (None in image_shape)
    steps += ["divided by 255"] * (source.dtype == "uint8")
    return {
        "model": config.model.model,
        "dataset": f"{source.name}:{source.version}",
        "image_shape": list(source.image_shape),
        "image_dtype": source.dtype,
        "images": image_shape,  # None, null in JSON: any size
        "fit": source.fit,
        "antialias": source.antialias,
        "preprocessing": f"{', '.join(steps)} inside" if steps else "none",
        "class_names": list(source.class_names),
        "weights": run.description,
        "averaged": averaged,
        "precision": config.precision.precision,
        "difference": difference,
        "versions": {"tapeline": engine.__version__, "tensorflow": tf.__version__},
    }


def _export_tflite(
    serving: ServingModule, folder: str, images: np.ndarray, expected: np.ndarray
) -> dict[str, Any]:
    """Writes model.tflite if TensorFlow can convert the network; returns its entry for about.json.

    The TFLite model takes one image of the network's input size, because no TFLite operation
    resizes as TensorFlow does. If the conversion fails, the converter's messages are written to
    tflite_error.txt, not to standard error.
    """
    spec = serving.network_images
    one_image = tf.TensorSpec([1, *spec.shape], spec.dtype, "images")
    with capture_stderr() as stderr:
        try:
            traced = tf.function(serving.probabilities, autograph=False)
            functions = [traced.get_concrete_function(one_image)]
            content = tf.lite.TFLiteConverter.from_concrete_functions(functions, serving).convert()
            actual = _tflite_probabilities(content, images)
        except Exception:  # the converter and the interpreter raise exceptions of any type
            stderr.seek(0)
            messages = stderr.read().decode(errors="replace") + traceback.format_exc()
            replace_file(os.path.join(folder, "tflite_error.txt"), messages)
            return {
                "images": None,
                "words": "no TFLite model: TensorFlow's converter cannot make one of this network, "
                "see tflite_error.txt",
            }
    difference = _max_difference(actual, expected)
    replace_file(os.path.join(folder, "model.tflite"), content)
    return {
        "images": one_image.shape.as_list(),
        "difference": difference,
        "words": f"model.tflite, one image at a time: {difference:.1e} off",
    }


def _tflite_probabilities(content: bytes, images: np.ndarray) -> np.ndarray:
    interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]
    actual = []
    for image in images:
        interpreter.set_tensor(source, image[None])
        interpreter.invoke()
        actual.append(interpreter.get_tensor(target)[0])
    return np.stack(actual)


@contextlib.contextmanager
def _temporary_directory(folder: str) -> Iterator[str]:
    """Yields an empty directory beside `folder` for this process only; removes it on an error.

    The name is always the same unless another process has locked it, so that the next export
    removes the files that a killed process left.
    """
    temporary = f"{folder}.part"
    while True:
        os.makedirs(temporary, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another process has moved it
            descriptor = os.open(temporary, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            break
    try:
        if not lock(descriptor, temporary):
            temporary = f"{folder}.{os.getpid()}.part"
            os.makedirs(temporary, exist_ok=True)
        for entry in os.scandir(temporary):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)


def _publish(temporary: str, folder: str) -> None:
    """Moves the export from `temporary` to `folder`, then deletes the previous export."""
    before = f"{folder}.{os.getpid()}.before"
    while True:
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, before)
        try:
            os.rename(temporary, folder)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # Another process has moved its export there in the meantime: it is deleted, too.
            shutil.rmtree(before, ignore_errors=True)
    for old in glob.glob(f"{glob.escape(folder)}.*before"):
        shutil.rmtree(old, ignore_errors=True)

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
from engine.assembly.trained import restored
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

    Args:
      model: network with its own variables.
      class_names: names of the classes.
      images: dtype and shape [H, W, C] of the network's input.
      dtype: compute dtype of the layers.
      resize: resizes images of any size to the network's input size; None: only that size is
        valid.
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
        taken = [None, height, width, channels] if resize is None else [None, None, None, channels]
        batch = tf.TensorSpec(taken, images.dtype, "images")
        self.serve = tf.function(self._serve, input_signature=[batch], autograph=False)
        names = tf.function(lambda: tf.constant(class_names), input_signature=[], autograph=False)
        self.class_names = names

    def probabilities(self, images: tf.Tensor) -> tf.Tensor:
        """Computes class probabilities, float32 [n, classes].

        Args:
          images: images [n, H, W, C] at the network's input size.
        """
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
    """Exports to run_dir/export, validates the SavedModel against the run, prints a summary.

    Args:
      config: options of the run.

    Returns:
      The exit status.

    Raises:
      ValueError: if the run has no weights that --weights selects, or no EMA for --averaged=yes.
      OSError: if the checkpoint is damaged or the export cannot be written.
      RuntimeError: if a probability of the SavedModel differs by more than ALLOWED.
    """
    found = restored(config)
    parts = found.parts
    averaged = _averaged(config, parts.state.ema is not None)
    trained = parts.state.scored_model(averaged)
    which = "averaged, " if averaged else ""
    print(f"exporting {which}{found.words}, {found.path}", flush=True)
    serving = _serving(config, parts.source, trained)
    folder = os.path.join(config.run.run_dir, "export")
    try:
        with _part_of(folder) as whole:
            tf.saved_model.save(serving, whole, signatures={"serving_default": serving.serve})
            examples, stored = _examples(parts.source, cache_dir(config))
            expected = _expected(trained, examples.images, config)
            off = _difference(whole, stored, expected)
            if not off <= ALLOWED:
                raise RuntimeError(
                    f"the export differs from the run by {off:.1e}, {ALLOWED:g} is allowed; "
                    "nothing was exported"
                )
            facts = _facts(config, parts.source, serving, found.words, averaged, off)
            lite = _lite(serving, whole, examples.images, expected)
            facts |= {"tflite": lite}
            replace_file(os.path.join(whole, "about.json"), json.dumps(facts, indent=2) + "\n")
            _put(whole, folder)
    except tf.errors.OpError as error:
        raise OSError(f"cannot write {folder}: {pipelines.reason(error)}") from error
    parts.close()
    print(
        f"export {folder}: {off:.1e} off the run on {len(examples.labels)} examples; "
        f"{lite['words']}"
    )
    print(json.dumps(facts))
    return 0


def _averaged(config: Config, there_are: bool) -> bool:
    kind = config.serving.averaged
    if kind == "yes" and not there_are:
        raise ValueError(f"--averaged=yes: {config.run.run_dir} keeps no averaged weights")
    return there_are and (kind == "yes" or (kind == "auto" and config.stopping.evaluate_ema))


def _serving(config: Config, source: pipelines.Source, trained: Sequential) -> ServingModule:
    """Builds a module with copies of the variables, on one device, whatever the run's strategy."""
    model = factories.build_network(config, source)
    for variable, value in zip(model.variables, trained.variables, strict=True):
        variable.assign(value.numpy())
    images = tf.TensorSpec(source.image_shape, source.dtype)
    dtype = compute_dtype(config.precision.precision)
    # A network of the stored size accepts only that size: its signature rejects other sizes,
    # because resizing could hide a user's mistake.
    resize = None if source.stored_size == source.image_shape[:2] else source.resize
    return ServingModule(model, source.class_names, images, dtype, resize)


def _examples(
    source: pipelines.Source, kept: str
) -> tuple[pipelines.Examples, Iterator[np.ndarray]]:
    """Returns examples at the network's input size, and their images at their stored sizes."""
    records = source.test or source.validation or source.train
    numbers = np.arange(min(len(records), _CHECKED))
    stored = pipelines.read_stored_images(source, records, numbers, kept)
    return pipelines.read_examples(source, records, numbers, kept), stored


def _expected(trained: Sequential, images: np.ndarray, config: Config) -> np.ndarray:
    context = ForwardContext(dtype=compute_dtype(config.precision.precision))
    score = tf.function(lambda x: probabilities(trained, x, context), autograph=False)
    return score(tf.constant(images)).numpy()


def _difference(folder: str, stored: Iterable[np.ndarray], expected: np.ndarray) -> float:
    """Loads the SavedModel; returns the maximum difference of its probabilities from the run's.

    Args:
      folder: directory of the SavedModel.
      stored: images [h, w, C] at their stored sizes.
      expected: probabilities of the run, float32 [n, classes].
    """
    serve = tf.saved_model.load(folder).signatures["serving_default"]
    batches = (np.stack(list(same)) for _, same in itertools.groupby(stored, np.shape))
    served = [serve(images=tf.constant(batch))["probabilities"].numpy() for batch in batches]
    found = np.concatenate(served)
    return float(np.abs(found.astype(np.float64) - expected).max())


def _facts(
    config: Config,
    source: pipelines.Source,
    serving: ServingModule,
    weights: str,
    averaged: bool,
    off: float,
) -> dict[str, Any]:
    takes = serving.serve.input_signature[0].shape.as_list()[1:]
    steps = [f"resized to {'x'.join(map(str, source.resize.shape))}"] * (None in takes)
    steps += ["divided by 255"] * (source.dtype == "uint8")
    return {
        "model": config.model.model,
        "dataset": f"{source.name}:{source.version}",
        "image_shape": list(source.image_shape),
        "image_dtype": source.dtype,
        "images": takes,  # None, null in JSON: any size
        "fit": source.fit,
        "antialias": source.antialias,
        "preprocessing": f"{', '.join(steps)} inside" if steps else "none",
        "class_names": list(source.class_names),
        "weights": weights,
        "averaged": averaged,
        "precision": config.precision.precision,
        "difference": off,
        "versions": {"tapeline": engine.__version__, "tensorflow": tf.__version__},
    }


def _lite(
    serving: ServingModule, folder: str, images: np.ndarray, expected: np.ndarray
) -> dict[str, Any]:
    """Writes model.tflite if TensorFlow can convert the network; returns its entry for about.json.

    Its images have the network's input size, because no TFLite operation resizes as TensorFlow
    does. If the conversion fails, the converter's messages are written to tflite_error.txt, not to
    standard error.
    """
    images_of = serving.network_images
    one = tf.TensorSpec([1, *images_of.shape], images_of.dtype, "images")
    with capture_stderr() as written:
        try:
            content, found = _converted(serving, one, images)
        except Exception:  # the converter and the interpreter raise exceptions of any type
            written.seek(0)
            said = written.read().decode(errors="replace") + traceback.format_exc()
            replace_file(os.path.join(folder, "tflite_error.txt"), said)
            return {
                "images": None,
                "words": "no TFLite model: TensorFlow's converter cannot make one of this network, "
                "see tflite_error.txt",
            }
    off = float(np.abs(found.astype(np.float64) - expected).max())
    replace_file(os.path.join(folder, "model.tflite"), content)
    return {
        "images": one.shape.as_list(),
        "difference": off,
        "words": f"model.tflite, one image at a time: {off:.1e} off",
    }


def _converted(
    serving: ServingModule, one: tf.TensorSpec, images: np.ndarray
) -> tuple[bytes, np.ndarray]:
    """Converts the network to TFLite; returns the model and its probabilities for `images`.

    Args:
      serving: module with the network.
      one: dtype, name and shape [1, H, W, C] of the input of the TFLite model.
      images: images [n, H, W, C] at the network's input size.
    """
    traced = tf.function(serving.probabilities, autograph=False).get_concrete_function(one)
    content = tf.lite.TFLiteConverter.from_concrete_functions([traced], serving).convert()
    interpreter = tf.lite.Interpreter(model_content=content)
    interpreter.allocate_tensors()
    taken, given = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    found = []
    for image in images:
        interpreter.set_tensor(taken["index"], image[None])
        interpreter.invoke()
        found.append(interpreter.get_tensor(given["index"])[0])
    return content, np.stack(found)


@contextlib.contextmanager
def _part_of(folder: str) -> Iterator[str]:
    """Yields an empty directory beside `folder` for this process only; removes it on an error.

    The name is always the same unless another process has locked it. The next export therefore
    removes the files that a killed process left.
    """
    whole = f"{folder}.part"
    while True:
        os.makedirs(whole, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # another process has moved it
            descriptor = os.open(whole, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            break
    try:
        if not lock(descriptor, whole):
            whole = f"{folder}.{os.getpid()}.part"
            os.makedirs(whole, exist_ok=True)
        for entry in os.scandir(whole):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        yield whole
    except BaseException:
        shutil.rmtree(whole, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)


def _put(whole: str, folder: str) -> None:
    """Moves the export from `whole` to `folder`, then deletes the previous export."""
    before = f"{folder}.{os.getpid()}.before"
    while True:
        with contextlib.suppress(FileNotFoundError):
            os.rename(folder, before)
        try:
            os.rename(whole, folder)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            # Another process has moved its export there in the meantime: it is deleted, too.
            shutil.rmtree(before, ignore_errors=True)
    for old in glob.glob(f"{glob.escape(folder)}.*before"):
        shutil.rmtree(old, ignore_errors=True)

"""Checkpoints of the one state: the newest few, and apart from them the best.

`tf.train.CheckpointManager` writes the data first and the index, by which a checkpoint is found
here, last: a kill during a save leaves the previous checkpoint whole. They are numbered one after
the other, never by a number that is taken: no file is ever written over.
"""

from __future__ import annotations

import glob
import os
import re

import tensorflow as tf

from engine.state import TrainState
from pipelines import reason


def list_checkpoints(directory: str) -> list[str]:
    """The checkpoints in a directory, oldest first, as TensorFlow names them.

    Found by their files: the small list that the manager keeps beside them may be lost.
    """
    found = {}
    for path in glob.glob(os.path.join(glob.escape(directory), "ckpt-*.index")):
        if match := re.fullmatch(r"(.*/ckpt-(\d+))\.index", path):
            found[int(match[2])] = match[1]
    return [found[number] for number in sorted(found)]


def checkpoint_number(path: str | None) -> int:
    """The number in a checkpoint's name, 1 or more; 0 for none."""
    return int(path.rsplit("-", 1)[1]) if path else 0


class Checkpoints:
    """A run's checkpoints.

    Args:
      run_dir: holds `checkpoints/` and `best/`.
      state: what is saved and restored.
      keep: how many of the newest stay.
      writes: whether this process saves; another one may do it for all.
    """

    def __init__(self, run_dir: str, state: TrainState, keep: int, writes: bool = True) -> None:
        self._checkpoint = tf.train.Checkpoint(state=state)
        self._state, self._writes = state, writes
        self._newest = self._manager(os.path.join(run_dir, "checkpoints"), keep)
        self._best = self._manager(os.path.join(run_dir, "best"), 1)

    def _manager(self, directory: str, keep: int) -> tf.train.CheckpointManager:
        try:
            return tf.train.CheckpointManager(self._checkpoint, directory, max_to_keep=keep)
        except ValueError:
            # Its list of checkpoints is torn, by a power cut say. They are found without it.
            os.unlink(os.path.join(directory, "checkpoint"))
            return tf.train.CheckpointManager(self._checkpoint, directory, max_to_keep=keep)

    @property
    def best(self) -> str | None:
        """Path of the best epoch's checkpoint, None without one."""
        saved = list_checkpoints(self._best.directory)
        return saved[-1] if saved else None

    def save(self) -> str:
        """Saves the state as the newest checkpoint, and gives its path; "" where another saves."""
        return self._save(self._newest)

    def save_best(self) -> str:
        """Saves the state as the best one, in place of the one before; else as `save`."""
        return self._save(self._best)

    def _save(self, manager: tf.train.CheckpointManager) -> str:
        if not self._writes:
            return ""
        taken = list_checkpoints(self._newest.directory) + list_checkpoints(self._best.directory)
        number = 1 + max(map(checkpoint_number, taken), default=0)
        try:
            path = manager.save(checkpoint_number=number)
        except (OSError, tf.errors.OpError) as error:
            raise OSError(f"cannot save to {manager.directory}: {reason(error)}") from error
        assert path is not None
        return path

    def restore(self) -> tuple[str | None, list[str]]:
        """Loads the newest checkpoint that can be loaded.

        Returns:
          Its path, None when there is none at all; and a line for each newer one that is damaged.

        Raises:
          OSError: when there are checkpoints and none can be loaded.
        """
        problems: list[str] = []
        for path in reversed(list_checkpoints(self._newest.directory)):
            try:
                _restore(self._checkpoint, path)
            except OSError as error:
                problems.append(str(error))
                continue
            return path, problems
        if problems:
            raise OSError(
                f"{problems[0]}; nor can any other in {self._newest.directory} be: delete that "
                "directory to start anew, or give another --run_dir"
            )
        return None, []

    def restore_same(self, number: int) -> str | None:
        """Loads the checkpoint that another process chose, by its number; 0: none.

        Raises:
          OSError: when it cannot be loaded here.
        """
        if not number:
            return None
        path = os.path.join(self._newest.directory, f"ckpt-{number}")
        _restore(self._checkpoint, path)
        return path

    def restore_weights(self, path: str) -> None:
        """Loads the weights alone: the rest of the state stays, so that the run can go on."""
        restore_weights(self._state, path)


def restore_weights(state: TrainState, path: str) -> None:
    """Loads a checkpoint's model, and its averaged weights where the state keeps them.

    Raises:
      OSError: when the file is damaged or holds another model.
    """
    weights = {"model": state.model}
    if state.average is not None:
        weights["average"] = state.average
    _restore(tf.train.Checkpoint(state=tf.train.Checkpoint(**weights)), path)


def _restore(checkpoint: tf.train.Checkpoint, path: str) -> None:
    try:
        status = checkpoint.read(path)
        status.assert_existing_objects_matched()
        status.expect_partial()
    except Exception as error:  # the reader of damaged files raises IndexError and the like too
        raise OSError(f"cannot load checkpoint {path}: {reason(error)}") from error

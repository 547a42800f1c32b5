"""Checkpoints of the one state: the newest few, and apart from them the best.

`tf.train.CheckpointManager` writes the data files first and names them in its index last, so a
kill during a save leaves the previous checkpoint whole. They are numbered one after the other, not
by step: two of one step (stopped in an evaluation, then gone on) must not share a file.
"""

from __future__ import annotations

import os

import tensorflow as tf

from engine.state import TrainState


class Checkpoints:
    """A run's checkpoints.

    Args:
      run_dir: holds `checkpoints/` and `best/`.
      state: what is saved and restored.
      keep: how many of the newest stay.
    """

    def __init__(self, run_dir: str, state: TrainState, keep: int) -> None:
        self._state = state
        checkpoint = tf.train.Checkpoint(state=state)
        self._newest = tf.train.CheckpointManager(
            checkpoint, os.path.join(run_dir, "checkpoints"), max_to_keep=keep
        )
        self._best = tf.train.CheckpointManager(
            checkpoint, os.path.join(run_dir, "best"), max_to_keep=1
        )

    @property
    def newest(self) -> str | None:
        """Path of the newest checkpoint, None without one."""
        return self._newest.latest_checkpoint

    @property
    def best(self) -> str | None:
        """Path of the best epoch's checkpoint, None without one."""
        return self._best.latest_checkpoint

    def save(self) -> str:
        """Saves the state as the newest checkpoint, and gives its path."""
        return self._save(self._newest)

    def save_best(self) -> str:
        """Saves the state as the best one, in place of the one before, and gives its path."""
        return self._save(self._best)

    def _save(self, manager: tf.train.CheckpointManager) -> str:
        try:
            path = manager.save()
        except (OSError, tf.errors.OpError) as error:
            reason = getattr(error, "message", None) or str(error)
            raise OSError(f"cannot save to {manager.directory}: {_first_line(reason)}") from error
        assert path is not None
        return path

    def restore(self, path: str) -> None:
        """Loads the whole state.

        Raises:
          OSError: when the file is damaged or belongs to another model.
        """
        _restore(tf.train.Checkpoint(state=self._state), path)

    def restore_model(self, path: str) -> None:
        """Loads the model alone: the rest of the state stays, so that the run can go on."""
        _restore(tf.train.Checkpoint(state=tf.train.Checkpoint(model=self._state.model)), path)


def _restore(checkpoint: tf.train.Checkpoint, path: str) -> None:
    try:
        status = checkpoint.restore(path)
        status.assert_existing_objects_matched()
        status.expect_partial()
    except Exception as error:  # the reader of damaged files raises IndexError and the like too
        raise OSError(
            f"cannot load checkpoint {path}: {_first_line(str(error))}; delete it to go on from "
            "the one before"
        ) from error


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:300] if text.strip() else "unknown reason"

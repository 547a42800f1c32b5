"""Shows the progress of a run: a progress bar on standard error, lines on standard output."""

from __future__ import annotations

import os
import sys
from typing import Any


class Progress:
    """A progress bar on standard error, and lines printed on standard output above the bar.

    Args:
      mode: "auto" shows the bar if standard error is a terminal, "on" always, "off" never; "silent"
        shows no bar and prints no lines.
      description: label of the bar.
      total: number of units at the end of the bar.
      done: number of units at which the bar starts.
      unit: name of the units.
    """

    def __init__(
        self, mode: str, description: str, total: int, done: int = 0, unit: str = "steps"
    ) -> None:
        self._bar: Any = None
        self._description = description
        self._silent = mode == "silent"
        if mode == "on" or (mode == "auto" and sys.stderr.isatty()):
            from tqdm import tqdm

            self._bar = tqdm(
                desc=description,
                total=total,
                initial=done,
                unit=f" {unit}",
                dynamic_ncols=True,
                leave=False,
                smoothing=0.1,
            )

    @property
    def shown(self) -> bool:
        """Whether the bar is shown; if not, the caller need not compute a text for `advance`."""
        return self._bar is not None

    def advance(self, amount: int, text: str = "") -> None:
        """Advances the bar by `amount` units, and shows `text` beside it, if there is any."""
        if self._bar is not None:
            if text:
                self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(amount)

    def set(self, done: int) -> None:
        """Moves the bar to `done` units, which may be fewer than before."""
        if self._bar is not None:
            self._bar.n = done
            self._bar.refresh()

    def describe(self, description: str) -> None:
        """Changes the label of the bar."""
        if self._bar is not None and description != self._description:
            self._bar.set_description(description)
            self._description = description

    def line(self, text: str) -> None:
        """Prints a line on standard output, unless the mode is "silent".

        If standard output is a pipe that has been closed, this line and later ones are discarded.
        """
        if self._silent:
            return
        if self._bar is not None:
            self._bar.clear()
        try:
            print(text, flush=True)
        except BrokenPipeError:  # a closed pipe is no reason to stop training
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        """Removes the bar from the terminal."""
        if self._bar is not None:
            self._bar.close()

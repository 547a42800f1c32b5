"""What a person sees while a run goes on: a bar on a terminal, and a line an epoch everywhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from engine import metrics


class Progress:
    """A bar for long work on standard error, and lines on standard output that do not tear it.

    Args:
      mode: auto, on, off or silent; auto shows the bar when standard error is a terminal, silent
        prints no lines either.
      description: what is going on.
      total: of what is counted.
      done: how much of it is behind already.
      unit: what is counted.
    """

    def __init__(
        self, mode: str, description: str, total: int, done: int = 0, unit: str = "steps"
    ) -> None:
        self._bar: Any = None
        self._described = description
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
        """Whether there is a bar: what is only for it need not be computed."""
        return self._bar is not None

    def advance(self, amount: int, values: Mapping[str, float | int] | None = None) -> None:
        """Moves the bar; `values` stand behind it."""
        if self._bar is not None:
            if values:
                self._bar.set_postfix_str(metrics.brief(values), refresh=False)
            self._bar.update(amount)

    def set(self, done: int) -> None:
        """Sets the bar to how much is done: it may go back."""
        if self._bar is not None:
            self._bar.n = done
            self._bar.refresh()

    def describe(self, description: str) -> None:
        """Says what is going on now."""
        if self._bar is not None and description != self._described:
            self._bar.set_description(description)
            self._described = description

    def line(self, text: str) -> None:
        """Prints a line on standard output."""
        if self._silent:
            return
        if self._bar is not None:
            self._bar.clear()
        try:
            print(text, flush=True)
        except BrokenPipeError:  # who read along has gone; that is no reason to stop a training
            sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()

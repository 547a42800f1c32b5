"""`--mode=inspect`: looks at a configuration before training, and writes a page about it."""

from __future__ import annotations

import os

from engine.assembly import run_directory
from engine.config.schema import Config
from engine.inspection.inspection import inspect
from engine.reporting import html_page
from engine.runtime.atomic_files import replace_file
from engine.runtime.signals import Signals


def run(config: Config) -> int:
    """Inspects a configuration; prints the result and writes it to `--inspect_path`.

    Without that option, the page is inspect.html in `run_dir`, which is created if missing. Changes
    nothing else in `run_dir`.

    Returns:
      The exit status: 0 if nothing is wrong, 1 if the checks found something, or 128 + the number
      of the received signal.

    Raises:
      ValueError: for invalid input, such as options that do not fit the data set.
      OSError: if a file cannot be read or written.
      RuntimeError: if TensorFlow fails.
    """
    if config.devices.strategy == "multi_worker":
        raise ValueError("--mode=inspect looks on one machine: leave --strategy=multi_worker out")
    path = _path(config)
    with Signals() as signals:
        found = inspect(config, lambda: bool(signals.received))
        if found is None:
            print(f"stopped by signal {signals.received}; nothing was written", flush=True)
            return signals.exit_status
    # On a terminal, what was found is read last.
    first, *others = found.sections
    print("\n\n".join(map(html_page.text, (*others, first))), flush=True)
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    replace_file(path, html_page.page(found.title, found.lead, found.sections, ""), durable=False)
    count = len(found.findings)
    print(f"\n{count} finding{'s' * (count != 1)}; {path}", flush=True)
    return 1 if found.findings else 0


def _path(config: Config) -> str:
    """Returns the path of the page; raises ValueError if it cannot be written there."""
    if path := config.inspection.inspect_path:
        if not os.access(os.path.dirname(os.path.abspath(path)), os.W_OK):
            raise ValueError(
                f"--inspect_path={path}: give a file in a directory that can be written to"
            )
        return path
    run_directory.check_writable(config.run.run_dir)
    return os.path.join(config.run.run_dir, "inspect.html")

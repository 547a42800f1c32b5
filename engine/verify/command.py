"""Runs `--mode=verify`: checks the laws on a configuration, prints and saves the certificate."""

from __future__ import annotations

import os

from engine.config.schema import Config
from engine.runtime.atomic_files import replace_file
from engine.runtime.errors import Interrupted
from engine.runtime.signals import Signals
from engine.verify.verification import verify


def run(config: Config) -> int:
    """Verifies a configuration; prints a line per law, the certificate as JSON, and PASS or FAIL.

    Prints a description of what is verified first. Writes the certificate to `verify.json` in
    `run_dir` if that directory exists, and changes nothing else there.

    Returns:
      The exit status: 0 if no law is broken, else 1; 128 + the signal number, such as 130 or 143,
      when stopped by a signal.

    Raises:
      ValueError: for invalid input, as in training.
      OSError: when a data file cannot be read, or `verify.json` cannot be written.
      RuntimeError: when TensorFlow fails in the first run.
    """
    with Signals() as signals:
        try:
            certificate = verify(
                config,
                print_line=lambda line: print(line, flush=True),
                interrupted=lambda: bool(signals.received),
            )
        except Interrupted:
            print(f"stopped by signal {signals.received}; nothing was written", flush=True)
            return signals.exit_status
    print(certificate.json)
    print(certificate.summary, flush=True)
    if os.path.isdir(config.run.run_dir):
        replace_file(os.path.join(config.run.run_dir, "verify.json"), certificate.json + "\n")
    return 0 if certificate.passed else 1

"""`--mode=verify`: prints the certificate, and keeps it beside the run if there is one."""

from __future__ import annotations

import os

from engine.config import Config
from engine.keeping.files import replace_file
from engine.keeping.signals import Signals
from engine.verify.bench import Interrupted
from engine.verify.verification import verify

_FILE = "verify.json"


def run(config: Config) -> int:
    """Verifies; prints a line a law, the certificate as one line of JSON, and PASS or FAIL.

    Where run_dir is a directory its `verify.json` is replaced. Nothing else in there is touched,
    and where there is none, none is made: no run is needed.

    Args:
      config: all options.

    Returns:
      The exit status: 0 when no law is broken, else 1; 130 or 143 when stopped by a signal.

    Raises:
      ValueError: for bad input.
    """
    with Signals() as signals:
        try:
            certificate = verify(
                config,
                tell=lambda line: print(line, flush=True),
                interrupted=lambda: bool(signals.received),
            )
        except Interrupted:
            print(f"stopped by signal {signals.received}; nothing was written", flush=True)
            return signals.exit_status
    print(certificate.json)
    print(certificate.summary, flush=True)
    if os.path.isdir(config.run.run_dir):
        replace_file(os.path.join(config.run.run_dir, _FILE), certificate.json + "\n")
    return 0 if certificate.passed else 1

"""Entry point of the `tapeline` command: checks that the engine can be imported, and runs it."""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn


def check_packages() -> str:
    """Returns why the engine cannot be imported, as a one-line error message; "" if it can be."""
    if importlib.util.find_spec("fcntl") is None or sys.modules.get("fcntl", sys) is None:
        return "Tapeline needs Linux or macOS; on Windows run it under WSL2 (wsl --install)"
    root = Path(__file__).resolve().parents[1]
    for name in ("engine", "pipelines"):
        spec = importlib.util.find_spec(name)
        directories = list(spec.submodule_search_locations or []) if spec else []
        if root / name not in [Path(directory).resolve() for directory in directories]:
            found = directories[0] if directories else spec.origin if spec else "nothing"
            return (
                f"{found} hides Tapeline's package {name!r}: rename it, or start the command from "
                "another folder"
            )
    return ""


def entry() -> None:
    """Runs Tapeline with this process's command-line arguments, and exits with the exit status.

    If the engine cannot be imported, prints why and exits with status 2.
    """
    if problem := check_packages():
        print("error:", problem, file=sys.stderr)
        sys.exit(2)
    run_and_exit(sys.argv[1:])


def run_and_exit(arguments: Sequence[str]) -> NoReturn:
    """Runs Tapeline with command-line arguments, and exits with the exit status of `main`.

    If the reader of standard output has exited, the status is 1.
    """
    from tapeline.command import main

    try:
        status = main(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output, such as `head`, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    gc.freeze()  # to collect reference cycles at exit would take a second
    sys.exit(status)

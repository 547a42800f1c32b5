"""Runs Tapeline from a user's script, whose code each process of the run then loads."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from engine.runtime import user_code
from tapeline import cli, command


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs Tapeline from a script, and adds the script to `--load`.

    Therefore other modes, the processes of `--mode=tune` and resumed runs find the script's code.
    While a file is being imported, a call of `main` in the file does nothing and returns 0. A
    caller that is not the main script is not added.

    Args:
      arguments: options such as "--epochs=2". None: those of the command line; the process then
        exits with the status, as a command does.

    Returns:
      The exit status: 0 for success, 2 for invalid input, 130, 143 and 129 for signals, 1 for other
      failures. Errors are printed.
    """
    caller = sys._getframe(1)
    is_main = caller.f_globals.get("__name__") == "__main__"
    imported = caller.f_code.co_name == "<module>" and not is_main
    if user_code.is_loading() or (arguments is None and imported):
        return 0
    if is_main and (script := caller.f_globals.get("__file__")):
        user_code.add_script(script)
    if arguments is None:
        cli.run_and_exit(sys.argv[1:])
    return command.main(arguments)

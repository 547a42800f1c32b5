"""Runs the `tapeline` command as `python -m tapeline`."""

from tapeline.cli import entry

if __name__ == "__main__":
    entry()

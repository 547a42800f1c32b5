"""Runs Tapeline from a clone: `python run.py --flagfile=cpu.flags --run_dir=runs/mine`."""

from tapeline.cli import entry

if __name__ == "__main__":
    entry()

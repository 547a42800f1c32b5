"""Updates the golden losses: python -m tests.golden.write

The commit message must state what changed them, and by how much.
"""

from __future__ import annotations

import sys

from tests.golden import runs
from tests.golden.place import places


def main() -> int:
    """Trains all runs, prints their largest changes, and writes the golden files; returns 0."""
    with places() as where:
        for name in runs.RUNS:
            losses = runs.losses(name, **where)
            if runs.path(name).exists():
                moved = runs.drift(losses, runs.read(name)["losses"])
                print(f"{name}: moved by {moved:.1e} at most")
            runs.path(name).write_text(runs.text(name, losses))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Creates a virtual environment for each peer framework, from the package index.

python -m benchmarks.environments .benchmarks
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TENSORFLOW = ("tensorflow==2.21.0",)
# name -> steps of `pip install`
PACKAGES: dict[str, list[list[str]]] = {
    "keras": [[*TENSORFLOW, "keras==3.15.1"]],
    "orbit": [
        [*TENSORFLOW, "tf_keras==2.21.0"],
        ["--no-deps", "tf-models-official==2.20.0"],
    ],
    "torch": [["torch==2.13.0", "numpy"]],
    "jax": [["jax[cpu]==0.10.2", "optax"]],
}


def python_of(place: Path, name: str) -> Path:
    """Returns the path of the Python interpreter of the environment `name` in `place`."""
    return place / name / "bin" / "python"


def make(place: Path) -> None:
    """Creates the environments of `PACKAGES` that a directory does not contain yet.

    Raises:
      subprocess.CalledProcessError: if `venv` or `pip` fails.
    """
    for name, steps in PACKAGES.items():
        done = place / name / "done"
        if done.exists():
            continue
        print(f"{name} ...", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place / name)], check=True)
        for packages in steps:
            asked = [str(python_of(place, name)), "-m", "pip", "install", "-q", *packages]
            subprocess.run(asked, check=True)
        done.touch()


if __name__ == "__main__":
    make(Path(sys.argv[1]))

"""Finds the prepared versions of TFDS data sets in a directory, by their files alone."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

DATASET_INFO = "dataset_info.json"


def data_dir_root(data_dir: str | None) -> Path:
    """Returns the directory of prepared data sets; None: $TFDS_DATA_DIR or ~/tensorflow_datasets.

    Raises:
      ValueError: if the directory is not local.
    """
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    if "://" in root:
        raise ValueError(f"--data_dir={root}: only local directories are supported; copy it to one")
    return Path(root).expanduser()


def prepared_directory(
    root: Path, config: str | None = None, version: str | None = None
) -> Path | None:
    """Returns the directory of the highest prepared version of a data set; None if there is none.

    If `config` is None, the version is the highest of the data prepared without a config, if any;
    else of TFDS's default config, or of the only config in `root`, the directory of the data set.
    `version` is as for `_highest_version`.
    """
    directory = _highest_version(root / (config or ""), version)
    if directory is None and config is None and (default := _default_config(root)):
        directory = _highest_version(root / default, version)
    return directory


def _highest_version(directory: Path, version: str | None = None) -> Path | None:
    """Returns the prepared subdirectory of the highest version that matches a pattern, or None.

    `version` may have wildcards, such as "1.*.*"; None: any version.
    """
    pattern = re.escape(version or "*.*.*").replace(r"\*", r"\d+")
    matches = [
        path
        for path in subdirectories(directory)
        if re.fullmatch(pattern, path.name)
        and (path / DATASET_INFO).is_file()
        and (path / "features.json").is_file()
    ]
    return max(matches, key=lambda path: [*map(int, path.name.split("."))], default=None)


def _default_config(root: Path) -> str | None:
    from tensorflow_datasets.core import dataset_builder

    with contextlib.suppress(OSError, ValueError):
        if name := dataset_builder.load_default_config_name(root):
            return name
    configs = [path.name for path in subdirectories(root) if _highest_version(path)]
    return configs[0] if len(configs) == 1 else None


def subdirectories(directory: Path) -> list[Path]:
    """Returns the subdirectories of a directory, sorted; [] if it cannot be listed."""
    try:
        return sorted(path for path in directory.iterdir() if path.is_dir())
    except OSError:
        return []


def prepared_names(root: Path) -> list[str]:
    """Returns the `--dataset` values of the highest prepared version of each config.

    A value is, for example, "mnist:3.0.1" or "name/config:1.0.0". `root` is the directory of the
    data set.
    """
    highest = [_highest_version(path) for path in (root, *subdirectories(root))]
    paths = [path.relative_to(root.parent) for path in highest if path]
    return [f"{path.parent.as_posix()}:{path.name}" for path in paths]

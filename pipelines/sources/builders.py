"""Opens the TFDS builder of a data set by name, and prepares the data set if necessary.

A prepared data set is opened from its files, without the builder's code and without the network.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.errors import one_line_message
from pipelines.sources.preparation import prepare, quiet
from pipelines.sources.prepared_versions import (
    DATASET_INFO,
    data_dir_root,
    prepared_directory,
    prepared_names,
    subdirectories,
)


def open_builder(
    dataset: str,
    data_dir: str | None,
    prepared_only: bool = False,
    registered: Sequence[str] = (),
) -> Any:
    """Returns the TFDS builder of a data set, and prepares the data set if it is not on disk.

    Opens the highest prepared version that matches `dataset`.

    Args:
      dataset: "name[/config][:version]", or the path of a version directory.
      data_dir: directory of prepared data sets; None: $TFDS_DATA_DIR or ~/tensorflow_datasets.
      prepared_only: whether a data set that would have to be prepared is an error.
      registered: names of sources that the message for an unknown data set lists, too.

    Raises:
      ValueError: when the data set cannot be opened or prepared, or, with `prepared_only`, would
        have to be prepared; the message has one line.
    """
    as_path = Path(dataset).expanduser()
    if (as_path / DATASET_INFO).is_file():
        return _builder_from(as_path)
    if as_path.is_absolute() or dataset.startswith((".", "~")):
        raise ValueError(
            f"no prepared data set in {as_path}: give the version directory, which holds a "
            f"{DATASET_INFO}"
        )
    root = data_dir_root(data_dir)
    name, arguments = parse_name(dataset)
    if arguments.keys() <= {"config", "version"}:
        directory = prepared_directory(root / name, **arguments)
        if directory is not None:
            return _builder_from(directory)

    if prepared_only:
        raise ValueError(f"{dataset} is not prepared in {root}")
    builder = _builder_from_code(dataset, name, arguments, root, registered)
    # Data prepared before TFDS 4 has no features.json, so only the builder's code can read it.
    if not (Path(builder.data_dir) / DATASET_INFO).is_file():
        prepare(builder)
    return builder


def parse_name(dataset: str) -> tuple[str, dict[str, Any]]:
    """Splits "name/config:version" as TFDS does, into the name and the builder's arguments.

    The arguments are a dict, such as {"config": "small", "version": "1.0.0"}.

    Raises:
      ValueError: when the name is invalid or is that of a community data set ("namespace:name").
    """
    from tensorflow_datasets.core import naming

    try:
        name, arguments = naming.parse_builder_name_kwargs(dataset)
    except ValueError:
        raise ValueError(
            f"--dataset={dataset!r} is not a data set name; use name, name/config, name:1.0.0 or "
            "the path of a prepared version directory"
        ) from None
    if name.namespace:
        raise ValueError(
            f"--dataset={dataset} is a community data set, which would need the network to be "
            f"looked up; prepare it with TFDS and give --dataset={name.name} with its --data_dir"
        )
    return name.name, arguments


def _builder_from(directory: Path) -> Any:
    """Returns the builder of a version directory; raises ValueError if it cannot be read."""
    import tensorflow_datasets as tfds

    try:
        with quiet():
            return tfds.builder_from_directory(str(directory))
    except Exception as error:  # an error of JSON, protocol buffers or files
        raise ValueError(
            f"cannot read the data set in {directory}: {one_line_message(error, 120)}; prepare it "
            "again, or give another --data_dir"
        ) from error


def _builder_from_code(
    dataset: str, name: str, arguments: dict[str, Any], root: Path, registered: Sequence[str]
) -> Any:
    """Creates the builder of a data set, prepared or not, from its code in TFDS.

    Raises:
      ValueError: when TFDS has no such code, or the builder cannot be created; the message for an
        unknown data set lists the names `registered`, too.
    """
    import tensorflow_datasets as tfds

    with quiet():
        try:
            builder_class = tfds.builder_cls(name)
        except tfds.core.registered.DatasetNotFoundError:
            raise ValueError(_unknown(dataset, name, root, registered)) from None
        except ImportError as error:
            raise ValueError(
                f"the data set {name} needs a package that is not installed: "
                f"{one_line_message(error)}"
            ) from error
        configs = list(builder_class.builder_configs)
        config = arguments.get("config")
        if config is not None and config not in configs:
            known = _join(configs)
            raise ValueError(
                f"--dataset={dataset}: {name} has no config {config!r}; it has {known}"
            )
        try:
            return builder_class(data_dir=str(root), **arguments)
        except Exception as error:  # an unknown version, or any error of a builder's code
            raise ValueError(
                f"--dataset={dataset} cannot be opened: {one_line_message(error)}"
            ) from error


def _unknown(dataset: str, name: str, root: Path, registered: Sequence[str]) -> str:
    """Returns the error message for a data set that has no code in TFDS and is not prepared.

    If other versions or configs of the data set are prepared in `root`, the message lists these;
    otherwise it suggests similar names, `registered` ones included.
    """
    import tensorflow_datasets as tfds

    if (root / name).is_dir():
        return (
            f"--dataset={dataset} is not prepared in {root}, which has "
            f"{_join(prepared_names(root / name))}; give one of these, or prepare it with TFDS"
        )
    on_disk = [path.name for path in subdirectories(root) if prepared_names(path)]
    # Community data sets are left out, because their list is on the network.
    known = {*tfds.list_builders(with_community_datasets=False), *on_disk, *registered, "digits"}
    close = difflib.get_close_matches(name, sorted(known), n=3)
    guess = f"did you mean {', '.join(close)}?" if close else f"{root} has {_join(on_disk)}."
    own = f", or one of your own: {_join(list(registered))}" if registered else ""
    return (
        f"unknown data set {name!r}: {guess} Give a name that TFDS lists, or --dataset=digits{own}"
    )


def _join(names: list[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more if names else "none"

"""Opens the TFDS builder of a data set by name, and prepares the data set if necessary.

A prepared data set is opened from its files, without the builder's code and without the network.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import ssl
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.errors import one_line_message

# A lookup of a name can take minutes, whatever the connection's timeout: the probe is abandoned.
PROBE_TIMEOUT_SECONDS = 6.0
DATASET_INFO = "dataset_info.json"


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
    root = _resolve_data_dir(data_dir)
    name, arguments = parse_name(dataset)
    if arguments.keys() <= {"config", "version"}:
        directory = _prepared_directory(root / name, **arguments)
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


def _resolve_data_dir(data_dir: str | None) -> Path:
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    if "://" in root:
        raise ValueError(f"--data_dir={root}: only local directories are supported; copy it to one")
    return Path(root).expanduser()


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


def _prepared_directory(
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
        for path in _subdirectories(directory)
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
    configs = [path.name for path in _subdirectories(root) if _highest_version(path)]
    return configs[0] if len(configs) == 1 else None


def _subdirectories(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.is_dir())
    except OSError:
        return []


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
            f"{_join(_prepared_names(root / name))}; give one of these, or prepare it with TFDS"
        )
    on_disk = [path.name for path in _subdirectories(root) if _prepared_names(path)]
    # Community data sets are left out, because their list is on the network.
    known = {*tfds.list_builders(with_community_datasets=False), *on_disk, *registered, "digits"}
    close = difflib.get_close_matches(name, sorted(known), n=3)
    guess = f"did you mean {', '.join(close)}?" if close else f"{root} has {_join(on_disk)}."
    own = f", or one of your own: {_join(list(registered))}" if registered else ""
    return (
        f"unknown data set {name!r}: {guess} Give a name that TFDS lists, or --dataset=digits{own}"
    )


def _prepared_names(root: Path) -> list[str]:
    """Returns the `--dataset` values of the highest prepared version of each config.

    A value is, for example, "mnist:3.0.1" or "name/config:1.0.0". `root` is the directory of the
    data set.
    """
    highest = [_highest_version(path) for path in (root, *_subdirectories(root))]
    paths = [path.relative_to(root.parent) for path in highest if path]
    return [f"{path.parent.as_posix()}:{path.name}" for path in paths]


def _join(names: list[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more if names else "none"


def prepare(builder: Any) -> None:
    """Downloads and prepares the data set of a TFDS builder, as TFRecord files.

    If another process prepares the data set meanwhile, its files are used.

    Raises:
      ValueError: when the directory exists but is incomplete, when the network cannot be reached
        within `PROBE_TIMEOUT_SECONDS`, or when preparing fails; the message has one line.
    """
    import tensorflow_datasets as tfds

    name, root = builder.info.full_name, builder.data_dir_root
    if builder.data_path.exists():
        # TFDS would treat the incomplete directory as prepared and do nothing.
        raise ValueError(
            f"{builder.data_dir} exists but has no {DATASET_INFO}: remove that directory, or "
            "give another --data_dir"
        )
    urls = [url for url in builder.url_infos or () if url.startswith("http")]
    if urls and not is_reachable(urls[0]):
        raise ValueError(
            f"the data set {name} is not in {root} and the network cannot be reached: connect "
            "and run again, or prepare it on another machine and give its directory as "
            "--data_dir, or use the embedded data set: --dataset=digits"
        )
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    with quiet(progress=sys.stderr.isatty()):
        try:
            builder.download_and_prepare(download_config=config, file_format="tfrecord")
        except Exception as error:  # any error of a builder's code or of its server
            # If another process has prepared it meanwhile, the last rename fails.
            if not (Path(builder.data_dir) / DATASET_INFO).is_file():
                raise ValueError(
                    f"cannot prepare the data set {name} in {root}: {one_line_message(error)}"
                ) from error
            builder.info.read_from_directory(builder.data_dir)


def is_reachable(url: str, seconds: float = PROBE_TIMEOUT_SECONDS) -> bool:
    """Returns whether the host of `url` answers within `seconds`, through the configured proxies.

    Any answer counts, including an error status and an invalid certificate: the probe tests the
    network, not the file.
    """
    answered = threading.Event()

    def probe() -> None:
        request = urllib.request.Request(url, method="HEAD")
        with contextlib.suppress(Exception):
            try:
                urllib.request.urlopen(request, timeout=seconds).close()
            except urllib.error.HTTPError:
                pass
            except urllib.error.URLError as error:
                if not isinstance(error.reason, ssl.SSLError):  # the host answered
                    raise
            answered.set()

    thread = threading.Thread(target=probe, daemon=True, name="network-probe")
    thread.start()
    thread.join(seconds)
    return answered.is_set()


@contextlib.contextmanager
def quiet(progress: bool = False) -> Iterator[None]:
    """Hides progress bars, standard output and absl's logs up to warnings during a `with` block.

    With `progress`, shows progress bars, and redirects standard output to standard error instead.
    """
    import tensorflow_datasets as tfds
    from absl import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    tfds.display_progress_bar(progress)
    try:
        with (
            open(os.devnull, "w") as devnull,
            contextlib.redirect_stdout(sys.stderr if progress else devnull),
        ):
            yield
    finally:
        tfds.display_progress_bar(True)
        logging.set_verbosity(verbosity)

"""Downloads and prepares a TFDS data set, after a probe of the network."""

from __future__ import annotations

import contextlib
import os
import ssl
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipelines.errors import one_line_message
from pipelines.sources.prepared_versions import DATASET_INFO

# A lookup of a name can take minutes, whatever the connection's timeout: the probe is abandoned.
PROBE_TIMEOUT_SECONDS = 6.0


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

"""Downloads data sets that are not on disk, after a short probe of the network."""

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

# A name server that drops packets can block the caller for minutes, whatever the timeout of the
# connection is, so the probe is abandoned after this time.
PROBE_TIMEOUT_SECONDS = 6.0
DATASET_INFO = "dataset_info.json"


def one_line_message(error: BaseException, limit: int = 300) -> str:
    """Returns the message of an error on one line of at most `limit` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def prepare(builder: Any) -> None:
    """Downloads and prepares the data set of a TFDS builder, as TFRecord files.

    Raises:
      ValueError: when this fails, within 10 s if the network cannot be reached; of one line.
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

    Any answer counts, including an error status: the probe tests the network, not the file.
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
    """Context manager that silences TFDS: no standard output, and only errors in the log.

    With `progress`, progress bars are shown, and standard output goes to standard error.
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

"""Opens the data set that `--dataset` names: a user's source, a folder, a text, or a TFDS one."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.source import Source
from pipelines.sources.description import Description, SourceOptions

FOLDER = "folder:"
TEXT = "text:"


def open_dataset(
    dataset: str, options: SourceOptions, registered: Callable[[], Description | Source] | None
) -> Source:
    """Opens a data set: a user's registered source, a folder of images, a text, or one of TFDS.

    Args:
      dataset: value of `--dataset`: the name of a registered source, "folder:PATH", "text:PATH", or
        a TFDS data set as for `open_tfds`.
      options: options that select and prepare the data.
      registered: the user's function that `dataset` names, which returns a description or a source;
        None: `dataset` names no registered source.

    Raises:
      ValueError: when the data set or a split cannot be used; the message has one line.
    """
    source = _opened(dataset, options, registered)
    for name, value in (("context", options.context), ("tokens", options.tokens)):
        if value not in (0, "auto") and not source.tokens:
            raise ValueError(f"--{name}={value}: is for texts, and {source.name} is none")
    return source


def _opened(
    dataset: str, options: SourceOptions, registered: Callable[[], Description | Source] | None
) -> Source:
    if registered is not None:
        described = registered()
        if isinstance(described, Source):
            return described
        if not hasattr(described, "open"):
            raise ValueError(
                f"--dataset={dataset}: the source has to return what tl.arrays, tl.folder, tl.tfds "
                f"or the like return, and returned {type(described).__name__}"
            )
        return described.open(dataset, options)
    # Imported on use: a source of another kind needs neither of the two.
    if dataset.startswith(FOLDER):
        from pipelines.sources.folder import folder

        path = dataset.removeprefix(FOLDER)
        return folder(path).open(path.rstrip("/").split("/")[-1] or path, options)
    if dataset.startswith(TEXT):
        from pipelines.sources.text import text

        path = dataset.removeprefix(TEXT)
        return text(path).open(path.rstrip("/").split("/")[-1] or path, options)
    from pipelines.sources.tfds import open_tfds

    return open_tfds(dataset, options)

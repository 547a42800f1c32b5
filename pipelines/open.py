"""Opens a data set by the value of `--dataset`, whatever kind it is."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.source import Source
from pipelines.sources.description import Description, SourceOptions

FOLDER = "folder:"


def open_dataset(
    dataset: str, options: SourceOptions, registered: Callable[[], Description | Source] | None
) -> Source:
    """Opens a data set: what a registered function describes, a folder, or one of TFDS.

    `registered` returns the description of the source that `dataset` names; None: it names none.

    Raises:
      ValueError: when the data set or a split cannot be used; the message has one line.
    """
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
    from pipelines.sources.tfds import open_tfds

    return open_tfds(dataset, options)

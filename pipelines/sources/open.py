"""Opens the data set that `--dataset` names: a user's source, an image folder, or one of TFDS."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.source import Source
from pipelines.sources.description import Description, SourceOptions

FOLDER = "folder:"


def open_dataset(
    dataset: str, options: SourceOptions, registered: Callable[[], Description | Source] | None
) -> Source:
    """Opens a data set: a user's registered source, a folder of images, or a data set of TFDS.

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

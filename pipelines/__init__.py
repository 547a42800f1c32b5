"""Raw data -> batches.

    source = open_source("digits", data_dir=None, cache_dir=default_cache_dir())
    feed = open_feed("resident", source, source.train, global_batch_size=128, seed=0, ...)

Imports neither `engine` nor `models`.
"""

from pipelines.augment import Augmentation, augmentation
from pipelines.cache import default_dir as default_cache_dir
from pipelines.errors import reason
from pipelines.feed import choose_feed, open_feed
from pipelines.identity import Identity, identity_of
from pipelines.lookup import Examples, examples_of, examples_of_step, labels_of, stored_images
from pipelines.order import permutation, steps_per_epoch
from pipelines.pictures import Wanted, read_array, wanted
from pipelines.pictures import read as read_picture
from pipelines.plan import Batch, Feed, Layout, Opened, opened
from pipelines.resident import Resident
from pipelines.resize import Resize
from pipelines.source import Records, Source, open_source
from pipelines.stream import Stream

__all__ = [
    "Augmentation",
    "Batch",
    "Examples",
    "Feed",
    "Identity",
    "Layout",
    "Opened",
    "Records",
    "Resident",
    "Resize",
    "Source",
    "Stream",
    "Wanted",
    "augmentation",
    "choose_feed",
    "default_cache_dir",
    "examples_of",
    "examples_of_step",
    "identity_of",
    "labels_of",
    "open_feed",
    "open_source",
    "opened",
    "permutation",
    "read_array",
    "read_picture",
    "reason",
    "steps_per_epoch",
    "stored_images",
    "wanted",
]

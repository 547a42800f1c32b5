"""Input pipelines: data set on disk -> batches.

    source = open_source("digits", data_dir=None, cache_dir=default_cache_dir())
    feed = open_feed("resident", source, source.train, global_batch_size=128, seed=0, ...)

Does not import `engine` or `models`.
"""

from pipelines.augment import Augmentation, augmentation
from pipelines.cache import default_dir as default_cache_dir
from pipelines.errors import reason
from pipelines.feed import choose_feed, open_feed
from pipelines.host import usable_cores
from pipelines.identity import DataIdentity, identity_of
from pipelines.lookup import Examples, examples_of, examples_of_step, labels_of, stored_images
from pipelines.order import permutation, steps_per_epoch
from pipelines.pictures import ImageSpec, read_array, wanted
from pipelines.pictures import read as read_picture
from pipelines.plan import Batch, BatchLayout, Feed, OpenedSteps, opened
from pipelines.resident import InMemoryFeed
from pipelines.resize import Resize
from pipelines.source import DataSplit, Source, open_source
from pipelines.stream import StreamingFeed

__all__ = [
    "Augmentation",
    "Batch",
    "BatchLayout",
    "DataIdentity",
    "DataSplit",
    "Examples",
    "Feed",
    "ImageSpec",
    "InMemoryFeed",
    "OpenedSteps",
    "Resize",
    "Source",
    "StreamingFeed",
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
    "usable_cores",
    "wanted",
]

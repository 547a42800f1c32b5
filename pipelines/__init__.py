"""Input pipelines: from a data set on disk to batches. Start at `open_dataset` and `open_feed`."""

from pipelines.augment import Augmentation, augmentation_of, parse_augmentation, with_crop
from pipelines.augment import register as register_augmentation
from pipelines.augment import register_pair as register_pair_augmentation
from pipelines.batch_layout import Batch, BatchLayout, Feed, OpenedSteps, opened
from pipelines.cache import default_dir as default_cache_dir
from pipelines.errors import reason
from pipelines.example_access import (
    Examples,
    read_examples,
    read_step_examples,
    read_stored_images,
    read_targets,
)
from pipelines.feed import choose_feed, feed_kinds, open_feed
from pipelines.fitting import fitted
from pipelines.host import usable_cores
from pipelines.identity import DataIdentity, data_identity
from pipelines.nests import Nest, Spec, described, example_bytes
from pipelines.nests import paths as leaf_paths
from pipelines.open import open_dataset
from pipelines.order import permutation, steps_per_epoch
from pipelines.pictures import (
    ImageFormat,
    ImageSpec,
    converts_pictures,
    image_format,
    image_spec,
    read_array,
)
from pipelines.pictures import read as read_picture
from pipelines.preprocessing import SCALES, Preprocessing
from pipelines.records import RecordSplit
from pipelines.replicas import per_replica_values
from pipelines.resident import InMemoryFeed
from pipelines.resize import Resize
from pipelines.saved_source import source_from_json, source_to_json
from pipelines.source import Source
from pipelines.sources.arrays import arrays
from pipelines.sources.csv import csv
from pipelines.sources.description import SourceOptions
from pipelines.sources.from_dataset import from_dataset
from pipelines.sources.random_access import random_access
from pipelines.splits import DataSplit
from pipelines.stream import StreamingFeed

__all__ = [
    "SCALES",
    "Augmentation",
    "Batch",
    "BatchLayout",
    "DataIdentity",
    "DataSplit",
    "Examples",
    "Feed",
    "ImageFormat",
    "ImageSpec",
    "InMemoryFeed",
    "Nest",
    "OpenedSteps",
    "Preprocessing",
    "RecordSplit",
    "Resize",
    "Source",
    "SourceOptions",
    "Spec",
    "StreamingFeed",
    "arrays",
    "augmentation_of",
    "choose_feed",
    "converts_pictures",
    "csv",
    "data_identity",
    "default_cache_dir",
    "described",
    "example_bytes",
    "feed_kinds",
    "fitted",
    "from_dataset",
    "image_format",
    "image_spec",
    "leaf_paths",
    "open_dataset",
    "open_feed",
    "opened",
    "parse_augmentation",
    "per_replica_values",
    "permutation",
    "random_access",
    "read_array",
    "read_examples",
    "read_picture",
    "read_step_examples",
    "read_stored_images",
    "read_targets",
    "reason",
    "register_augmentation",
    "register_pair_augmentation",
    "source_from_json",
    "source_to_json",
    "steps_per_epoch",
    "usable_cores",
    "with_crop",
]

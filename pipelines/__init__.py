"""Input pipelines: from a data set to batches. Start at `open_dataset` and `open_feed`."""

from pipelines.augmentation.augment import Augmentation
from pipelines.augmentation.registry import register as register_augmentation
from pipelines.augmentation.registry import register_pair as register_pair_augmentation
from pipelines.augmentation.spec import augmentation_of, parse_augmentation, with_crop
from pipelines.augmentation.views import WeightedView, register_view, views_of
from pipelines.errors import reason
from pipelines.feeds.batch_layout import (
    Batch,
    BatchLayout,
    Feed,
    OpenedSteps,
    opened,
    unpadded_batch,
)
from pipelines.feeds.feed import choose_feed, feed_kinds, open_feed
from pipelines.feeds.replicas import per_replica_values
from pipelines.feeds.resident import InMemoryFeed
from pipelines.feeds.stream import StreamingFeed
from pipelines.host import available_memory, usable_cores
from pipelines.images.pictures import (
    ImageFormat,
    ImageSpec,
    converts_pictures,
    image_format,
    image_spec,
    read_array,
)
from pipelines.images.pictures import read as read_picture
from pipelines.images.resize import Resize
from pipelines.nests import Nest, Spec, described, example_bytes
from pipelines.nests import paths as leaf_paths
from pipelines.order import fixed as fixed_numbers
from pipelines.order import permutation, steps_per_epoch
from pipelines.preprocessing import SCALES, Preprocessing
from pipelines.selection import size_text, with_selected
from pipelines.source import Source
from pipelines.sources.arrays import arrays
from pipelines.sources.csv import csv
from pipelines.sources.description import SourceOptions
from pipelines.sources.fitting import fitted
from pipelines.sources.from_dataset import from_dataset
from pipelines.sources.open import open_dataset
from pipelines.sources.random_access import random_access
from pipelines.sources.saved_source import source_from_json, source_to_json
from pipelines.sources.text import text
from pipelines.splits import DataSplit
from pipelines.storage.cache import default_dir as default_cache_dir
from pipelines.storage.cache import load_programs, store_program
from pipelines.storage.example_access import (
    Examples,
    read_examples,
    read_step_examples,
    read_stored_images,
    read_targets,
    source_of,
)
from pipelines.storage.identity import DataIdentity, data_identity
from pipelines.storage.records import RecordSplit
from pipelines.vocabulary import Vocabulary

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
    "Vocabulary",
    "WeightedView",
    "arrays",
    "augmentation_of",
    "available_memory",
    "choose_feed",
    "converts_pictures",
    "csv",
    "data_identity",
    "default_cache_dir",
    "described",
    "example_bytes",
    "feed_kinds",
    "fitted",
    "fixed_numbers",
    "from_dataset",
    "image_format",
    "image_spec",
    "leaf_paths",
    "load_programs",
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
    "register_view",
    "size_text",
    "source_from_json",
    "source_of",
    "source_to_json",
    "steps_per_epoch",
    "store_program",
    "text",
    "unpadded_batch",
    "usable_cores",
    "views_of",
    "with_crop",
    "with_selected",
]

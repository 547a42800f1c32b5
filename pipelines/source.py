"""A data set: its splits, the decoder of its examples, and the preprocessing for the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from pipelines.augmentation.resized_crop import ResizedCrop
from pipelines.errors import PREPARE_AGAIN
from pipelines.images.resize import Resize
from pipelines.nests import Nest, Spec
from pipelines.preprocessing import Preprocessing
from pipelines.splits import DataSplit
from pipelines.vocabulary import Vocabulary


# Compared by identity: splits may hold arrays, and specs may be dicts, which have no hash.
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """A data set of inputs and targets: nests of numeric or bool tensors of fixed shapes.

    A validation set without a name of its own is called "validation".

    A split's reader returns stored examples. Decoded examples are pairs (inputs, targets), which
    feeds and the cache hold. A model gets `preprocess(inputs)`.
    """

    name: str  # "mnist", or "name/config"
    version: str  # "3.0.1"
    train: DataSplit
    validation_sets: Mapping[str, DataSplit] = dataclasses.field(default_factory=dict)  # by name
    test: DataSplit | None = None
    decoded: tuple[Spec, Spec]  # of the inputs and targets of a decoded example
    # A stored example -> (inputs, targets), in the graph; None: they are stored decoded.
    decode: Callable[[Nest], tuple[Nest, Nest]] | None = None
    recipe: str = ""  # describes everything that affects the result of `decode`, for cache keys
    class_names: tuple[str, ...] = ()  # empty where the targets are no classes
    tokens: str = ""  # of text: "characters" or "bytes", whose names are `class_names`; "": no text
    preprocess: Preprocessing = dataclasses.field(default_factory=Preprocessing)
    features: str = ""  # text about which features are the inputs and targets; "": nothing to say
    remedy: str = PREPARE_AGAIN  # what to do about damaged data, for messages
    notes: tuple[str, ...] = ()  # lines about the data to print at the start of a run

    # Of sources whose inputs are one image:
    # as `decode`, without resizing: -> (image [h, w, C] of its stored size, targets)
    decode_stored: Callable[[Nest], tuple[Nest, Nest]] | None = None
    stored_shape: tuple[int | None, int | None, int] | None = None  # None: as image_shape
    fit: str = "pad"  # how images of another size are resized, see Resize
    antialias: bool = True
    crop: ResizedCrop | None = None  # of the images to train on, at decoding

    def decode_unresized(self, stored: Nest) -> tuple[Nest, Nest]:
        """Decodes a stored example to (inputs, targets), in the graph; an image is not resized."""
        decode = self.decode_stored or self.decode
        return decode(stored) if decode else stored

    @property
    def inputs(self) -> Spec:
        """Spec of an example's inputs to a model, after `preprocess`."""
        return self.preprocess.specs(self.decoded[0])

    @property
    def targets(self) -> Spec:
        """Spec of an example's targets."""
        return self.decoded[1]

    @property
    def validation(self) -> DataSplit | None:
        """The first validation set; None if there is none."""
        return next(iter(self.validation_sets.values()), None)

    @property
    def held_out(self) -> dict[str, DataSplit]:
        """The validation sets by name, and "test", if there is a test split."""
        test = {} if self.test is None else {"test": self.test}
        return {**self.validation_sets, **test}

    @property
    def splits(self) -> dict[str, DataSplit]:
        """All splits by name: "train", the validation sets, and "test", if there is one."""
        return {"train": self.train, **self.held_out}

    @property
    def classes(self) -> int:
        """Number of classes; labels are 0 to classes - 1. 0 if the targets are not class labels."""
        return len(self.class_names)

    @property
    def vocabulary(self) -> Vocabulary:
        """Tokens of a text; ValueError if the examples are not windows of a text."""
        if not self.tokens:
            raise ValueError(f"{self.name} is not a text: give one, such as --dataset=text:PATH")
        return Vocabulary(self.tokens, self.class_names)

    @property
    def has_labels(self) -> bool:
        """Whether the targets of an example are one class label, a scalar."""
        return bool(self.classes) and getattr(self.targets, "shape", None) == []

    @property
    def has_images(self) -> bool:
        """Whether the inputs of an example are one image: a tensor of rank 3, uint8 or float32."""
        image = self.decoded[0]
        return (
            hasattr(image, "shape")
            and image.shape.rank == 3
            and image.dtype.name in ("uint8", "float32")
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of decoded images; ValueError if inputs are not one image."""
        if not self.has_images:
            raise ValueError(
                f"the inputs of {self.name} are not one image: this works for images only"
            )
        height, width, channels = self.decoded[0].shape
        return height, width, channels

    @property
    def dtype(self) -> str:
        """Data type of the decoded images, "uint8" or "float32".

        Only a source whose inputs are one image (`has_images`) has it.
        """
        return str(self.decoded[0].dtype.name)

    @property
    def resize(self) -> Resize:
        """Function that resizes an image of any size to the height and width of `image_shape`.

        ValueError if the inputs are not one image.
        """
        return Resize(self.image_shape[:2], self.fit, self.antialias)

    @property
    def stored_size(self) -> tuple[int, int] | None:
        """Height and width of the stored images; None if they vary.

        ValueError if the inputs are not one image.
        """
        height, width, _ = self.stored_shape or self.image_shape
        return None if height is None or width is None else (height, width)

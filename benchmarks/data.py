"""Writes MNIST as arrays to one .npz file, for contenders without TFDS.

python -m benchmarks.data DATA_DIR mnist.npz
"""

from __future__ import annotations

import sys

from engine.runtime.startup import import_tensorflow


def main() -> None:
    """Decodes MNIST's training and test splits and writes their images and labels."""
    import_tensorflow()
    import numpy as np

    from pipelines import default_cache_dir
    from pipelines.sources.tfds import open_source
    from pipelines.storage.decode import decode_split

    data_dir, path = sys.argv[1:]
    source = open_source(
        "mnist", data_dir=data_dir, cache_dir=default_cache_dir(), validation_split="0"
    )
    assert source.test is not None
    images, labels = decode_split(source, source.train)
    test_images, test_labels = decode_split(source, source.test)
    np.savez(path, images=images, labels=labels, test_images=test_images, test_labels=test_labels)


if __name__ == "__main__":
    main()

"""Makes a large dataset: MNIST with a repeated training split, one shard for each repetition.

    python -m benchmarks.repeated DATA_DIR TARGET 100

TARGET becomes a data_dir whose mnist has 100 times as many training examples, 2 GB in total.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path


def repeat(data_dir: Path, target: Path, times: int) -> int:
    """Writes MNIST with a repeated training split.

    Args:
      data_dir: directory in which MNIST is prepared, in one shard.
      target: TFDS directory to write to, which does not contain MNIST yet.
      times: number of repetitions.

    Returns:
      Number of examples of the new training split.
    """
    (source,) = data_dir.glob("mnist/*/dataset_info.json")
    place = target / source.parent.relative_to(data_dir)
    place.mkdir(parents=True)
    info = json.loads(source.read_text())
    train = next(split for split in info["splits"] if split["name"] == "train")
    (count,) = train["shardLengths"]
    train["shardLengths"] = [count] * times
    train["numBytes"] = str(times * int(train["numBytes"]))
    (place / source.name).write_text(json.dumps(info, indent=1) + "\n")
    shutil.copyfile(source.with_name("features.json"), place / "features.json")
    (test,) = source.parent.glob("mnist-test.tfrecord-*")
    shutil.copyfile(test, place / test.name)
    (shard,) = source.parent.glob("mnist-train.tfrecord-*")
    for number in range(times):
        name = f"mnist-train.tfrecord-{number:05}-of-{times:05}"
        shutil.copyfile(shard, place / name)
    return times * int(count)


if __name__ == "__main__":
    repeat(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))

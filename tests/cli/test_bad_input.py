"""Tests of bad input: an error line names it, the exit status is 2, and no file is written."""

from __future__ import annotations

import json
import shutil
import socket
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tests.cli.command import Command, Outcome, Warm


class Sample(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """TFDS data set of random images in three classes; subclasses have other features."""

    VERSION = tfds.core.Version("1.0.0")
    FEATURES = {  # noqa: RUF012
        "image": tfds.features.Image(shape=(8, 8, 1)),
        "label": tfds.features.ClassLabel(num_classes=3),
    }

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(self.FEATURES),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(60), "test": self._generate_examples(12)}

    def _generate_examples(self, examples):
        random = np.random.default_rng(examples)
        for index in range(examples):
            yield index, self.example(random.integers(0, 256, (8, 8, 1), np.uint8), index)

    def example(self, image, index):
        return {"image": image, "label": index % 3}


class Unlabelled(Sample, skip_registration=True):
    FEATURES = {"image": tfds.features.Image(shape=(8, 8, 1))}  # noqa: RUF012

    def example(self, image, index):
        return {"image": image}


class Varying(Sample, skip_registration=True):
    FEATURES = {  # noqa: RUF012
        "image": tfds.features.Image(shape=(None, None, 1)),
        "label": tfds.features.ClassLabel(num_classes=3),
    }

    def example(self, image, index):
        return {"image": image[: 4 + index % 5], "label": index % 3}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepares `Sample`, `Unlabelled` and `Varying`, each split in two files; returns data_dir."""
    root = tmp_path_factory.mktemp("shelf")
    tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(num_shards=2)
    for kind in (Sample, Unlabelled, Varying):
        kind(data_dir=str(root)).download_and_prepare(download_config=config)
    return root


@pytest.fixture(scope="module")
def finished(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trains a run to its end; returns its run directory."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    outcome = warm.run(f"--run_dir={run_dir}", "--model=logistic", "--epochs=1")
    assert outcome.status == 0, outcome.said()
    return run_dir


def line_of(outcome: Outcome) -> str:
    """Asserts that a command ended with status 2 and one error line; returns the error message.

    Also asserts that nothing is on standard output and that the message has no internals, such as a
    traceback.
    """
    assert outcome.status == 2, outcome.said()
    assert outcome.out == "", outcome.said()
    assert outcome.err.startswith("error: ") and outcome.err.endswith("\n"), outcome.said()
    (line,) = outcome.err.splitlines()
    text = line.removeprefix("error: ")
    assert len(text.split()) > 3, outcome.said()
    # The messages of TensorFlow and absl do not help users.
    for foreign in ("Traceback", "{{", "[Op:", "ERROR:", "0x"):
        assert foreign not in text, outcome.said()
    return text


def contents(folder: Path) -> dict[str, bytes]:
    """Returns the content of every file below a directory, by relative path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Checks without TensorFlow


@pytest.fixture
def without_tensorflow(tmp_path: Path) -> dict[str, str]:
    """Returns an environment in which importing TensorFlow ends the process with status 77."""
    for name in ("tensorflow", "tensorflow_datasets"):
        (tmp_path / f"{name}.py").write_text("import os; os._exit(77)\n")
    return {"PYTHONPATH": str(tmp_path)}


SHOWN_BY_THE_OPTIONS = {
    "--epoch=3": ["--epoch", "epochs"],
    "--no_such_flag": ["--no_such_flag", "--help"],
    "--optimizer=adamm": ["--optimizer=adamm", "adamw", "did you mean 'adam'"],
    "--global_batch_size=0": ["--global_batch_size=0", "at least 1"],
    "--global_batch_size=many": ["--global_batch_size=many"],
    "--hidden=abc": ["--hidden=abc", "512,512"],
    "--hidden=0": ["--hidden=0:", "at least 1"],
    "--learning_rate=nan": ["--learning_rate=nan", "finite"],
    "--learning_rate=0": ["--learning_rate=0", "above 0"],
    "--steps_per_loop=many": ["--steps_per_loop=many", "auto"],
    "--keep=0": ["--keep=0", "at least"],
    "digits": ["'digits'", "--name=value"],
    "--flagfile=nowhere.flags": ["nowhere.flags"],
    "--mode=trian": ["--mode=trian", "train", "evaluate"],
    "--mode=predict": ["no run here", "train one first"],
    "--mode=export": ["no run here", "train one first"],
    "--profile=7": ["--profile=7", "START:END"],
    "--mode=evaluate": ["no run here", "train one first"],
    "--strategy=gpu --virtual_devices=2": ["--strategy=gpu", "--virtual_devices=2", "leave one"],
    "--strategy=multi_worker --virtual_devices=2": ["multi_worker", "leave one"],
    "--strategy=multi_worker": ["TF_CONFIG is not set", '"worker"'],
    "--strategy=multi_worker --cluster=slurm": ["--cluster=slurm", "srun"],
    "--resume=must": ["--resume=must", "no checkpoint"],
    "--precision=float16": ["--precision=float16", "mixed_float16"],
    "--loss_scale=1000": ["--loss_scale=1000", "power of 2"],
    "--shards=3": ["--shards=3", "power of 2"],
    "--accumulate=65 --global_batch_size=64": ["--accumulate=65", "--global_batch_size=64"],
    "--ema=1": ["--ema=1", "below 1"],
    "--weight_decay=-0.5": ["--weight_decay=-0.5", "-1"],
    "--learning_rate=1e39": ["--learning_rate=1e+39:", "infinite in float32"],
    "--clip_norm=1e39": ["--clip_norm=1e+39:", "infinite in float32"],
    "--ema=0.999999999": ["--ema=0.999999999:", "is 1 in float32"],
    "--epsilon=1e-46": ["--epsilon=1e-46:", "is 0 in float32"],
    "--schedule=one_cycle --warmup_steps=10": [
        "--schedule=one_cycle",
        "--warmup_steps=10",
        "leave",
    ],
    "--mode=verify --optimizer=lion --beta_1=0": ["--optimizer=lion", "--beta_1=0", "above 0"],
    "--mode=benchmark --schedule=cosine --final_fraction=2": ["--final_fraction=2.0", "cosine"],
    "--mode=tune --precision=mixed_float16 --loss_scale_floor=65536": [
        "--loss_scale_floor=65536.0",
        "--loss_scale=32768",
        "--precision=mixed_float16",
    ],
}


@pytest.mark.parametrize(
    ("arguments", "expected"), SHOWN_BY_THE_OPTIONS.items(), ids=SHOWN_BY_THE_OPTIONS
)
def test_bad_options_before_import(
    command: Command,
    tmp_path: Path,
    without_tensorflow: dict[str, str],
    arguments: str,
    expected: list[str],
):
    """Options that are invalid for any data and devices are refused without TensorFlow's import."""
    run_dir = tmp_path / "run"
    line = line_of(command.run(f"--run_dir={run_dir}", *arguments.split(), **without_tensorflow))
    for words in expected:
        assert words in line
    assert not run_dir.exists()


# Checks with TensorFlow


CANNOT_BE_DONE = {
    "--dataset=digit": ["digit", "did you mean", "digits"],
    "--dataset=no_such_data": ["unknown data set 'no_such_data'", "--dataset=digits"],
    "--monitor=validation_top5": ["--monitor=validation_top5:", "validation_accuracy"],
    "--train_split=nope": ["--train_split=nope:", "'nope'", "train, test"],
    "--train_split=train[": ["--train_split=train[:", "cannot be read"],
    "--train_split=train[:0]": ["--train_split=train[:0]:", "no examples"],
    "--validation_split=nope": ["--validation_split=nope:", "'nope'", "a fraction"],
    "--test_split=nope": ["--test_split=nope:", "'nope'", "train, test"],
    "--validation_split=1.5": ["--validation_split=1.5:", "between 0 and 1"],
    "--validation_split=0.99999": ["--validation_split=0.99999:", "none for train"],
    "--validation_split=train[90%:]": [
        "--validation_split=train[90%:]:",
        "shares examples",
        "--train_split",
    ],
    "--monitor=validation_loss --validation_split=0": ["--monitor", "train_loss"],
    "--warmup_steps=100 --train_steps=100": ["--warmup_steps=100", "100 steps"],
    "--model=seed_000": ["pool", "1x1", "--image_size"],
    "--strategy=gpu": ["--strategy=gpu", "no GPU", "CUDA_VISIBLE_DEVICES= hides", "cpu.flags"],
    "--gpu_memory_mb=4096": ["--gpu_memory_mb=4096", "no GPU", "leave the option out"],
    "--gpu_memory_mb=255": ["--gpu_memory_mb=255", "256 or more"],
    "--gpu_memory_mb=512 --virtual_devices=2": ["--gpu_memory_mb=512", "--virtual_devices=2"],
    "--deterministic=maybe": ["--deterministic=maybe", "auto, yes, no"],
    "--flagfile=gpu.flags": ["--strategy=gpu", "no GPU", "cpu.flags"],
    "--flagfile=multi_gpu.flags": [
        "--strategy=mirrored",
        "no GPU",
        "cpu.flags",
        "--virtual_devices=2",
    ],
    "--mode=tune --tuned_flags=": ["--tuned_flags=:", "give a file"],
    "--mode=tune --tuned_flags=nowhere/x.flags": ["nowhere/x.flags", "written to"],
    "--scale=none --model=mlp": ["dense relu", "uint8", "--scale=unit"],
    "--scale=none --model=cnn": ["convolution", "uint8", "--scale=unit"],
    "--mode=inspect --inspect_path=nowhere/x.html": ["nowhere/x.html", "written to"],
    "--jit=loop --virtual_devices=2": ["--jit=loop", "one device"],
    "--shards=2 --virtual_devices=4": ["--shards=2", "4 devices"],
    "--augment=shfit": ["--augment=shfit", "did you mean 'shift'"],
    "--augment=shift:8": ["--augment=shift:8", "below 8 pixels"],
    "--augment=crop:8": ["--augment=crop:8", "1 to 7 pixels"],
    "--augment=randaugment:2:40": ["--augment=randaugment:2:40", "at most 30"],
    "--augment=resized_crop:2": ["--augment=resized_crop:2", "at most 1"],
    "--augment=resized_crop --feed=resident": ["--feed=resident", "--augment=resized_crop"],
    "--seed=99999999999999999999": ["--seed"],
    "--leave_out=3,20 --train_steps=20": ["--leave_out=3,20:", "only 20 steps, from 0 to 19"],
    "--leave_out=0,1 --train_steps=2": ["--leave_out=0,1:", "all 2 steps"],
    "--leave_out=105": ["--leave_out=105:", "only 55 steps"],
    "--profile=20:30 --train_steps=20": ["--profile=20:30:", "only 20 steps"],
    "--train_steps=9007199254740992": ["--train_steps=9007199254740992:", "2^53"],
    "--epochs=9007199254740992": ["--epochs=9007199254740992:", "2^53"],
    "--mode=verify --leave_out=20 --train_steps=20": ["--leave_out=20:", "only 20 steps"],
    "--mode=verify --warmup_steps=20 --train_steps=20": ["--warmup_steps=20:", "only 20 steps"],
    "--mode=benchmark --profile=20:30 --train_steps=20": ["--profile=20:30:", "only 20 steps"],
}


@pytest.mark.parametrize(("arguments", "expected"), CANNOT_BE_DONE.items(), ids=CANNOT_BE_DONE)
def test_impossible_options_write_nothing(
    warm: Warm, tmp_path: Path, arguments: str, expected: list[str]
):
    """Options that do not fit the data, the model or the devices are refused before any write."""
    run_dir = tmp_path / "run"
    line = line_of(warm.run(f"--run_dir={run_dir}", *arguments.split()))
    for words in expected:
        assert words in line
    assert not run_dir.exists()


def test_refusal_without_tensorflow_log(command: Command, tmp_path: Path):
    """A refusal after TensorFlow's import prints none of TensorFlow's log messages."""
    outcome = command.run(f"--run_dir={tmp_path / 'run'}", "--monitor=validation_top5")
    assert "--monitor=validation_top5" in line_of(outcome)


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_run_dir_is_file(warm: Warm, tmp_path: Path, below: str):
    """A run directory that is a file, or is below one, is refused."""
    file = tmp_path / "file"
    file.write_text("mine")
    line = line_of(warm.run(f"--run_dir={file / below}"))
    assert f"{file} is a file" in line and "--run_dir" in line
    assert file.read_text() == "mine"


def test_varying_sizes_need_image_size(warm: Warm, shelf: Path, tmp_path: Path):
    arguments = "--dataset=varying", f"--data_dir={shelf}", f"--run_dir={tmp_path / 'run'}"
    line = line_of(warm.run(*arguments))
    assert "varying vary in size" in line and "--image_size=64,64" in line
    assert not (tmp_path / "run").exists()
    outcome = warm.run(*arguments, "--image_size=8,8", "--epochs=1")
    assert outcome.status == 0, outcome.said()
    outcome = warm.run("--mode=export", f"--run_dir={tmp_path / 'run'}")  # validated size by size
    assert outcome.status == 0, outcome.said()
    assert json.loads(outcome.out.splitlines()[-1])["images"][:2] == [None, None]


def test_unlabelled_data(warm: Warm, shelf: Path, tmp_path: Path):
    arguments = "--dataset=unlabelled", f"--data_dir={shelf}", f"--run_dir={tmp_path / 'run'}"
    line = line_of(warm.run(*arguments))
    assert "unlabelled has no labels" in line and "image" in line
    assert not (tmp_path / "run").exists()


# Damaged data


def cut_short(folder: Path) -> None:
    shard = folder / "sample-train.tfrecord-00001-of-00002"
    shard.write_bytes(shard.read_bytes()[:-50])


def cut_in_half(folder: Path) -> None:
    shard = folder / "sample-train.tfrecord-00001-of-00002"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])


def flip_a_byte(folder: Path) -> None:
    shard = folder / "sample-train.tfrecord-00000-of-00002"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)


def flip_a_byte_of_test(folder: Path) -> None:
    shard = folder / "sample-test.tfrecord-00001-of-00002"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 0xFF
    shard.write_bytes(content)


def replace_by_text(folder: Path) -> None:
    shard = folder / "sample-train.tfrecord-00001-of-00002"
    shard.write_text("<html>404 not found</html>\n" * 1000)


def delete_a_shard(folder: Path) -> None:
    (folder / "sample-train.tfrecord-00001-of-00002").unlink()


def garble_the_info(folder: Path) -> None:
    (folder / "dataset_info.json").write_text('{"name": "sample", ')


@pytest.mark.parametrize("feed", ["resident", "stream"])
@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (cut_short, "sample-train.tfrecord-00001-of-00002"),
        (cut_in_half, "sample/1.0.0 (train)"),
        (flip_a_byte, "sample-train.tfrecord-00000-of-00002"),
        (flip_a_byte_of_test, "sample-test.tfrecord-00001-of-00002"),
        (replace_by_text, "sample-train.tfrecord-00001-of-00002"),
        (delete_a_shard, "sample-train.tfrecord-00001-of-00002"),
        (garble_the_info, "sample/1.0.0"),
    ],
)
def test_damaged_data(
    warm: Warm,
    shelf: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    named: str,
    feed: str,
):
    """Damaged data is refused before training, and the error names the damaged file or split."""
    shutil.copytree(shelf / "sample", tmp_path / "sample")
    damage(tmp_path / "sample" / "1.0.0")
    run_dir = tmp_path / "run"
    outcome = warm.run(
        "--dataset=sample", f"--data_dir={tmp_path}", f"--run_dir={run_dir}", f"--feed={feed}"
    )
    line = line_of(outcome)
    assert str(tmp_path) in line and named in line
    assert "again" in line  # the remedy: copy or prepare it again
    assert not run_dir.exists()


@pytest.mark.parametrize("feed", ["resident", "stream"])
def test_undecodable_example(warm: Warm, shelf: Path, tmp_path: Path, feed: str):
    """An example that cannot be decoded, with a valid checksum, is refused before training."""
    shutil.copytree(shelf / "sample", tmp_path / "sample")
    shard = tmp_path / "sample" / "1.0.0" / "sample-train.tfrecord-00001-of-00002"
    examples = [raw.numpy() for raw in tf.data.TFRecordDataset(str(shard))]
    example = tf.train.Example.FromString(examples[3])
    example.features.feature["image"].bytes_list.value[0] = b"\x89PNG" + bytes(1000)
    with tf.io.TFRecordWriter(str(shard)) as writer:
        for index, raw in enumerate(examples):
            writer.write(example.SerializeToString() if index == 3 else raw)
    run_dir = tmp_path / "run"
    outcome = warm.run(
        "--dataset=sample", f"--data_dir={tmp_path}", f"--run_dir={run_dir}", f"--feed={feed}"
    )
    line = line_of(outcome)
    assert "sample, train" in line and "example 33: " in line  # the first file has 30 examples
    assert not run_dir.exists()


# Existing runs


ANOTHER_RUN = {
    "--seed=1": ["--seed=1 (was 0)"],
    "--model=mlp": ["--model=mlp (was logistic)"],
    "--model=mlp --seed=2": ["--seed=2 (was 0)", "--model=mlp (was logistic)"],
    "--resume=never": ["--resume=never", "already holds a run"],
    "--schedule=cosine": ["--schedule=cosine (was constant)"],
    "--mode=evaluate --model=mlp": ["--model=mlp", "logistic"],
}


@pytest.mark.parametrize(("arguments", "expected"), ANOTHER_RUN.items(), ids=ANOTHER_RUN)
def test_other_options_refused(warm: Warm, finished: Path, arguments: str, expected: list[str]):
    """A run is not resumed or evaluated with options that contradict those of the run."""
    before = contents(finished)
    line = line_of(warm.run(f"--run_dir={finished}", "--model=logistic", *arguments.split()))
    assert str(finished) in line
    for words in expected:
        assert words in line
    assert contents(finished) == before


@pytest.mark.parametrize("which", ["newest", "all"])
def test_other_checkpoint_format(warm: Warm, finished: Path, tmp_path: Path, which: str):
    """A newest checkpoint of another format is refused, even if older ones could be resumed."""
    run_dir = Path(shutil.copytree(finished, tmp_path / "run"))
    saved = sorted((run_dir / "checkpoints").glob("*.npz"))
    for path in saved[-1:] if which == "newest" else saved:
        with zipfile.ZipFile(path) as old:
            members = {name: old.read(name) for name in old.namelist()}
        manifest = json.loads(members["manifest.json"]) | {"format": 99}
        members["manifest.json"] = json.dumps(manifest).encode()
        with zipfile.ZipFile(path, "w") as new:
            for name, content in members.items():
                new.writestr(name, content)
    before = contents(run_dir)
    for mode in ("train", "evaluate"):
        line = line_of(
            warm.run(f"--mode={mode}", f"--run_dir={run_dir}", "--model=logistic", "--epochs=2")
        )
        assert "format 99" in line and "format 1" in line and str(run_dir) in line
        assert contents(run_dir) == before


def test_evaluate_on_other_data(warm: Warm, finished: Path, shelf: Path):
    """Weights are not evaluated on a data set that they were not trained on."""
    before = contents(finished)
    outcome = warm.run(
        "--mode=evaluate", f"--run_dir={finished}", "--dataset=sample", f"--data_dir={shelf}"
    )
    line = line_of(outcome)
    assert "sample" in line and "digits" in line
    assert contents(finished) == before


# No network


def test_no_data_no_network(warm: Warm, tmp_path: Path):
    """Without data and network, the error comes within 20 s and lists the remedies."""
    with socket.socket() as unused:  # bound and not listening: connections are refused
        unused.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{unused.getsockname()[1]}"
        proxies = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), proxy)
        started = time.monotonic()
        outcome = warm.run(
            "--dataset=mnist",
            f"--data_dir={tmp_path / 'data'}",
            f"--run_dir={tmp_path / 'run'}",
            **proxies,
            no_proxy="",
        )
        assert time.monotonic() - started < 20
    line = line_of(outcome)
    assert "mnist" in line and str(tmp_path / "data") in line
    for way_out in ("connect and run again", "--data_dir", "--dataset=digits"):
        assert way_out in line
    assert not (tmp_path / "run").exists()

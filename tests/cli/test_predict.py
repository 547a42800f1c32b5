"""Tests of `--mode=predict`: each file has a prediction or an error line; splits are predicted."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.sources import digits
from tests.cli.command import Outcome, Run, Warm


@pytest.fixture(scope="module")
def run(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Returns a run on digits with high accuracy."""
    options = "--flagfile=quickstart.flags", "--epochs=15", "--report=false"
    return warm.train(tmp_path_factory.mktemp("predict") / "run", *options)


@pytest.fixture(scope="module")
def examples(cache_dir: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns a test image of each class of digits, uint8 [10, 8, 8], and the labels, [10]."""
    builder = digits.prepared(cache_dir)
    found: dict[int, np.ndarray] = {}
    for example in builder.as_dataset(split="test").as_numpy_iterator():
        found.setdefault(int(example["label"]), example["image"][..., 0])
    return np.stack([found[label] for label in range(10)]), np.arange(10)


def predict(warm: Warm, run: Run, out: Path, *arguments: str) -> tuple[Outcome, dict]:
    asked = "--mode=predict", f"--run_dir={run.run_dir}", f"--predictions={out}", *arguments
    outcome = warm.run(*asked)
    path = out / "predictions.json"
    return outcome, json.loads(path.read_text()) if path.exists() else {}


def hand_made(folder: Path, images: np.ndarray) -> tuple[dict[str, int], set[str]]:
    """Writes thirty image files, six of them invalid.

    Args:
      folder: folder to create.
      images: an image of each class, uint8 [10, 8, 8].

    Returns:
      The label of each valid file by name, and the names of the invalid files.
    """
    folder.mkdir()
    known: dict[str, int] = {}

    def save(name: str, label: int, picture: Image.Image, **options) -> None:
        picture.save(folder / name, **options)
        known[name] = label

    def large(label: int, size: tuple[int, int], light: bool = False) -> Image.Image:
        """Returns an image of the given size with a digit in the middle; inverted if `light`."""
        side = min(size)
        inner = Image.fromarray(images[label]).resize((side, side), Image.Resampling.BICUBIC)
        whole = Image.new("L", size, 0)
        whole.paste(inner, ((size[0] - side) // 2, (size[1] - side) // 2))
        return Image.fromarray(255 - np.asarray(whole)) if light else whole

    for label in range(10):
        save(f"grey-{label}.png", label, Image.fromarray(images[label]))
    for label, mode in enumerate(("RGB", "RGBA", "P", "LA")):
        save(f"mode-{mode}.png", label, Image.fromarray(images[label]).convert(mode))
    save("deep.png", 4, Image.fromarray(images[4].astype(np.uint16) * 257))
    save("deep.tiff", 5, Image.fromarray(images[5].astype(np.uint16) * 257))
    save("small.jpg", 6, large(6, (64, 64)), quality=92)
    save("colour.jpg", 7, large(7, (120, 120)).convert("RGB"), quality=92)
    save("wide.png", 8, large(8, (400, 200)))
    save("tall.png", 9, large(9, (200, 400)))
    save("huge.png", 0, large(0, (4000, 3000)))
    save("paper.png", 1, large(1, (100, 100), light=True))
    save("paper.jpg", 2, large(2, (300, 200), light=True), quality=92)
    save("paper-huge.jpg", 3, large(3, (4000, 3000), light=True), quality=92)
    wrong = {
        "empty.png": b"",
        "text.png": b"this is text\n",
        "truncated.png": (folder / "huge.png").read_bytes()[:2000],
        "truncated.jpg": (folder / "paper-huge.jpg").read_bytes()[:2000],
    }
    for name, content in wrong.items():
        (folder / name).write_bytes(content)
    Image.new("L", (1, 1), 255).save(folder / "one-pixel.png")
    Image.new("L", (50, 50), 255).save(folder / "blank.png")
    return known, {*wrong, "one-pixel.png", "blank.png"}


def test_hand_made_files(run: Run, warm: Warm, examples, tmp_path: Path):
    """Each of thirty files gets the right class, or one error line if it is invalid."""
    known, wrong = hand_made(tmp_path / "pictures", examples[0])
    assert len(known) + len(wrong) == 30
    outcome, found = predict(warm, run, tmp_path / "out", f"--inputs={tmp_path / 'pictures'}")
    assert outcome.status == 1, outcome.said()
    said = {Path(each["input"]).name: each["class"] for each in found["predictions"]}
    assert said == {name: str(label) for name, label in known.items()}
    assert {Path(each["input"]).name for each in found["errors"]} == wrong
    lines = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == len(wrong) and "Traceback" not in outcome.err
    for name in wrong:
        assert sum(name in line for line in lines) == 1, name
    assert json.loads(outcome.out.splitlines()[-1]) == {"predicted": 24, "failed": 6}


def test_table_and_picture(run: Run, warm: Warm, examples, tmp_path: Path):
    """predictions.csv has a row for each image, and predictions.png is a valid image."""
    np.save(tmp_path / "some.npy", examples[0])
    asked = f"--inputs={tmp_path / 'some.npy'}", "--top_k=4"
    outcome, found = predict(warm, run, tmp_path / "out", *asked)
    assert outcome.status == 0, outcome.said()
    rows = list(csv.DictReader((tmp_path / "out" / "predictions.csv").read_text().splitlines()))
    assert [row["class"] for row in rows] == [str(label) for label in range(10)]
    assert [row["input"] for row in rows] == [f"{tmp_path}/some.npy[{at}]" for at in range(10)]
    for row, told in zip(rows, found["predictions"], strict=True):
        assert len(told["top"]) == 4 and row["class_4"] == told["top"][3]["class"]
        assert 0.25 < float(row["probability"]) <= 1
    Image.open(tmp_path / "out" / "predictions.png").verify()


def test_predict_split(run: Run, warm: Warm, tmp_path: Path):
    outcome, found = predict(warm, run, tmp_path / "out", "--split=test")
    assert outcome.status == 0, outcome.said()
    told = json.loads(outcome.out.splitlines()[-1])
    assert told["predicted"] == 360 and told["failed"] == 0
    assert told["right"] == round(run.result["test"]["accuracy"] * 360)
    assert len(found["predictions"]) == 360 and "label" in found["predictions"][0]


def test_ignored_labels_do_not_count(warm: Warm, tmp_path: Path):
    """The accuracy of a predicted split is that of evaluation, without the ignored label."""
    options = "--model=logistic", "--epochs=2", "--ignore_label=3"
    run = warm.train(tmp_path / "run", *options)
    outcome, found = predict(warm, run, tmp_path / "out", "--split=test")
    assert outcome.status == 0, outcome.said()
    told = json.loads(outcome.out.splitlines()[-1])
    assert told["accuracy"] == pytest.approx(run.result["test"]["accuracy"], rel=1e-6)
    labels = [each.get("label") for each in found["predictions"]]
    assert len(labels) == 360 and None in labels and "3" not in labels


def test_input_patterns(run: Run, warm: Warm, examples, tmp_path: Path):
    """Inputs keep the order of the options, and duplicates are removed."""
    for label in (3, 1, 2):
        Image.fromarray(examples[0][label]).save(tmp_path / f"digit-{label}.png")
    asked = f"--inputs={tmp_path}/digit-3.png,{tmp_path}/*.png"
    outcome, found = predict(warm, run, tmp_path / "out", asked)
    assert outcome.status == 0, outcome.said()
    assert [each["class"] for each in found["predictions"]] == ["3", "1", "2"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ["--inputs=FILES", "--split=SPLIT"]),
        (("--inputs=nowhere.png",), ["there is no nowhere.png"]),
        (("--inputs=nowhere/*.png",), ["there is no nowhere/*.png"]),
        (("--inputs=a.png", "--split=test"), ["one of them"]),
        (("--split=nothing",), ["no split 'nothing'"]),
        (("--split=test", "--image_size=9,9"), ["are uint8 [9, 9, 1]", "uint8 [8, 8, 1]"]),
        (("--split=test", "--scale=none"), ["another network: --scale=none (is auto)"]),
        (("--inputs=run.py", "--fit=crop"), ["another network: --fit=crop (is pad)"]),
    ],
)
def test_bad_input(run: Run, warm: Warm, tmp_path: Path, arguments, words):
    outcome, _ = predict(warm, run, tmp_path / "out", *arguments)
    assert outcome.status == 2, outcome.said()
    assert len(outcome.err.splitlines()) == 1 and not (tmp_path / "out").exists()
    for word in words:
        assert word in outcome.err

"""Language models by the command line: training, resuming, and sampling without the data."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.cli.command import Run, Warm

TEXT = "".join(f"{n} and {n + 1} make {2 * n + 1}.\n" for n in range(200))
TRAINING = (
    *("--task=language_model", "--model=transformer", "--model.layers=1", "--model.heads=2"),
    *("--model.width=16", "--context=16", "--global_batch_size=32", "--learning_rate=0.01"),
    *("--train_steps=60", "--evaluate_every=20"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "sums.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture(scope="module")
def run(warm: Warm, data: Path) -> Run:
    return warm.train(data.parent / "run", f"--dataset=text:{data}", *TRAINING)


def sampled(warm: Warm, run_dir: Path, out: Path, *arguments: str) -> dict:
    asked = "--mode=predict", f"--run_dir={run_dir}", f"--predictions={out}", "--prompt=12 and"
    outcome = warm.run(*asked, *arguments)
    assert outcome.status == 0, outcome.said()
    assert outcome.err == "", outcome.said()
    found = json.loads((out / "samples.json").read_text())
    assert found["prompt"] + found["continuations"][0] in outcome.out
    return found


def test_training(run: Run):
    scores = run.result["validation"]
    assert scores["perplexity"] == pytest.approx(np.exp(scores["loss"]), rel=1e-6)
    assert scores["bits_per_character"] == pytest.approx(scores["loss"] / np.log(2), rel=1e-6)
    assert scores["loss"] < 2.5


@pytest.mark.parametrize("options", [("--feed=stream",), ("--virtual_devices=2", "--shards=2")])
def test_same_curves(warm: Warm, data: Path, run: Run, tmp_path: Path, options):
    """Of a stream the same bits; stopped after 25 steps, and on other devices, the same bits."""
    base = f"--dataset=text:{data}", *TRAINING, "--shards=2" if "--shards=2" in options else ""
    base = tuple(filter(None, base))
    expected = run if "--feed=stream" in options else warm.train(tmp_path / "one", *base)
    warm.train(tmp_path / "other", *base, *options, "--train_steps=25")
    other = warm.train(tmp_path / "other", *base, *options)
    assert other.result["weights_sha256"] == expected.result["weights_sha256"]


def test_sampling_is_a_function_of_its_options(warm: Warm, run: Run, tmp_path: Path):
    """The data set and other files of the run are not needed."""
    shutil.copytree(run.run_dir, tmp_path / "alone")
    one = sampled(warm, run.run_dir, tmp_path / "a", "--sample_tokens=40", "--samples=2")
    again = sampled(warm, tmp_path / "alone", tmp_path / "b", "--sample_tokens=40", "--samples=2")
    assert one == again and {len(each) for each in one["continuations"]} == {40}
    assert set("".join(one["continuations"])) <= set(TEXT)
    assert one["continuations"][0] != one["continuations"][1]
    seeded = sampled(warm, run.run_dir, tmp_path / "c", "--sample_tokens=40", "--sample_seed=1")
    assert seeded["continuations"][0] != one["continuations"][0]
    greedy = [
        sampled(warm, run.run_dir, tmp_path / "d", "--sample_tokens=20", *options)
        for options in (("--temperature=0",), ("--sample_top_k=1", "--sample_seed=7"))
    ]
    assert greedy[0]["continuations"] == greedy[1]["continuations"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--prompt=x & y",), "--prompt has characters that the training text does not have"),
        (("--prompt=12", "--inputs=a.npy"), "give --inputs=FILES, --split=SPLIT or --prompt=TEXT"),
        (("--prompt=1", "--context=8"), "another network: --context=8 (is 16); leave that out"),
    ],
)
def test_refused_sampling(warm: Warm, run: Run, arguments, message):
    outcome = warm.run("--mode=predict", f"--run_dir={run.run_dir}", *arguments)
    assert outcome.status == 2 and message in outcome.err, outcome.said()
    assert outcome.err.count("\n") == 1, outcome.said()


def test_prompt_of_a_classifier(warm: Warm, tmp_path: Path):
    warm.train(tmp_path / "run", "--dataset=digits", "--train_steps=2")
    outcome = warm.run("--mode=predict", f"--run_dir={tmp_path / 'run'}", "--prompt=1")
    assert outcome.status == 2 and "digits is not a text" in outcome.err, outcome.said()


def test_changed_text(warm: Warm, data: Path, run: Run, tmp_path: Path):
    """A resume with another text is refused."""
    shutil.copytree(run.run_dir, tmp_path / "run")
    other = tmp_path / "sums.txt"
    other.write_text(TEXT.replace("make", "give"))
    outcome = warm.run(
        f"--run_dir={tmp_path / 'run'}", f"--dataset=text:{other}", *TRAINING, "--train_steps=80"
    )
    assert outcome.status == 2, outcome.said()
    assert outcome.err.count("\n") == 1, outcome.said()


def test_inspect(warm: Warm, data: Path, tmp_path: Path):
    """It notices a network that sees the tokens it predicts."""
    script = tmp_path / "own.py"
    script.write_text(
        "import tapeline as tl\n\n\n@tl.model\ndef both_ways(outputs):\n"
        "    tokens, vocabulary = outputs.shape\n"
        "    return [tl.models.Embedding(vocabulary, 8), tl.models.Attention(2), "
        "tl.models.Dense(vocabulary)]\n"
    )
    base = "--mode=inspect", f"--inspect_path={tmp_path / 'page'}", f"--dataset=text:{data}"
    other = [each for each in TRAINING if "model" not in each or "task" in each]
    outcome = warm.run(*base, *other, f"--load={script}", "--model=both_ways", "--inspect_steps=0")
    assert outcome.status == 1, outcome.said()
    assert re.search(r"own.py:\d: the prediction of a token depends on later tokens", outcome.out)
    outcome = warm.run(*base, *TRAINING, "--inspect_steps=0")
    assert outcome.status == 0, outcome.said()

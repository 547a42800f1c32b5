"""Tests of `--mode=inspect`: counts, planted faults, and that it changes nothing in a run."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from engine.assembly.data import open_source
from engine.assembly.factories import build_network, build_task
from engine.checkpoint.catalog import load_newest
from engine.config import flags
from tests.cli.command import HANG, REPOSITORY, Outcome, Warm

HEAD = """import numpy as np
import tensorflow as tf

import tapeline as tl


"""

DATA = """@tl.source
def points():
    draws = np.random.default_rng(0)
    inputs = draws.normal(size=(400, 6)).astype(np.float32)
    return tl.arrays(inputs=inputs, targets=INPUTS)


"""

BLOCKS = """class Block(tf.Module):
    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(tf.random.stateless_normal([8, 8], [1, 2]) / 4)

    def __call__(self, x):
        return tf.nn.relu(x @ self.kernel)


class Third(Block):
    def __call__(self, x):
        x = tf.nn.relu(x @ self.kernel)
        x = tf.math.log(x - 0.5)  # here
        return tf.nn.relu(x)


class Net(tf.Module):
    def __init__(self, first, others):
        super().__init__()
        self.embed = tf.Variable(tf.random.stateless_normal([first, 8], [3, 4]) / 4)
        self.blocks = [kind() for kind in others]
        self.head = tf.Variable(tf.zeros([8, 1]) + 0.1)

    def __call__(self, x):
        x = x @ self.embed
        for block in self.blocks:
            x = block(x)
        return x @ self.head


@tl.model
def net():
    return tl.module(Net(6, [Block, Block, Block]))


@tl.model
def broken():
    return tl.module(Net(6, [Block, Block, Third, Block]))
"""

RECIPES = [path.stem for path in (REPOSITORY / "recipes").glob("*.flags")]
QUICK = ("--inspect_steps=3", "--model=mlp")


def untuned(recipe: str) -> str:
    """Returns the name of the recipe of the same network without tuned options."""
    return recipe.removesuffix("_tuned")


def inspected(warm: Warm, tmp_path: Path, *options: str, status: int = 0) -> str:
    """Returns what an inspection prints; asserts its exit status, and that it writes a page."""
    page = tmp_path / "page.html"
    outcome: Outcome = warm.run(
        "--mode=inspect", f"--inspect_path={page}", f"--run_dir={tmp_path / 'none'}", *options
    )
    assert outcome.status == status, outcome.said()
    assert outcome.err == "", outcome.said()
    assert "<h2>Findings</h2>" in page.read_text()
    assert not (tmp_path / "none").exists()
    return outcome.out


def findings(text: str) -> str:
    """Returns the last section of what an inspection prints, in one line."""
    return " ".join(text[text.index("\nFindings\n") :].split())


def written(tmp_path: Path, *parts: str) -> list[str]:
    """Writes a file of user code with the given parts; returns the option that loads it."""
    path = tmp_path / "my.py"
    path.write_text(HEAD + "".join(parts))
    return [f"--load={path}"]


def line_of(tmp_path: Path, text: str) -> str:
    """Returns the place of the only line of my.py that contains `text`, such as "my.py:12"."""
    lines = (tmp_path / "my.py").read_text().splitlines()
    (number,) = [index for index, line in enumerate(lines, 1) if text in line]
    return f"my.py:{number}"


@pytest.mark.parametrize(
    "options",
    [
        ("--model=cnn",),
        ("--model=mlp", "--precision=mixed_bfloat16", "--ema=0.9", "--optimizer=adamw"),
        ("--model=seed_004", "--image_size=28,28", "--augment=shift:1"),
    ],
    ids=" ".join,
)
def test_counts_are_those_of_checkpoint(warm: Warm, tmp_path: Path, options):
    text = inspected(warm, tmp_path, "--inspect_steps=1", *options)
    run = warm.train(tmp_path / "run", "--train_steps=2", *options)
    saved = load_newest(str(run.run_dir))
    assert saved is not None
    arrays = saved.archive.arrays
    sizes = {n.removeprefix("model/"): a.size for n, a in arrays.items() if n.startswith("model/")}
    table = re.findall(r"^(layers/\S+) +\S+ +float32 +([\d,]+)", text, re.MULTILINE)
    assert {name: int(count.replace(",", "")) for name, count in table} == sizes
    assert f"{sum(sizes.values()):,}" in re.findall(r"^all +([\d,]+)$", text, re.MULTILINE)
    assert "Nothing was found." in text


@pytest.mark.parametrize("name", sorted({*map(untuned, RECIPES)}))
def test_recipes(warm: Warm, tmp_path: Path, cache_dir: str, real_data: str, name: str):
    options = (f"--flagfile=recipes/{name}.flags", f"--data_dir={real_data}", "--inspect_steps=2")
    text = inspected(warm, tmp_path, *options)
    config = flags.parse([*options, f"--cache_dir={cache_dir}"])
    source = open_source(config)
    network = build_network(config, source, build_task(config, source))
    count = sum(variable.shape.num_elements() for variable in network.variables)
    assert f"{count:,}" in re.findall(r"^all +([\d,]+)$", text, re.MULTILINE)


def test_run_is_not_changed(warm: Warm, tmp_path: Path):
    run = warm.train(tmp_path / "run", "--train_steps=30", *QUICK)
    files = {p: p.read_bytes() for p in run.run_dir.rglob("*") if p.is_file()}
    outcome = warm.run("--mode=inspect", f"--run_dir={run.run_dir}", *QUICK)
    assert outcome.status == 0, outcome.said()
    page = run.run_dir / "inspect.html"
    assert outcome.out.endswith(f"; {page}\n") and "<h2>Findings</h2>" in page.read_text()
    page.unlink()
    assert files == {p: p.read_bytes() for p in run.run_dir.rglob("*") if p.is_file()}


def test_16_bit_casts_are_told(warm: Warm, tmp_path: Path):
    text = inspected(warm, tmp_path, *QUICK, "--precision=mixed_bfloat16")
    rows = re.findall(r"^layers/\d/(\w+) .* trained +(\S+)", text, re.MULTILINE)
    assert {cast for name, cast in rows if name == "kernel"} == {"bfloat16"}


def test_learns_one_batch(warm: Warm, tmp_path: Path):
    text = inspected(warm, tmp_path, "--model=mlp", "--learning_rate=0.01")
    assert "the network learned it" in text


def test_user_code_is_followed_by_line(warm: Warm, tmp_path: Path):
    data = DATA.replace("INPUTS", "inputs @ np.arange(6, dtype=np.float32)")
    load = written(tmp_path, data, BLOCKS)
    options = (*load, "--dataset=points", "--model=net", "--task=regression", "--inspect_steps=2")
    text = inspected(warm, tmp_path, *options)
    assert re.search(r"^module/blocks/1 +Block +128x8 float32$", text, re.MULTILINE), text
    assert re.search(rf"^{line_of(tmp_path, 'x @ self.embed')} +128x8 float32", text, re.MULTILINE)


def test_nan_in_third_block(warm: Warm, tmp_path: Path):
    data = DATA.replace("INPUTS", "inputs @ np.arange(6, dtype=np.float32)")
    load = written(tmp_path, data, BLOCKS)
    options = (*load, "--dataset=points", "--model=broken", "--task=regression")
    text = findings(inspected(warm, tmp_path, *options, status=1))
    place = line_of(tmp_path, "# here")
    assert f"loss of the first step is not finite, by {place}: Log in module/blocks/2: " in text


def test_labels_all_the_same(warm: Warm, tmp_path: Path):
    source = DATA.replace("INPUTS", "np.full(400, 2), class_names=3")
    load = written(tmp_path, source)
    text = findings(inspected(warm, tmp_path, *load, "--dataset=points", *QUICK, status=1))
    place = line_of(tmp_path, "@tl.source")
    assert f"{place}: points: the target is 2 (2) in all of 360 training examples" in text


def test_inputs_not_scaled(warm: Warm, tmp_path: Path):
    source = DATA.replace("INPUTS", "np.arange(400) % 3, class_names=3")
    source = source.replace("inputs =", "inputs = 128 + 64 *")
    load = written(tmp_path, source)
    text = findings(inspected(warm, tmp_path, *load, "--dataset=points", *QUICK, status=1))
    assert re.search(r"points: the input \[\d\] has values from -?\d.* to \d+.*--scale=", text)
    scaled = "--scale=standardize"
    text = inspected(warm, tmp_path, *load, "--dataset=points", "--model=mlp", scaled)
    assert "Nothing was found." in text


def test_network_that_scales_its_inputs(warm: Warm, tmp_path: Path):
    net = """class Scaled(tf.Module):
    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(tf.random.stateless_normal([64, 10], [1, 2]) / 8)

    def __call__(self, images):
        return tf.reshape(tf.cast(images, tf.float32) / 255, [-1, 64]) @ self.kernel


@tl.model
def scaled():
    return tl.module(Scaled())
"""
    load = written(tmp_path, net)
    text = inspected(warm, tmp_path, *load, "--model=scaled", "--scale=none", "--inspect_steps=3")
    assert "Nothing was found." in text
    load = written(tmp_path, net.replace(" / 255", ""))
    options = (*load, "--model=scaled", "--scale=none", "--inspect_steps=3")
    text = findings(inspected(warm, tmp_path, *options, status=1))
    place = line_of(tmp_path, "@ self.kernel")
    assert f"digits: the input has values from 0 to 255, and MatMul at {place} multiplies" in text


def test_loss_that_ignores_inputs(warm: Warm, tmp_path: Path):
    net = """class Blind(tf.Module):
    def __init__(self):
        super().__init__()
        self.bias = tf.Variable(tf.zeros([10]))

    def __call__(self, x):
        return self.bias + tf.zeros([tf.shape(x)[0], 10])


@tl.model
def blind():
    return tl.module(Blind())
"""
    load = written(tmp_path, net)
    text = findings(inspected(warm, tmp_path, *load, "--model=blind", status=1))
    place = line_of(tmp_path, "@tl.model")
    assert f"{place}: the loss does not depend on the inputs" in text


def test_parameters_without_gradient(warm: Warm, tmp_path: Path):
    net = """class Half(tf.Module):
    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(tf.random.stateless_normal([64, 10], [3, 4]))
        self.forgotten = tf.Variable(tf.zeros([10]))
        self.stopped = tf.Variable(tf.zeros([10]))

    def __call__(self, x):
        x = tf.reshape(x, [-1, 64]) @ self.kernel
        return x + LAST


@tl.model
def half():
    return tl.module(Half())
"""
    load = written(tmp_path, net.replace("LAST", "tf.stop_gradient(self.stopped)"))
    text = findings(inspected(warm, tmp_path, *load, "--model=half", status=1))
    place = line_of(tmp_path, "@tl.model")
    unused = f"{place}: the loss does not depend on the trainable "
    assert f"{unused}module/forgotten, module/stopped" in text
    zero = "0.0 * (self.stopped + self.forgotten)"
    load = written(tmp_path, net.replace("LAST", zero))
    options = (*load, "--model=half", "--inspect_steps=2")
    text = findings(inspected(warm, tmp_path, *options, status=1))
    assert f"{place}: the gradient is 0, also after 2 steps, of module/forgotten, " in text


def test_network_that_does_not_learn(warm: Warm, tmp_path: Path):
    text = inspected(warm, tmp_path, "--model=mlp", "--learning_rate=1e-9", status=1)
    assert "the network does not learn it" in findings(text)


def test_column_of_texts_is_named(warm: Warm, tmp_path: Path):
    rows = "\n".join(f"{i % 7},{i % 5},v{i}" for i in range(90))
    (tmp_path / "t.csv").write_text(f"a,b,city\n{rows}\n")
    source = """@tl.source
def table():
    return tl.csv("PATH", inputs=["a", "b"], target="city")
""".replace("PATH", str(tmp_path / "t.csv"))
    load = written(tmp_path, source)
    options = (*load, "--dataset=table", *QUICK)
    text = findings(inspected(warm, tmp_path, *options, status=1))
    assert "table: 90 classes for 81 training examples" in text and "target city" in text


def test_pipeline_without_random_access(warm: Warm, tmp_path: Path):
    source = """def made(seed, epoch):
    inputs = np.random.default_rng([seed, epoch]).normal(size=(90, 6)).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices((inputs, inputs[:, 0]))


@tl.source
def stream():
    return tl.from_dataset(made, examples=90, version="1")
"""
    load = written(tmp_path, source)
    options = (*load, "--dataset=stream", "--task=regression", "--global_batch_size=16", *QUICK)
    text = inspected(warm, tmp_path, *options)
    assert re.search(r"^inputs +16x6 float32", text, re.MULTILINE)


@pytest.mark.parametrize("options", [("--virtual_devices=2", "--shards=2"), ("--accumulate=3",)])
def test_batch_of_one_device(warm: Warm, tmp_path: Path, options):
    given = ("--augment=mixup:0.3", "--precision=mixed_float16", "--ema=0.9", "--inspect_steps=2")
    text = inspected(warm, tmp_path, *options, *given)
    rows = 64 if "--shards=2" in options else 43
    assert re.search(rf"^inputs +{rows}x8x8x1 float32", text, re.MULTILINE)
    assert re.search(rf"^targets +{rows}x10 float32", text, re.MULTILINE)


def test_signal_writes_nothing(warm: Warm, tmp_path: Path):
    page = tmp_path / "page.html"
    options = (f"--inspect_path={page}", "--inspect_steps=1000000", "--progress=on")
    run_dir = tmp_path / "none"
    with warm.started("--mode=inspect", f"--run_dir={run_dir}", *options) as process:
        end = time.monotonic() + HANG
        while "one batch" not in process.errors() and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(HANG) == 130
    assert not page.exists() and not run_dir.exists()

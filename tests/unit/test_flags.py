"""The command line: round trips of options, and one-line errors for invalid ones."""

import dataclasses
import tempfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.benchmark.options import BENCHMARK_EXTRAS
from engine.config import flag_texts, flags
from engine.config.schema import Config, sections

FIELDS = [f for _, section in sections() for f in dataclasses.fields(section)]
LINES = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=12
)


def refusal(*arguments):
    """Returns the one-line error message of an invalid command line."""
    with pytest.raises(ValueError) as caught:
        flags.parse(arguments)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    return str(caught.value)


def values_of(field):
    """Returns a strategy for valid values of an option, from its declaration."""
    rules, kind = field.metadata, type(field.default)
    if rules["choices"]:
        return st.sampled_from(tuple(rules["choices"]))
    if kind is bool:
        return st.booleans()
    if rules["power_of_2"]:
        most = (rules["below"] or 2**60) // 2
        return st.integers(1, most.bit_length() - 1).map(lambda power: kind(2**power))
    if field.name == "weight_decay":
        return st.just(-1.0) | st.just(0.0) | st.floats(1e-30, 1e30)
    if field.name in ("accumulate", "virtual_devices", "gpu_memory_mb"):
        return st.just(field.default)  # other values do not fit every batch or every strategy
    if kind is int:
        return st.integers(rules["minimum"], (rules["below"] or 10**9) - 1)
    if kind is float:
        least = rules["minimum"] if rules["above"] is None else rules["above"]
        # These are in range in float32, too.
        most = rules["below"] * (1 - 2.0**-24) if rules["below"] else 1e30
        positive = st.floats(1e-30, most)
        return positive if rules["above"] is not None else st.just(float(least)) | positive
    if kind is tuple:
        sizes = st.integers(1, 4096)
        pairs = st.tuples(sizes, sizes)
        return st.just(()) | pairs if field.name == "image_size" else st.lists(sizes).map(tuple)
    if field.name in ("metrics", "monitor"):
        names = {"metrics": ("", "accuracy"), "monitor": ("auto", "train_loss", "train_own_metric")}
        return st.sampled_from(names[field.name])
    if field.name == "class_weights":
        return st.sampled_from(("", "balanced", "1,0.5"))
    if field.name == "learning_rate_multipliers":
        return st.sampled_from(("", "head/.*:2", "vectors:0,.*bias:1e-3"))
    if field.name == "weight_decay_variables":
        return st.sampled_from(("matrices", "vectors", ".*", "head/.*,.*scale:0.5"))
    if field.name == "freeze_after":
        return st.sampled_from(("", "head/.*:2", "vectors:0,.*bias:1000"))
    if field.name == "schedule_points":
        return st.sampled_from(("0.5:0.1,0.75:0.01", "0:0.2,0.23:1,1:0.07"))
    if field.name == "steps_per_loop":
        return st.just("auto") | st.integers(0, 10**9 - 1).map(str)
    if field.name in ("stop_at", "baseline"):
        ends = {"stop_at": "", "baseline": ":20"}[field.name]
        return st.just("") | st.sampled_from(["0.9", "-3", "1e-5"]).map(lambda text: text + ends)
    if field.name == "evaluation_name":
        return st.sampled_from(["follow", "a-b.c", "_1"])
    if field.name == "weights":
        return st.sampled_from(["auto", "newest", "best", "step:0", "step:1200", "average:5"])
    if field.name == "validation_split":
        named = ["a=0.1,b=test[:50%]", "one=validation", " a = 0.2 , b=0.1 ".strip()]
        return st.sampled_from(["", "0", "0.1", "test[:50%]", *named])
    if field.name == "evaluate_every":
        return st.just("epoch") | st.integers(1, 10**9).map(str)
    if field.name == "profile":
        return st.just("") | st.integers(0, 10**9).map(lambda first: f"{first}:{first + 7}")
    if field.name == "leave_out":
        return st.lists(st.integers(0, 10**9)).map(lambda steps: ",".join(map(str, steps)))
    if field.name == "benchmark_with":
        return st.lists(st.sampled_from(BENCHMARK_EXTRAS), unique=True).map(",".join)
    if field.name == "load":
        return st.just("")  # any other value is a file that exists
    return LINES if field.name == "run_dir" else st.just("") | LINES


CONFIGS = st.fixed_dictionaries({field.name: values_of(field) for field in FIELDS})


def by_name(config):
    parts = [getattr(config, name) for name, _ in sections()]
    return {f.name: getattr(part, f.name) for part in parts for f in dataclasses.fields(part)}


def test_defaults():
    config, defaults = flags.parse([]), Config()
    assert config.run.run_dir == "runs/digits-cnn"
    assert dataclasses.replace(config, run=defaults.run) == defaults


def test_default_run_dir():
    config = flags.parse(["--dataset=mnist:3.0.1", "--model=mlp"])
    assert config.run.run_dir == "runs/mnist-3.0.1-mlp"


@settings(max_examples=30, derandomize=True)
@given(CONFIGS)
def test_flagfile_round_trip(values):
    config = flags.from_values(values)
    assert by_name(config) == values
    with tempfile.NamedTemporaryFile("w", suffix=".flags", encoding="utf-8") as file:
        file.write(flags.flagfile(config))
        file.flush()
        # The flagfile does not say the mode, so that any mode can be given with it, in any order.
        again = flags.parse([f"--mode={config.run.mode}", f"--flagfile={file.name}"])
    assert again == config
    assert flags.flagfile(again) == flags.flagfile(config)


@settings(max_examples=30, derandomize=True)
@given(CONFIGS)
def test_command_line_round_trip(values):
    arguments = [
        f"--{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in values.items()
    ]
    assert by_name(flags.parse(arguments)) == values


@pytest.mark.parametrize(
    "text",
    [
        *("#x", "//x", "--epochs=3", "a=b", '"quoted"', "a b", "-", "a ", " a", "\ta", "a\rb"),
        *("ä/ö", "$HOME", "~", "%s", "\\n", "a\x1fb", "a\x85", "a\u2028"),
    ],
)
def test_text_survives_flagfile(text, tmp_path):
    path = tmp_path / "config.flags"
    try:
        config = flags.parse([f"--run_dir={text}", f"--train_split={text}"])
    except ValueError as error:
        assert "--run_dir" in str(error)  # refused: nothing to survive
        return
    path.write_text(flags.flagfile(config), encoding="utf-8")
    assert flags.parse([f"--flagfile={path}"]) == config


def test_refuses_line_break():
    assert "--run_dir" in refusal("--run_dir=a\n--epochs=3")


def test_later_flags_win(tmp_path):
    path = tmp_path / "some.flags"
    path.write_text("# a comment\n\n--epochs=7\n--seed=3\n")
    config = flags.parse(["--epochs=1", f"--flagfile={path}", "--seed=4"])
    assert (config.training.epochs, config.run.seed) == (7, 4)


@pytest.mark.parametrize(
    ("argument", "parts"),
    [
        ("--optimzer=adam", ["--optimzer", "did you mean", "optimizer"]),
        ("--xyzzy=1", ["--xyzzy", "--help"]),
        ("--optimizer=adm", ["--optimizer=adm", "did you mean 'adam'", "nesterov"]),
        ("--mode=trian", ["--mode=trian", "did you mean 'train'"]),
        ("--profile=20:10", ["--profile=20:10", "START:END"]),
        ("--strategy=tpu9", ["--strategy=tpu9", "mirrored"]),
        ("--epochs=0", ["--epochs=0", "at least 1"]),
        ("--epochs=1.5", ["--epochs=1.5"]),
        ("--epochs=many", ["--epochs=many"]),
        ("--epochs", ["--epochs"]),
        ("--learning_rate=0", ["--learning_rate=0", "above 0"]),
        ("--learning_rate=nan", ["--learning_rate=nan", "finite"]),
        ("--min_delta=inf", ["--min_delta=inf", "finite"]),
        ("--beta_1=1", ["--beta_1=1", "below 1"]),
        ("--hidden=64,many", ["--hidden=64,many", "512,512"]),
        ("--hidden=64,0", ["--hidden=64,0", "at least 1"]),
        ("--image_size=64", ["--image_size=64", "HEIGHT,WIDTH"]),
        ("--restore_best=maybe", ["--restore_best=maybe"]),
        ("--validation_split=a=0.1,0.2", ["--validation_split=a=0.1,0.2", "NAME=SPLIT"]),
        ("--validation_split=a=", ["--validation_split=a=", "NAME=SPLIT"]),
        ("--validation_split=a=0.1,a=0.2", ["names a twice"]),
        ("--validation_split=test=0.1", ["'test' is not a valid name"]),
        ("--validation_split=a=0.1,train=0.1", ["'train' is not a valid name"]),
        ("--validation_split=a-b=0.1", ["'a-b' is not a valid name", "letters, digits and _"]),
        ("--evaluation_examples=-1", ["--evaluation_examples=-1", "at least 0"]),
        ("--monitor=accuracy", ["--monitor=accuracy", "give auto"]),
        ("--seed=9223372036854775808", ["--seed=9223372036854775808"]),
        ("train", ["'train'", "--name=value"]),
        ("--flagfile=/no/such.flags", ["--flagfile=/no/such.flags"]),
        ("--flagfile", ["--flagfile"]),
    ],
)
def test_refuses_bad_input(argument, parts):
    message = refusal(argument)
    assert [part for part in parts if part not in message] == [], message
    assert not message.startswith(("error", "ERROR"))  # run.py adds the prefix


def test_refuses_binary_flagfile(tmp_path):
    path = tmp_path / "picture.flags"
    path.write_bytes(b"\x89PNG\xff\xfe")
    assert str(path) in refusal(f"--flagfile={path}")


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_help_lists_option(field):
    with pytest.raises(flags.HelpRequest) as caught:
        flags.parse(["--help"])
    text = str(caught.value)
    start = text.index(f"  --{field.name}=")
    entry = text[start:].split("\n  --")[0]
    assert field.metadata["help"] in entry
    assert [choice for choice in field.metadata["choices"] if choice not in entry] == []


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_docs_table_lists_option(field):
    rows = [row for row in flags.table().splitlines() if row.startswith(f"| `--{field.name}` |")]
    assert len(rows) == 1 and field.metadata["help"] in rows[0]
    assert rows[0].replace("\\|", "").count("|") == 5
    resume = rows[0].split(" | ")[2]
    assert (resume == "fixed") == field.metadata["trajectory"]


def test_arguments_override_run_options(tmp_path):
    (tmp_path / "config.flags").write_text("--epochs=7\n--seed=3\n")
    config = flags.parse(flag_texts.of_run(str(tmp_path), ["--epochs=9"]))
    assert (config.training.epochs, config.run.seed) == (9, 3)


def test_refuses_directory_without_run(tmp_path):
    with pytest.raises(ValueError, match=f"--run_dir={tmp_path}"):
        flag_texts.of_run(str(tmp_path), [])


OLD = "--epochs=7\n--image_size=14,28\n"  # written by 0.4.0: without --fit and --antialias


def test_legacy_values_of_old_run(tmp_path):
    """Options that a run's file predates have the values that the run was trained with."""
    (tmp_path / "config.flags").write_text(OLD)
    data = flags.parse(flag_texts.of_run(str(tmp_path), [])).data
    assert (data.fit, data.antialias, data.image_size) == ("stretch", False, (14, 28))
    data = flags.parse(flag_texts.of_run(str(tmp_path), ["--fit=crop"])).data
    assert (data.fit, data.antialias) == ("crop", False)


def test_legacy_values_only_when_resized(tmp_path):
    """Options in a run's file override legacy values, which apply only if images are resized."""
    (tmp_path / "config.flags").write_text(f"{OLD}--fit=pad\n--antialias=true\n")
    assert flags.parse(flag_texts.of_run(str(tmp_path), [])).data.fit == "pad"
    (tmp_path / "config.flags").write_text("--epochs=7\n")
    data = flags.parse(flag_texts.of_run(str(tmp_path), [])).data
    assert (data.fit, data.antialias) == ("pad", True)


def test_legacy_values_are_valid():
    for field in FIELDS:
        if (legacy := field.metadata["legacy"]) is not None:
            flags.parse([f"--{field.name}={legacy}"])
            assert field.metadata["legacy_with"] in {"", *(each.name for each in FIELDS)}

"""Declarations of options: help, valid defaults, ranges, and effect on the trajectory of a run."""

import dataclasses
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.assembly.options import DataOptions
from engine.config.option import did_you_mean
from engine.config.schema import Config, changed, sections
from engine.optim.options import OptimizerOptions, ScheduleOptions
from engine.optim.registry import OPTIMIZERS

REPOSITORY = Path(__file__).resolve().parents[2]
FIELDS = [(name, f) for name, section in sections() for f in dataclasses.fields(section)]
NUMBERS = [(name, f) for name, f in FIELDS if type(f.default) in (int, float)]

# The end of the run, its output and its paths may change when a run resumes.
FREE = {
    *("mode", "run_dir", "resume", "weights", "data_dir", "cache_dir", "feed", "test_split"),
    *(
        "evaluation_batch_size",
        "epochs",
        "train_steps",
        "steps_per_loop",
        "strategy",
        "compilation_cache",
    ),
    *("cluster", "cluster_timeout", "benchmark_steps", "benchmark_data", "benchmark_with"),
    *("intra_op_threads", "inter_op_threads", "tuned_flags", "gpu_memory_mb"),
    *(
        "virtual_devices",
        "restore_best",
        "checkpoint_every",
        "keep",
        "keep_best",
        "keep_every",
        "log_every",
        "progress",
    ),
    *(
        "max_hours",
        "report",
        "histograms",
        "profile",
        "split",
        "inputs",
        "invert",
        "top_k",
        "predictions",
    ),
    *("prompt", "sample_tokens", "samples", "temperature", "sample_top_k", "sample_seed"),
    *("averaged", "follow", "evaluation_name", "follow_timeout", "inspect_path", "inspect_steps"),
}
# Another value of one of these makes another experiment.
BOUND = {
    *("seed", "dataset", "train_split", "validation_split", "image_size", "model", "hidden"),
    *("optimizer", "learning_rate", "momentum", "rho", "beta_1", "beta_2", "epsilon"),
    *("weight_decay", "schedule", "warmup_steps", "decay_rate", "decay_steps", "final_fraction"),
    *("global_batch_size", "monitor", "min_delta", "patience", "augment", "clip_norm"),
    *("clip_value", "label_smoothing", "ema", "evaluate_ema", "accumulate", "shards"),
    *("precision", "loss_scale", "loss_scale_growth_steps", "loss_scale_factor"),
    *("loss_scale_floor", "jit", "evaluate_every", "evaluate_at_start"),
    *("min_epochs", "stop_at", "baseline", "plateau_patience", "plateau_cooldown"),
    *("evaluation_examples", "deterministic", "recompute", "onednn", "context", "tokens"),
    *("weight_decay_variables", "learning_rate_multipliers", "weight_decay_kind"),
    *("lookahead", "lookahead_decay", "lookahead_power", "schedule_points", "freeze_after"),
    *("momentum_of", "evaluation_views"),
}


def ids(value):
    return value.name if isinstance(value, dataclasses.Field) else None


def with_value(name, field, value, base=None):
    """Returns a copy of `base`, by default of the default options, with one option changed."""
    base = base or Config()
    section = dataclasses.replace(getattr(base, name), **{field.name: value})
    return dataclasses.replace(base, **{name: section})


def another(field):
    """Returns a valid value that is not the default, if there is one."""
    default = field.default
    if field.name in ("steps_per_loop", "evaluate_every"):
        return "7"
    if field.name == "gpu_memory_mb":
        return 256  # less is refused
    texts = {
        "deterministic": "no",
        "leave_out": "120,350",
        "stop_at": "0.9",
        "baseline": "0.5:20",
        "weights": "best",
        "learning_rate_multipliers": ".*:2",
        "weight_decay_variables": "vectors",
        "freeze_after": ".*:7",
        "schedule_points": "0:0.2,1:0.1",
    }
    if field.name in texts:
        return texts[field.name]
    if field.name == "benchmark_with":
        return "saving,logging"
    if field.name == "profile":
        return "10:20"
    if field.name == "class_weights":
        return "balanced"
    if field.name in ("metrics", "monitor"):
        return {"metrics": "top_3", "monitor": "train_loss"}[field.name]
    if field.metadata["choices"]:
        return next((choice for choice in field.metadata["choices"] if choice != default), default)
    if isinstance(default, bool):
        return not default
    if isinstance(default, tuple):
        return (7, 9)
    if field.metadata["power_of_2"]:
        return default * 2 or 4
    if isinstance(default, float):
        return default / 2 if default > 0 else 0.25
    return default + 1 if isinstance(default, int) else default + "x"


def initial(name, field):
    """Returns the default of an option; if that is "auto", the value that it is resolved to."""
    return getattr(getattr(Config(), name), field.name)


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=ids)
def test_help_is_one_line(name, field):
    text = field.metadata["help"]
    assert len(text) > 5 and "\n" not in text


def test_names_are_unique():
    names = [field.name for _, field in FIELDS]
    assert len(names) == len(set(names))


def test_types():
    assert {type(field.default) for _, field in FIELDS} <= {bool, int, float, str, tuple}


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=ids)
def test_defaults_are_valid(name, field):
    with_value(name, field, field.default)
    if field.metadata["choices"]:
        assert field.default in field.metadata["choices"]


def test_options_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().run.seed = 1


@pytest.mark.parametrize(("name", "field"), NUMBERS, ids=ids)
def test_number_ranges(name, field):
    rules = field.metadata
    step = 1 if isinstance(field.default, int) else 1e-6
    wrong, right = [], []
    if rules["minimum"] is not None:
        wrong.append(type(field.default)(rules["minimum"] - step))
        right.append(type(field.default)(rules["minimum"]))
    if rules["above"] is not None:
        wrong.append(type(field.default)(rules["above"]))
        right.append(4.0 if rules["power_of_2"] else rules["above"] + step)
    if rules["below"] is not None:
        wrong.append(type(field.default)(rules["below"]))
        right.append(rules["below"] - step)
    assert wrong, f"--{field.name} takes any number at all"
    for value in wrong:
        with pytest.raises(ValueError, match=f"--{field.name}={value}"):
            with_value(name, field, value)
    for value in right:
        with_value(name, field, value)


@pytest.mark.parametrize(("name", "field"), NUMBERS, ids=ids)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_refuses_nonfinite_number(name, field, value):
    with pytest.raises(ValueError, match=f"--{field.name}={value}"):
        with_value(name, field, value)


FLOATS = [(name, field) for name, field in NUMBERS if isinstance(field.default, float)]


@pytest.mark.parametrize(("name", "field"), FLOATS, ids=ids)
def test_range_in_float32(name, field):
    rules = field.metadata
    wrong = {} if rules["power_of_2"] else {1e-46: "0 in float32", 1e-40: "0 in float32"}
    if rules["below"] is None and not rules["power_of_2"]:
        wrong |= {1e39: "infinite in float32"}
    elif rules["below"] is not None:
        wrong |= {rules["below"] * (1 - 2.0**-26): f"{rules['below']} in float32"}
    for value, why in wrong.items():
        with pytest.raises(ValueError, match=f"--{field.name}={re.escape(str(value))}: is {why}"):
            with_value(name, field, value)


def test_float32_limits():
    ScheduleOptions(learning_rate=3.4028234e38)
    OptimizerOptions(clip_norm=2.0**-126, ema=1 - 2.0**-24)


def test_image_size():
    assert DataOptions(image_size=(64, 32)).image_size == (64, 32)
    for wrong in ((64,), (1, 2, 3), (0, 4)):
        with pytest.raises(ValueError, match="--image_size="):
            DataOptions(image_size=wrong)


def test_hint_only_when_close():
    assert "'adam'" in did_you_mean("adm", tuple(OPTIMIZERS))
    assert did_you_mean("zebra", tuple(OPTIMIZERS)) == ""


def test_same_options_same_trajectory():
    assert changed(Config(), Config(), "trajectory") == []


@pytest.mark.parametrize(("name", "field"), FIELDS, ids=ids)
def test_names_changed_trajectory_option(name, field):
    """`changed` lists a changed option if and only if it affects the trajectory."""
    found = changed(Config(), with_value(name, field, another(field)), "trajectory")
    kept = [(field.name, initial(name, field), another(field))]
    expected = field.metadata["trajectory"] and another(field) != field.default
    assert found == (kept if expected else [])


def test_names_all_changed_options():
    now = Config()
    for name, field in FIELDS:
        if field.name not in ("virtual_devices", "gpu_memory_mb"):  # do not fit every strategy
            now = with_value(name, field, another(field), now)
    assert changed(Config(), now, "trajectory") == [
        (field.name, initial(name, field), another(field))
        for name, field in FIELDS
        if field.metadata["trajectory"] and another(field) != field.default
    ]


def test_trajectory_of_each_option():
    """Options in BOUND affect the trajectory, and those in FREE do not."""
    bound = {field.name for _, field in FIELDS if field.metadata["trajectory"]}
    free = {field.name for _, field in FIELDS} - bound
    assert bound >= BOUND and free >= FREE


def test_parsing_loads_no_tensorflow():
    program = (
        "import sys, engine.config.schema, engine.config.flags\n"
        "engine.config.flags.parse(['--epochs=3'])\n"
        "print([m for m in sys.modules if m.split('.')[0] in ('tensorflow', 'keras', 'numpy')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_values_of_the_same_effect():
    """A value that means what another one does is no change, so that the run resumes."""
    (field,) = (f for _, f in FIELDS if f.name == "deterministic")
    automatic, yes, no = (with_value("devices", field, value) for value in ("auto", "yes", "no"))
    assert changed(automatic, yes, "trajectory") == changed(yes, automatic, "trajectory") == []
    assert changed(automatic, no, "trajectory") == [("deterministic", "auto", "no")]
    assert changed(no, yes, "trajectory") == [("deterministic", "no", "yes")]

"""Contradictory options are refused in one line; options without effect are allowed."""

from __future__ import annotations

import pytest

from engine.config import compatibility, flags

REFUSED = {
    "--schedule=one_cycle --warmup_steps=10": ["--schedule=one_cycle --warmup_steps=10:"],
    "--schedule=cosine --final_fraction=1.5 --learning_rate=0.1": [
        "--schedule=cosine --final_fraction=1.5:",
        "--learning_rate=0.1",
    ],
    "--augment=shift:1,mixup:0.3 --ignore_label=9": ["--augment=shift:1,mixup:0.3 --ignore_label"],
    "--augment=crop,cutmix --ignore_label=9": ["cutmix mixes each example with the next"],
    "--schedule=plateau --decay_rate=1": ["--schedule=plateau --decay_rate=1.0:"],
    "--schedule=plateau --final_fraction=2": ["--schedule=plateau --final_fraction=2.0:"],
    "--optimizer=lion --beta_1=0": ["--optimizer=lion --beta_1=0:"],
    "--precision=mixed_float16 --loss_scale_floor=65536": [
        "--loss_scale_floor=65536.0:",
        "--loss_scale=32768",
    ],
    "--loss_scale=2 --loss_scale_floor=4": ["--loss_scale_floor=4.0:", "--loss_scale=2"],
    "--bad_steps=5": ["--bad_steps=5:", "--bad_steps_in_a_row=0"],
    "--bad_steps=5 --bad_steps_in_a_row=0 --precision=mixed_float16": ["--bad_steps=5:"],
    "--bad_steps_in_a_row=5": ["--bad_steps_in_a_row=5:", "--bad_steps=0"],
    "--accumulate=4 --shards=4 --global_batch_size=8": [
        "--accumulate=4 --shards=4:",
        "--global_batch_size=8",
    ],
}

ALLOWED = [
    "",
    "--momentum=0 --rho=0 --beta_1=0",
    "--schedule=one_cycle --final_fraction=1.5",
    "--schedule=cosine --final_fraction=1 --warmup_steps=10",
    "--optimizer=lion --learning_rate=1",
    "--augment=shift:1 --ignore_label=9",
    "--augment=mixup",
    "--augment=cutmix",
    "--loss_scale_floor=65536",  # the scale is constant in float32
    "--precision=mixed_float16 --loss_scale_floor=32768",
    "--precision=mixed_float16 --loss_scale=0.5",
    "--precision=mixed_float16 --bad_steps=5",
    "--precision=mixed_float16 --bad_steps_in_a_row=5",
    "--bad_steps=5 --bad_steps_in_a_row=2",
    "--patience=2 --min_delta=1",  # stops after two epochs, whatever the metric
    "--accumulate=4 --shards=4 --global_batch_size=16",
]

BEYOND = {
    "--leave_out=3,20": ["--leave_out=3,20:", "only 20 steps, from 0 to 19"],
    "--leave_out=" + ",".join(map(str, range(20))): ["leaves out all 20 steps"],
    "--profile=20:30": ["--profile=20:30:", "below 20"],
}


@pytest.mark.parametrize(("arguments", "expected"), REFUSED.items(), ids=REFUSED)
def test_refuses_contradiction(arguments, expected):
    with pytest.raises(ValueError) as refused:
        compatibility.refuse(flags.parse(arguments.split()))
    text = str(refused.value)
    assert "\n" not in text and "give " in text
    for words in expected:
        assert words in text


@pytest.mark.parametrize("arguments", ALLOWED)
def test_allows_options_without_effect(arguments):
    compatibility.refuse(flags.parse(arguments.split()))


@pytest.mark.parametrize(("arguments", "expected"), BEYOND.items(), ids=range(len(BEYOND)))
def test_refuses_steps_past_end(arguments, expected):
    config = flags.parse([arguments])
    with pytest.raises(ValueError) as refused:
        compatibility.check_length_options(config, 20)
    for words in expected:
        assert words in str(refused.value)
    compatibility.check_length_options(config, 31)


@pytest.mark.parametrize("option", ["epochs", "train_steps"])
def test_refuses_too_many_steps(option):
    """A run of 2^53 steps is refused, because float64 does not represent all larger numbers."""
    config = flags.parse([f"--{option}={1 << 53}"])
    with pytest.raises(ValueError, match=f"--{option}={1 << 53}: .*2\\^53"):
        compatibility.check_length_options(config, 1 << 53)
    compatibility.check_length_options(config, (1 << 53) - 1)

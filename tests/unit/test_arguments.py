"""Arguments of registered functions as flags: types, help, round trips and selection."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import arguments, flags
from engine.config.arguments import REQUIRED
from engine.config.schema import Config, changed, option_values, replaced
from engine.models.registry import NETWORKS
from engine.optim.registry import SCHEDULES

LINES = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=12)
INTEGERS = st.integers(-(2**63) + 1, 2**63 - 1)
FLOATS = st.floats(allow_nan=False)
VALUES = st.fixed_dictionaries(
    {
        "schedule.depth": INTEGERS,
        "schedule.rate": FLOATS,
        "schedule.wide": st.booleans(),
        "schedule.name": LINES,
        "schedule.sizes": st.lists(INTEGERS).map(tuple),
        "schedule.steps": st.lists(FLOATS).map(tuple),
        "schedule.limit": st.none() | INTEGERS,
    }
)


def own(
    total_steps,
    *,
    depth: int = 4,
    rate=0.5,
    wide=False,
    name="a",
    sizes: tuple[int, ...] = (),
    steps: Sequence[float] = (1.0,),
    limit: int | None = None,
    decay_rate=0.1,
    hook=print,
):
    """Returns a schedule.

    Args:
      depth: number of waves,
        of one height.
      rate (float): height of a wave.

    Returns:
      wide: nothing.
    """


class Other:
    """Another schedule."""

    def __init__(self, *, depth: float, sizes=(1, 2.0)) -> None:
        """Makes it.

        Args:
          depth: its depth.
        """


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Registers two schedules for a test."""
    SCHEDULES._entries |= {"own": own, "other": Other}
    yield
    del SCHEDULES._entries["own"], SCHEDULES._entries["other"]


def by_name(name: str) -> dict[str, arguments.Argument]:
    return {each.name: each for each in arguments.arguments("schedule", name)}


def test_what_becomes_a_flag():
    """Parameters that the engine passes (decay_rate) or of other types (hook) are no flags."""
    found = {name: (each.type, each.is_tuple) for name, each in by_name("own").items()}
    assert found == {
        "schedule.depth": (int, False),
        "schedule.rate": (float, False),
        "schedule.wide": (bool, False),
        "schedule.name": (str, False),
        "schedule.sizes": (int, True),
        "schedule.steps": (float, True),
        "schedule.limit": (int, False),
    }
    depth, sizes = by_name("other").values()
    assert (depth.default, depth.type) == (REQUIRED, float)
    assert (sizes.default, sizes.type, sizes.is_tuple) == ((1, 2.0), float, True)


def test_help_is_from_the_docstring():
    found = by_name("own")
    assert found["schedule.depth"].help == "number of waves, of one height."
    assert found["schedule.rate"].help == "height of a wave."
    assert found["schedule.wide"].help == "wide of own"
    assert by_name("other")["schedule.depth"].help == "its depth."
    assert (
        arguments.heading("schedule", "own") == "Arguments of --schedule=own: Returns a schedule."
    )


@settings(max_examples=40, derandomize=True)
@given(VALUES)
def test_round_trips(values):
    """Values are unchanged by a flagfile and by the command line."""
    config = flags.from_values({"schedule": "own", **values})
    assert config.arguments == values
    with tempfile.NamedTemporaryFile("w", suffix=".flags", encoding="utf-8") as file:
        file.write(flags.flagfile(config))
        file.flush()
        again = flags.parse([f"--flagfile={file.name}"])
    assert again == config and flags.flagfile(again) == flags.flagfile(config)
    given = [
        f"--{name}={','.join(map(str, value)) if isinstance(value, tuple) else value}"
        for name, value in values.items()
        if value is not None
    ]
    assert flags.parse(["--schedule=own", *given]).arguments == values


def test_selection():
    """Only arguments of the selected function have values; another function has its defaults."""
    config = flags.from_values({"schedule": "own", "schedule.depth": 7})
    assert config.arguments_of("schedule")["depth"] == 7 and config.arguments_of("model") == {}
    assert option_values(config)["schedule.depth"] == 7
    assert replaced(config, epochs=3).arguments == config.arguments
    assert replaced(config, **{"schedule.depth": 8}).arguments["schedule.depth"] == 8
    other = replaced(config, schedule="other", **{"schedule.depth": 1})
    assert other.arguments == {"schedule.depth": 1.0, "schedule.sizes": (1.0, 2.0)}
    assert replaced(config, schedule="cosine").arguments == {}
    with pytest.raises(ValueError, match=r"--schedule\.depth: give it; --schedule=other needs it"):
        replaced(config, schedule="other")


IGNORED = {
    ("--model=cnn", "--model.depth=3"): "--model=cnn has no such argument; it takes none",
    ("--model.depth", "3"): "--model=cnn has no such argument; it takes none",
    ("--model=vit", "--model.depth=3"): "it takes --model.size, --model.patch, --model.dropout",
    ("--model=cnn", "--nomodel.tied"): "--nomodel.tied: --model=cnn has no such argument",
    ("--schedule=own", "--schedule.depht=3"): "unknown flag --schedule.depht; did you mean",
    ("--model=cmm", "--model.depth=3"): "--model=cmm: choose one of",
}


@pytest.mark.parametrize("given", IGNORED)
def test_arguments_without_effect(given, tmp_path):
    """An argument that only other functions take is refused, except in a flagfile."""
    with pytest.raises(ValueError, match=re.escape(IGNORED[given])):
        flags.parse(given)
    if "=3" in given[1] and "choose" not in IGNORED[given] and "unknown" not in IGNORED[given]:
        file = tmp_path / "some.flags"
        file.write_text(f"{given[1]}\n")
        assert "model.depth" not in flags.parse([given[0], f"--flagfile={file}"]).arguments


def test_trajectory():
    """`changed` lists changed arguments; if another schedule is selected, only the schedule."""
    before = flags.from_values({"schedule": "own"})
    now = replaced(before, **{"schedule.depth": 5, "schedule.limit": 2})
    assert changed(before, now, "trajectory") == [
        ("schedule.depth", 4, 5),
        ("schedule.limit", None, 2),
    ]
    assert changed(before, now, "", "end", "record", "length") == []
    other = flags.from_values({"schedule": "other", "schedule.depth": 5})
    assert changed(before, other, "trajectory") == [("schedule", "own", "other")]


def test_shared_by_workers():
    """The digest that workers must share depends on the arguments, but not on the path of files."""
    one, other = (flags.from_values({"schedule": "own", "schedule.depth": n}) for n in (4, 5))
    assert flags.digest(one) != flags.digest(other)
    assert flags.digest(one) == flags.digest(replaced(one, load="/another/place.py"))


def test_parameter_without_a_value(monkeypatch):
    """A required parameter that neither the engine nor a flag fills in is refused with its line."""

    def positional(outputs, depth): ...

    def untyped(outputs, *, depth): ...

    monkeypatch.setitem(NETWORKS._entries, "positional", positional)
    monkeypatch.setitem(NETWORKS._entries, "untyped", untyped)
    for name, why in (("positional", "write it after *"), ("untyped", "annotate it with int")):
        with pytest.raises(ValueError, match=rf"test_arguments.py:\d+: --model={name}: .*{why}"):
            flags.from_values({"model": name})


def test_built_in_functions_have_no_arguments():
    assert Config().arguments == flags.from_values({}).arguments == {}
    assert "schedule.final_fraction" not in by_name("own")


@pytest.mark.parametrize(
    ("kind", "value", "parsed"),
    [
        (bool, "true", True),
        (bool, "False", False),
        (bool, True, True),
        (bool, "1", None),
        (bool, 2, None),
        (int, 3.0, 3),
        (int, 2.5, None),
        (int, float("inf"), None),
        (int, "3.0", None),
        (float, "inf", float("inf")),
        (float, "nan", None),
    ],
)
def test_conversion(kind, value, parsed):
    """A value that does not have the type is refused, and not cut to size."""
    argument = arguments.Argument("model.depth", kind, REQUIRED, "")
    if parsed is None:
        with pytest.raises(ValueError, match=r"^--model\.depth=.*: give "):
            argument.parsed(value)
    else:
        assert argument.parsed(value) == parsed


def test_conversion_of_tuples():
    argument = arguments.Argument("model.sizes", int, REQUIRED, "", is_tuple=True)
    assert argument.parsed("1,2") == argument.parsed([1, 2]) == (1, 2)
    with pytest.raises(ValueError, match="give values separated by commas"):
        argument.parsed(3)

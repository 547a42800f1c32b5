"""Declaration of options as dataclass fields with rules, and the validation of their values."""

from __future__ import annotations

import dataclasses
import difflib
import math
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

_SMALLEST = 2.0**-126  # smallest normal float32; TensorFlow flushes smaller numbers to 0


def option(
    default: Any,  # value if the flag is absent; its type is the option's type
    help: str,  # one line for `--help` and the docs
    *,
    choices: Collection[str] = (),  # allowed values, or a registry of them; empty: any
    any_of: Collection[str] = (),  # allowed names in a comma-separated list, each at most once
    registered: Callable[[], Collection[str]] = tuple,  # names registered by users, for `--help`
    minimum: float | None = None,  # inclusive lower bound of a number
    above: float | None = None,  # exclusive lower bound of a number
    below: float | None = None,  # exclusive upper bound of a number
    power_of_2: bool = False,  # must be a power of 2, from 2^-60 to 2^60, or 0 if that is in range
    trajectory: bool = False,
    affects: str = "",
    describes: str = "",
    same: Mapping[str, str] = MappingProxyType({}),  # a value -> another that means the same
    legacy: Any = None,  # value for a run whose config.flags predates the option; None: default
    legacy_with: str = "",  # option that a run must set for the legacy value to apply; "": none
) -> Any:
    """Returns a dataclass field that declares an option, with the rules in its metadata.

    With `trajectory`, the value affects the results of training steps, so a run cannot be resumed
    with another value. Otherwise `affects` names what the value affects: "length", the number of
    steps; "record", files written during training; "end", files written after the last step; "",
    none of these. `same` maps values to others of the same effect: such a pair is no change.

    `describes` says what of a trained run the value describes, for the modes that use its weights:
    "network", the network with its preprocessing, of which no mode takes another; "inputs", how
    examples of a data set become inputs of the network, of which a mode takes another only if it
    reads a data set; "", none of these.
    """
    metadata = dict(locals())  # the arguments above
    assert affects in ("", "length", "record", "end") and not (trajectory and affects)
    assert describes in ("", "network", "inputs") and (trajectory or not describes)
    metadata["affects"] = "trajectory" if trajectory else affects
    return dataclasses.field(default=default, metadata=metadata)


def did_you_mean(value: str, known: Sequence[str]) -> str:
    """Returns "; did you mean 'adam'?" with the known name closest to `value`, else ""."""
    close = difflib.get_close_matches(value, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def names_in(text: str) -> tuple[str, ...]:
    """Returns the names in a comma-separated list, without surrounding space; drops empty names."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def written(value: Any) -> str:
    """Returns an option's value as text for the command line, such as "true" or "512,512"."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return repr(value) if isinstance(value, float) else str(value)


class OptionGroup:
    """Base class of the frozen dataclasses of options; validates the values on construction.

    Raises ValueError for the first invalid value; the message names the flag, the value and the
    allowed values.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value, rules = getattr(self, field.name), field.metadata
            flag = f"--{field.name}={written(value)}"
            if (choices := rules["choices"]) and value not in choices:
                hint = did_you_mean(str(value), tuple(choices))
                raise ValueError(f"{flag}: choose one of {', '.join(choices)}{hint}")
            if rules["any_of"]:
                _check_names(flag, names_in(value), rules["any_of"])
            for number in value if isinstance(value, tuple) else (value,):
                if not isinstance(number, (str, bool)):
                    _check_number(flag, number, rules)


def _check_names(flag: str, names: Sequence[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            hint = did_you_mean(name, tuple(known))
            raise ValueError(f"{flag}: {name!r} is none of {', '.join(known)}{hint}")
    if len(set(names)) < len(names):
        raise ValueError(f"{flag}: lists a name twice")


def _check_number(flag: str, number: float, rules: Mapping[str, Any]) -> None:
    if isinstance(number, int) and abs(number) >= 1 << 63:
        raise ValueError(f"{flag}: must fit in 64 bits")
    if not math.isfinite(number):
        raise ValueError(f"{flag}: must be a finite number")
    if rules["minimum"] is not None and number < rules["minimum"]:
        raise ValueError(f"{flag}: must be at least {rules['minimum']}")
    if rules["above"] is not None and number <= rules["above"]:
        raise ValueError(f"{flag}: must be above {rules['above']}")
    if rules["below"] is not None and number >= rules["below"]:
        raise ValueError(f"{flag}: must be below {rules['below']}")
    is_power_of_2 = math.frexp(number)[0] == 0.5 and 2.0**-60 <= number <= 2.0**60
    if rules["power_of_2"] and number and not is_power_of_2:
        limits = "" if isinstance(number, int) else ", at least 2^-60 and at most 2^60"
        raise ValueError(f"{flag}: must be a power of 2{limits}")
    if isinstance(number, float):
        _check_float32(flag, number, rules["below"])


def _check_float32(flag: str, number: float, below: float | None) -> None:
    """Raises ValueError if a number, in float32, overflows, underflows or reaches `below`.

    `below` None: there is no upper bound.
    """
    try:
        (rounded,) = struct.unpack("<f", struct.pack("<f", number))
    except OverflowError:
        raise ValueError(f"{flag}: is infinite in float32; give one below 3.4e38") from None
    if number and abs(rounded) < _SMALLEST:
        raise ValueError(f"{flag}: is 0 in float32; give one of at least 1.2e-38") from None
    if below is not None and rounded >= below:
        raise ValueError(f"{flag}: is {below} in float32; give a smaller one")

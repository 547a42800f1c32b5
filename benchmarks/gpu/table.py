"""Formats the results of the GPU benchmark as Markdown, from the content of results.json alone."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.gpu.peaks import mfu, peak_tflops

Results = dict[str, Any]
_ODD = LookupError, TypeError, ValueError, AttributeError  # what figures of another form raise
_TOLD = 3  # last lines of a part that failed
_INFORMATION = re.compile(r"[IW]\d{4} ")  # lines of TensorFlow's log that are no errors


def summary(results: Results) -> dict[str, list[dict[str, Any]]]:
    """Returns, by workload, a dict for each part that has timed steps, in the figures' usual form.

    A dict has "part", "steps_per_second", "engine_is_so_many_times_as_fast", "mfu", "peak_tflops"
    and "memory_mb", of which all but the first two may be None. The operations of a step are those
    that the engine's part has counted, for all parts of a workload, because the mathematics are the
    same.
    """
    figures = {name: part.get("figures") or {} for name, part in results["parts"].items()}
    found: dict[str, list[dict[str, Any]]] = {}
    for name, own in figures.items():
        if "workload" not in own or "steps_per_second" not in own:
            continue
        with contextlib.suppress(*_ODD):
            engine = figures.get(f"{own['workload']}.engine", {})
            row = {"part": name, **_compared(own, engine)}
            found.setdefault(own["workload"], []).append(row)
    return found


def _compared(own: dict[str, Any], engine: dict[str, Any]) -> dict[str, Any]:
    rate = own["steps_per_second"]["median"]
    reference = engine.get("steps_per_second", {}).get("median")
    peak = peak_tflops(own.get("device"), own["precision"], own.get("tf32", False))
    gflop = engine.get("gflop_per_step", own.get("gflop_per_step"))
    return {
        "steps_per_second": rate,
        "engine_is_so_many_times_as_fast": reference / rate if reference else None,
        "mfu": mfu(gflop, rate, peak),
        "peak_tflops": peak,
        "memory_mb": own.get("peak_gpu_memory_mb"),
    }


def line(part: dict[str, Any]) -> str:
    """Returns what a part has found, in a few words; "" if it has found nothing of its kind."""
    with contextlib.suppress(*_ODD):
        return _told(part.get("figures") or {})
    return ""


def _told(own: dict[str, Any]) -> str:
    if "workload" in own and "steps_per_second" in own:
        return f"{_number(own['steps_per_second']['median'])} steps/s"
    if "same_bits" in own:
        same = "the same bits" if own["same_bits"] else "OTHER BITS"
        return f"{_accuracy(own)}, {same} after SIGKILL and resume"
    if "weights_sha256" in own:
        return f"{_accuracy(own)}, not resumed"
    if "laws" in own:
        held = sum(bool(law["passed"]) for law in own["laws"])
        return f"{held} of {len(own['laws'])} laws hold"
    if "tensorflow" in own:
        return f"TensorFlow {own['tensorflow']}, {own['device'] or 'no GPU'}"
    return ""


def written(results: Results) -> str:
    """Returns the content of GPU.md.

    A part that was cut off, or has printed something else, costs at most its own section.
    """
    summary = results.get("summary", {})
    lines = list(_heading(results))
    lines += _section("environment", _environment, results)
    lines += _section("gpu.flags", _run, results)
    lines += _section("--mode=verify", _verified, results)
    for name, rows in summary.items():
        lines += _section(name, _workload, results, name, rows)
    return "\n".join([*lines, *_parts(results)]) + "\n"


def _section(name: str, make: Callable[..., Iterator[str]], *arguments: Any) -> list[str]:
    """Returns the lines of a section, or one line that says why it cannot be made."""
    try:
        return list(make(*arguments))
    except _ODD as error:
        return ["", f"No section of {name}: {type(error).__name__}: {_cell(str(error))}"]


def _heading(results: Results) -> Iterator[str]:
    yield "# One GPU"
    yield ""
    yield f"Written by `{results['command']}`, {results['date']}; made from results.json."
    if results["rehearsal"]:
        yield ""
        yield (
            "**A rehearsal on the CPU, in tiny sizes: it shows that the parts run, and nothing of "
            "the speed of a GPU.**"
        )


def _parts(results: Results) -> Iterator[str]:
    """Yields the table of all parts: result, seconds, and what was found, or the last lines."""
    yield from ("", "## Parts", "", "| part | result | seconds | |", "|---|---|---|---|")
    for name, part in results["parts"].items():
        lines = [each for each in part["last_lines"] if not _INFORMATION.match(each)]
        last = lines[-1:] if part["status"] == "refused" else lines[-_TOLD:]
        told = part.get("reason") or (line(part) if part["status"] == "ok" else " / ".join(last))
        yield f"| {name} | {part['status']} | {part['seconds']:.1f} | {_cell(told)} |"


def _figures(results: Results, name: str) -> dict[str, Any]:
    return results["parts"].get(name, {}).get("figures") or {}


def _environment(results: Results) -> Iterator[str]:
    own = _figures(results, "environment")
    if not own:
        return
    driver = own.get("driver", "")
    if not isinstance(driver, str):
        driver = "; ".join(", ".join(f"{k} {v}" for k, v in gpu.items()) for gpu in driver)
    machine = own.get("machine", {})
    build = f"CUDA {own.get('cuda')}, cuDNN {own.get('cudnn')}"
    rows = {
        "GPU": own.get("device") or "none",
        "driver": driver,
        "TensorFlow": f"{own.get('tensorflow')}, built with {build}",
        "TensorFloat-32": "allowed, as is the default" if own.get("tf32") else "off",
        "Tapeline": f"{own.get('tapeline')}, commit {own.get('commit') or 'not known'}",
        "Python": own.get("python"),
        "processor": f"{machine.get('processor')}, {machine.get('cores')} cores",
        "measured": own.get("date"),
    }
    yield from ("", "| | |", "|---|---|")
    for name, value in rows.items():
        yield f"| {name} | {_cell(str(value))} |"
    devices = {
        device
        for name in results["parts"]
        if isinstance(device := _figures(results, name).get("device"), str)
    }
    if len(devices) > 1:
        yield from ("", f"The parts ran on different devices: {', '.join(sorted(devices))}.")


def _run(results: Results) -> Iterator[str]:
    own = _figures(results, "gpu_flags")
    if not own:
        return
    same = own.get("same_bits")
    resumed = {True: "the same bits", False: "OTHER BITS", None: "not resumed"}[same]
    yield from ("", f"## gpu.flags on {results['dataset']}", "")
    yield "| steps | test accuracy | seconds of training | of the command | SIGKILL and resume |"
    yield "|---|---|---|---|---|"
    seconds = f"{_number(own['train_seconds'])} | {_number(own['seconds_of_the_command'])}"
    test = (own.get("test") or {}).get("accuracy")
    accuracy = "" if test is None else f"{test:.2%}"
    yield f"| {own['step']:,} | {accuracy} | {seconds} | {resumed} |"


def _verified(results: Results) -> Iterator[str]:
    found = {name: _figures(results, f"verify_{name}") for name in ("float32", "bfloat16")}
    if not any(found.values()):
        return
    yield from ("", "## --mode=verify", "", "| precision | device | laws |", "|---|---|---|")
    for name, own in found.items():
        if own:
            laws = "; ".join(f"{law['law']} {_VERDICTS[law['passed']]}" for law in own["laws"])
            yield f"| {name} | {_cell(own['device']['device'])} | {laws} |"


_VERDICTS = {True: "ok", False: "BROKEN", None: "not compared"}


def _workload(results: Results, name: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    first = _figures(results, rows[0]["part"])
    yield from ("", f"## {name}: {first['what']}", "")
    gflop = _figures(results, f"{name}.engine").get("gflop_per_step")
    if gflop is not None:
        yield f"{_number(gflop)} GFLOP a step, in matrix products and convolutions."
        yield ""
    if all(row["peak_tflops"] is None for row in rows):
        device = first.get("device") or "the CPU"
        yield f"No MFU: benchmarks/gpu/peaks.py has no peak of {device}."
        yield ""
    yield (
        "| part | steps/s (p10 to p90) | Tapeline is so many times as fast | MFU | GPU memory, MiB "
        "| first step, s | input wait | with |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for row in rows:
        own = _figures(results, row["part"])
        rate, ratio = own["steps_per_second"], row["engine_is_so_many_times_as_fast"]
        wait = own.get("input_wait_fraction")
        cells = (
            row["part"],
            f"{_number(rate['median'])} ({_number(rate['p10'])} to {_number(rate['p90'])})",
            "" if ratio is None else f"{ratio:.2f}",
            "" if row["mfu"] is None else f"{row['mfu']:.1%}",
            "" if row["memory_mb"] is None else f"{row['memory_mb']:,.0f}",
            _number(own["first_step_seconds"]),
            "" if wait is None else f"{wait:.1%}",
            _cell(_settings(own)),
        )
        yield f"| {' | '.join(cells)} |"


def _settings(own: dict[str, Any]) -> str:
    """Returns the settings of a measurement in words."""
    words = [own["contender"], own["precision"], f"XLA {own['jit']}"]
    words += [f"{own['feed']} feed"] if own.get("feed") in ("resident", "stream") else []
    words += ["deterministic"] if own.get("deterministic") else []
    if own.get("copies"):
        words.append(f"{own['copies']['overlapped']:.0%} of the copies' time overlaps")
    if own.get("skipped_steps"):
        words.append(f"{own['skipped_steps']} bad steps")
    return ", ".join(words)


def _accuracy(own: dict[str, Any]) -> str:
    accuracy = (own.get("test") or {}).get("accuracy")
    return f"{own['train_seconds']:.1f} s" + ("" if accuracy is None else f", {accuracy:.2%}")


def _number(value: float) -> str:
    """Returns a number with about three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())

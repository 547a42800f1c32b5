"""Formats the measurements of a benchmark as a dict for JSON and as a text table."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

import engine
from engine.benchmark import machine
from engine.benchmark.blocks import median_ratio, spread
from engine.benchmark.measurement import Measurement
from engine.benchmark.options import BENCHMARK_EXTRAS
from engine.config.schema import option_values
from engine.runtime import onednn
from engine.trainer import console


def figures(measurement: Measurement) -> dict[str, Any]:
    """Returns measurements, machine, versions and options as a dict for the JSON output.

    The fields are documented in docs/guide/benchmark.md. Values may be nan or infinite.
    """
    parts, plain = measurement.parts, np.array(measurement.blocks["plain"])
    rates = measurement.steps_per_block / plain
    feed = parts.feeds.training
    steps_per_second = spread(rates, 50, 10, 90)
    step_ms = spread([1e3 * seconds for seconds in measurement.each_step], 50, 90, 99)
    before_first_step = measurement.first_call_seconds - measurement.trace_seconds
    results: dict[str, Any] = {
        "steps_per_second": steps_per_second,
        "examples_per_second": steps_per_second["median"] * feed.examples / feed.steps_per_epoch,
        "step_ms": {"p50": step_ms.pop("median"), **step_ms},
        "step_ms_by": measurement.each_step_by,
        **_operations(measurement, rates),
        "input_wait_fraction": _input_wait_fraction(measurement.blocks),
        "traces": parts.traces,
        "trace_seconds": measurement.trace_seconds,
        "compile_seconds": max(0.0, before_first_step - float(np.median(1 / rates))),
        "peak_rss_mb": machine.peak_rss_mb(),
        "steps_timed": measurement.steps_per_block * len(plain),
        "steps_left_out": measurement.left_out,
        "blocks": len(plain),
        "data": parts.config.benchmark.benchmark_data,
        "feed": parts.feed_kind,
        "jit": parts.jit,
        "jit_reason": parts.jit_reason or None,
    }
    for name, extra in measurement.extras.items():
        stalls = spread([1e3 * seconds for seconds in extra.stalls], 50, 99, 100)
        cost_ms = 1e3 * np.subtract(measurement.blocks[name], plain)
        results[name] = {
            "stall_ms": {"median": stalls["median"], "p99": stalls["p99"], "max": stalls["p100"]},
            "cost_ms": spread(cost_ms, 50, 10, 90),
            **extra.figures(),
        }
    if (memory := machine.gpu_memory_mb()) is not None:
        samples = measurement.utilization
        utilization = float(np.mean(samples)) if samples else None
        results["gpu"] = {"peak_memory_mb": memory, "utilisation": utilization}
    return results | {
        "device": parts.device,
        "deterministic": parts.config.devices.is_deterministic,
        "precision": parts.config.precision.precision,
        "emulated": console.emulation(parts) or None,
        "onednn": onednn.state(),
        "machine": machine.described(),
        "versions": {
            "tapeline": engine.__version__,
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
        },
        "config": option_values(parts.config),
    }


def _operations(measurement: Measurement, rates: np.ndarray) -> dict[str, float | None]:
    """Returns the figures of floating-point operations; `rates` are steps per second, per round.

    Those that depend on a number of operations that is not known are None.
    """
    gflop, computed = (
        None if flop is None else flop / 1e9 for flop in (measurement.model_flop, measurement.flop)
    )
    gflops = None if gflop is None else gflop * rates
    return {
        "gflops": None if gflops is None else float(np.median(gflops)),
        "gflop_per_step": gflop,
        "computed_gflop_per_step": computed,
        "roofline_gflops": float(np.median(measurement.roofline)),
        "roofline_fraction": (
            None if gflops is None else median_ratio(gflops, measurement.roofline)
        ),
    }


def _input_wait_fraction(blocks: dict[str, list[float]]) -> float:
    """Returns the fraction of step time that a repeated batch in memory saves.

    The result is 0 if nothing is saved, or if the data is synthetic, where this is not measured.
    """
    if "repeated_batch" not in blocks:
        return 0.0
    return max(0.0, 1 - median_ratio(blocks["repeated_batch"], blocks["plain"]))


def table(results: dict[str, Any]) -> str:
    """Returns the result of `figures` as a text table, with one line per measurement."""
    rate, step = results["steps_per_second"], results["step_ms"]
    steps = f"{results['blocks']} blocks, {results['steps_timed']:,} steps"
    percentiles = f"p90 {step['p90']:.3f}, p99 {step['p99']:.3f}"
    compiling = f"{results['compile_seconds']:.2f} s in TensorFlow's graph optimizer"
    traces = ", ".join(f"{name} {count}" for name, count in results["traces"].items())
    rows = [
        (
            "steps/s",
            f"{rate['median']:,.1f}",
            f"p10 {rate['p10']:,.1f}, p90 {rate['p90']:,.1f}; {steps}",
        ),
        ("examples/s", f"{results['examples_per_second']:,.0f}", f"{results['data']} data"),
        ("ms per step", f"{step['p50']:.3f}", f"{percentiles}, by {results['step_ms_by']}"),
        *_rows_of_operations(results),
        (
            "input wait",
            f"{results['input_wait_fraction']:.1%}",
            f"of a step; {results['feed']} feed",
        ),
        ("before the first step", f"{results['trace_seconds']:.2f} s", f"tracing, and {compiling}"),
        ("traces", traces, ""),
        ("memory", f"{results['peak_rss_mb']:,.0f} MiB", "at most"),
        ("oneDNN", results["onednn"], f"in {results['precision']}"),
    ]
    if count := results["steps_left_out"]:
        note = "of all steps taken; training would skip them too"
        rows.append(("skipped bad steps", f"{count:,}", note))
    if gpu := results.get("gpu"):
        utilization = gpu["utilisation"]
        value = f"{utilization:.0%}" if utilization is not None else "not known"
        rows.append(
            ("GPU in use", value, f"{gpu['peak_memory_mb']:,.0f} MiB of its memory at most")
        )
    for name in BENCHMARK_EXTRAS:
        if name in results:
            rows.append(_row_of_extra(name, results[name]))
    names, values, _ = zip(*rows, strict=True)
    width, middle = max(map(len, names)), max(map(len, values))
    return "\n".join(
        f"{name:<{width}}  {value:>{middle}}  {note}".rstrip() for name, value, note in rows
    )


def _rows_of_operations(results: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Returns the rows of the rate of operations and of its fraction of the roofline."""
    roofline = f"{results['roofline_gflops']:,.0f} GFLOP/s in plain matrix products"
    if results["gflops"] is None:
        why = "the graph does not know all sizes in matrix products and convolutions"
        return [("GFLOP/s", "not known", why), ("roofline fraction", "not known", roofline)]
    flop = f"{results['gflop_per_step']:.4g} GFLOP a step in matrix products and convolutions"
    return [
        ("GFLOP/s", f"{results['gflops']:,.1f}", flop),
        ("roofline fraction", f"{results['roofline_fraction']:.1%}", roofline),
    ]


def _row_of_extra(name: str, extra: dict[str, Any]) -> tuple[str, str, str]:
    stall, cost = extra["stall_ms"], extra["cost_ms"]
    note = f"the loop waits; {stall['max']:.2f} at most"
    if name == "saving":
        note += f"; {extra['megabytes']:.2f} MB, which take "
        note += f"{extra['waiting_for_the_disk_ms']:.1f} ms to write"
    if name == "evaluation":
        note += f"; {extra['examples_per_second']:,.0f} examples/s"
    else:
        note += f"; costs {cost['median']:.1f} ms of the steps beside it, "
        note += f"p10 {cost['p10']:.1f}, p90 {cost['p90']:.1f}"
    return name, f"{stall['median']:.2f} ms", note

"""Formats the measurements of a benchmark as a JSON object and as a table."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

import engine
from engine.benchmark import machine
from engine.benchmark.blocks import median_ratio, spread
from engine.benchmark.measurement import BenchmarkResult
from engine.config.schema import Config


def figures(measured: BenchmarkResult) -> dict[str, Any]:
    """Returns measurements, machine, versions and options as a dictionary for the JSON output."""
    parts, plain = measured.parts, np.array(measured.blocks["plain"])
    rates = measured.steps / plain
    flops = measured.model_flop * rates / 1e9
    feed = parts.feeds.training
    steps_per_second = spread(rates, 50, 10, 90)
    step_ms = [1e3 * seconds for seconds in measured.each_step]
    percentiles = spread(step_ms, 50, 90, 99)
    beside = parts.config.benchmark
    found: dict[str, Any] = {
        "steps_per_second": steps_per_second,
        "examples_per_second": steps_per_second["median"] * feed.examples / feed.steps_per_epoch,
        "step_ms": {"p50": percentiles.pop("median"), **percentiles},
        "step_ms_by": measured.each_step_by,
        "gflops": float(np.median(flops)),
        "gflop_per_step": measured.model_flop / 1e9,
        "computed_gflop_per_step": measured.flop / 1e9,
        "roofline_gflops": float(np.median(measured.roofline)),
        "roofline_fraction": median_ratio(flops, measured.roofline),
        "input_wait_fraction": _waiting(measured),
        "traces": parts.traces,
        "trace_seconds": measured.trace_seconds,
        "compile_seconds": max(
            0.0,
            measured.first_call_seconds - measured.trace_seconds - float(np.median(1 / rates)),
        ),
        "peak_rss_mb": machine.peak_rss_mb(),
        "steps_timed": measured.steps * len(plain),
        "steps_left_out": measured.left_out,
        "blocks": len(plain),
        "data": beside.benchmark_data,
        "feed": parts.feed_kind,
    }
    for name, extra in measured.extras.items():
        stalls = spread([1e3 * seconds for seconds in extra.stalls], 50, 99, 100)
        more = 1e3 * np.subtract(measured.blocks[name], plain)
        found[name] = {
            "stall_ms": {"median": stalls["median"], "p99": stalls["p99"], "max": stalls["p100"]},
            "cost_ms": spread(more, 50, 10, 90),
            **extra.figures(),
        }
    if (memory := machine.gpu_memory_mb()) is not None:
        used = measured.utilisation
        found["gpu"] = {
            "peak_memory_mb": memory,
            "utilisation": float(np.mean(used)) if used else None,
        }
    return found | {
        "device": parts.device,
        "machine": machine.described(),
        "versions": {
            "tapeline": engine.__version__,
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
        },
        "config": options(parts.config),
    }


def _waiting(measured: BenchmarkResult) -> float:
    """Returns the fraction of step time that a repeated batch in device memory saves."""
    if "still" not in measured.blocks:
        return 0.0
    return max(0.0, 1 - median_ratio(measured.blocks["still"], measured.blocks["plain"]))


def options(config: Config) -> dict[str, Any]:
    """Returns the values of all options, by name."""
    return {
        name: value
        for section in dataclasses.fields(config)
        for name, value in dataclasses.asdict(getattr(config, section.name)).items()
    }


def table(found: dict[str, Any]) -> str:
    """Formats the measurements as a table."""
    rate, step = found["steps_per_second"], found["step_ms"]
    rows = [
        (
            "steps/s",
            f"{rate['median']:,.1f}",
            f"p10 {rate['p10']:,.1f}, p90 {rate['p90']:,.1f}; {found['blocks']} blocks, "
            f"{found['steps_timed']:,} steps",
        ),
        ("examples/s", f"{found['examples_per_second']:,.0f}", f"{found['data']} data"),
        (
            "ms per step",
            f"{step['p50']:.3f}",
            f"p90 {step['p90']:.3f}, p99 {step['p99']:.3f}, by {found['step_ms_by']}",
        ),
        (
            "GFLOP/s",
            f"{found['gflops']:,.1f}",
            f"{found['gflop_per_step']:.4g} GFLOP a step in matrix products and convolutions",
        ),
        (
            "roofline fraction",
            f"{found['roofline_fraction']:.1%}",
            f"{found['roofline_gflops']:,.0f} GFLOP/s in plain matrix products",
        ),
        (
            "input wait",
            f"{found['input_wait_fraction']:.1%}",
            f"of a step; {found['feed']} feed",
        ),
        (
            "before the first step",
            f"{found['trace_seconds']:.2f} s",
            f"tracing, and {found['compile_seconds']:.2f} s in TensorFlow's graph optimizer",
        ),
        ("traces", ", ".join(f"{k} {v}" for k, v in found["traces"].items()), ""),
        ("memory", f"{found['peak_rss_mb']:,.0f} MB", "at most"),
    ]
    if found["steps_left_out"]:
        words = "of all steps taken; training would skip them too"
        rows.append(("skipped bad steps", f"{found['steps_left_out']:,}", words))
    if "gpu" in found:
        used = found["gpu"]["utilisation"]
        known = f"{used:.0%}" if used is not None else "not known"
        memory = f"{found['gpu']['peak_memory_mb']:,.0f} MB of its memory at most"
        rows.append(("GPU in use", known, memory))
    for name in ("saving", "logging", "evaluation"):
        if name in found:
            rows.append((name, *_row_of_extra(name, found[name])))
    width = max(len(name) for name, _, _ in rows)
    middle = max(len(value) for _, value, _ in rows)
    return "\n".join(f"{n:<{width}}  {v:>{middle}}  {w}".rstrip() for n, v, w in rows)


def _row_of_extra(name: str, of: dict[str, Any]) -> tuple[str, str]:
    stall, cost = of["stall_ms"], of["cost_ms"]
    words = f"the loop waits; {stall['max']:.2f} at most"
    if name == "saving":
        to_write = f"{of['waiting_for_the_disk_ms']:.1f} ms"
        words += f"; {of['megabytes']:.2f} MB, which take {to_write} to write"
    if name == "evaluation":
        words += f"; {of['examples_per_second']:,.0f} examples/s"
    else:
        words += (
            f"; costs {cost['median']:.1f} ms of the steps beside it, p10 {cost['p10']:.1f}, p90 "
            f"{cost['p90']:.1f}"
        )
    return f"{stall['median']:.2f} ms", words

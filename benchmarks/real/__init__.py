"""Benchmark of the networks that people train: W5 to W8, beside a loop by hand and other frameworks.

    python -m benchmarks.compare --workloads=W5,W6,W7,W8
"""

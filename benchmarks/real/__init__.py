"""Benchmark of networks that people train, beside a loop by hand and other frameworks.

python -m benchmarks.compare --workloads=W5,W6,W7,W8
"""

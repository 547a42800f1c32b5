"""The losses of the first steps of some runs, as they were: what changes them changes a run.

python -m tests.golden.write    writes them anew, after a change that is meant to change them
python -m tests.golden.drift    how far they move with threads, kernels and instruction sets
"""

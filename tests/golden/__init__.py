"""Golden losses: the recorded losses of the first steps of some runs, to detect changed results.

python -m tests.golden.write    updates the files after an intended change
python -m tests.golden.drift    measures how the losses vary with threads, kernels and ISA
"""

"""From gradients to updates: optimizers, learning-rate schedules, clipping, precision, EMA.

An optimizer updates variables and their slots in place. Values that change with the step (learning
rate, bias correction) are computed once per step in float64 and passed as one float32 scalar.
`registry` lists their names.
"""

"""Optimizers, learning-rate schedules, gradient clipping, precision policies, loss scale and EMA.

Values that depend on the step (learning rate, bias correction) are computed in float64 once per
step and cast to float32 scalars.
"""

"""The trainer of a run: training steps, epoch ends, bad steps, logging and final evaluation."""

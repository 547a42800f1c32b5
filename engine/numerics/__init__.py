"""What a step is computed with: functions of tensors that know of no run, no option and no file."""

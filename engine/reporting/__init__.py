"""Reports on a run, a split or a data set, for training, `--mode=report` and `--mode=evaluate`."""

"""Reports on a run, a split or a data set; `--mode=report` and `--mode=evaluate`."""

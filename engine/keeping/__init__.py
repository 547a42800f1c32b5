"""What a run keeps and shows while it happens: its directory, checkpoints, curves and clock."""

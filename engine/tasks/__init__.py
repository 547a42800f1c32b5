"""Tasks, which compute losses, metric arguments and predictions from the outputs of a model."""

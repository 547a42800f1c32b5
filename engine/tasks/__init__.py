"""Tasks, which compute the loss and the metrics of each example."""

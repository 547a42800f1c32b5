"""What a trained network is for: predictions, and a network that serves on its own."""

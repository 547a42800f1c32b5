"""`--mode=benchmark`: how fast a configuration trains here, and what the time goes to."""

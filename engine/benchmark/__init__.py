"""`--mode=benchmark`: measures training speed on this machine, and what limits it."""

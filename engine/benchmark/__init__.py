"""`--mode=benchmark`: measures training speed, and the factors that limit it, on this machine."""

"""`--mode=benchmark`: measures training speed on this machine, and where the time goes."""

"""`--mode=tune`: measures options that affect training speed, and finds their fastest values."""

"""`--mode=tune`: measures options that affect speed only, and finds the fastest ones."""

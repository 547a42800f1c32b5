"""`--mode=tune`: finds the fastest options by measurement; they do not change the mathematics."""

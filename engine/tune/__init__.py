"""`--mode=tune`: finds out by measuring what nobody can guess, and changes no mathematics."""

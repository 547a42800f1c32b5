"""Declares and validates options, and derives the flags, the help and the docs from them."""

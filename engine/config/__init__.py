"""Options: their declaration and validation, and the flags, help and docs derived from them."""

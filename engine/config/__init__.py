"""Options: their declaration and validation, and the flags, help and table made from them."""

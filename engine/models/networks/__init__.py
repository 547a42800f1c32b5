"""The built-in networks, by family; engine/models/registry.py has their names."""

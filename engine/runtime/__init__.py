"""Process-level services: startup, signals, file locks, atomic writes, background threads."""

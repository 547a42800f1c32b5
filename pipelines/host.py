"""Queries of the CPU cores and the memory of the host that this process may use."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Returns the number of logical CPUs that this process may use; on macOS, of all CPUs."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory() -> int:
    """Returns the free RAM in bytes; on macOS, which does not report it, half of the total."""
    page = os.sysconf("SC_PAGE_SIZE")
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * page
    except (ValueError, OSError):
        return os.sysconf("SC_PHYS_PAGES") * page // 2

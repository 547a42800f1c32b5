"""The part of the host that this process may use: cores and memory."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Returns the number of cores that this process may use; on macOS those of the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_memory() -> int:
    """Returns the free bytes of memory; on macOS, which does not say, half of what there is."""
    page = os.sysconf("SC_PAGE_SIZE")
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * page
    except (ValueError, OSError):
        return os.sysconf("SC_PHYS_PAGES") * page // 2

"""Queries of the CPU cores, memory and open files that this process may use."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

# Of a container, by version of Linux's control groups: the limit of its memory and what is in use,
# in bytes, and the entry of memory.stat for the cached files in use, which can be dropped.
_CONTROL_GROUPS = (
    ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    (
        *("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
        "total_inactive_file",
    ),
)


def usable_cores() -> int:
    """Returns the number of logical CPUs that this process may run on.

    If the operating system does not tell, as on macOS, it is the number of all CPUs.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def open_files_per_reader(most: int) -> int:
    """Returns how many files a reader may keep open: at most `most`, and at least 4.

    It is an eighth of the files that the operating system lets this process open, such as 32 on
    macOS, because each split has a reader, and TensorFlow, logs and checkpoints open files, too.
    """
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if allowed < 0 else max(4, min(most, allowed // 8))  # RLIM_INFINITY may be -1


def available_memory(root: str = "/") -> int:
    """Returns the bytes of RAM that are available without swapping, within a container's limit.

    Inactive cached files count as available. Without proc/meminfo, as on macOS, half of the total
    RAM counts as available. `root` is the directory that contains the system's proc and sys
    directories.
    """
    found = _number(Path(root, "proc/meminfo"), "MemAvailable:")
    if found is None:
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    else:
        available = found * 1024
    for folder, limit, used, cached in _CONTROL_GROUPS:
        most, now = (_number(Path(root, folder, name)) for name in (limit, used))
        if most is not None and now is not None:
            droppable = _number(Path(root, folder, "memory.stat"), cached) or 0
            available = min(available, most - now + droppable)
    return max(0, available)


def _number(path: Path, entry: str = "") -> int | None:
    """Returns the first number that follows `entry`, a pattern, at the beginning of a line.

    Returns None if there is none, or if the file cannot be read.
    """
    try:
        found = re.search(rf"^{entry}\s*(\d+)", path.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None

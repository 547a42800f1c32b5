"""The memory that is available: free or cached, and within a container's limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import host

GIB = 1 << 30
MEMINFO = f"MemTotal: {32 << 20} kB\nMemFree: {1 << 20} kB\nMemAvailable:  {8 << 20} kB\n"


def system(root: Path, **files: str) -> str:
    """Writes the system's files into a directory; "__" in a name is a slash, "_0" a dot."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_0", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


V2 = "sys__fs__cgroup__memory_0"
V1 = "sys__fs__cgroup__memory__memory_0"
CASES = {
    "cached files": ({}, 8 * GIB),
    "no limit": ({f"{V2}max": "max\n", f"{V2}current": f"{GIB}\n"}, 8 * GIB),
    "a limit": ({f"{V2}max": f"{4 * GIB}\n", f"{V2}current": f"{GIB}\n"}, 3 * GIB),
    "a limit, cached files": (
        {
            f"{V2}max": f"{4 * GIB}\n",
            f"{V2}current": f"{3 * GIB}\n",
            f"{V2}stat": f"anon {GIB}\nactive_file 5\ninactive_file {2 * GIB}\n",
        },
        3 * GIB,
    ),
    "a limit that is reached": ({f"{V2}max": f"{GIB}\n", f"{V2}current": f"{2 * GIB}\n"}, 0),
    "version 1, no limit": (
        {f"{V1}limit_in_bytes": f"{2**63 - 4096}\n", f"{V1}usage_in_bytes": f"{GIB}\n"},
        8 * GIB,
    ),
    "version 1": (
        {
            f"{V1}limit_in_bytes": f"{2 * GIB}\n",
            f"{V1}usage_in_bytes": f"{2 * GIB}\n",
            f"{V1}stat": f"inactive_file 7\ntotal_inactive_file {GIB}\n",
        },
        GIB,
    ),
}


@pytest.mark.parametrize("files, expected", CASES.values(), ids=list(CASES))
def test_available_memory(tmp_path, files, expected):
    assert host.available_memory(system(tmp_path, proc__meminfo=MEMINFO, **files)) == expected


def test_without_proc(tmp_path, monkeypatch):
    monkeypatch.setattr(host.os, "sysconf", {"SC_PHYS_PAGES": 100, "SC_PAGE_SIZE": 4096}.get)
    assert host.available_memory(str(tmp_path)) == 204_800


def test_of_this_host():
    assert 0 < host.available_memory() < 1 << 50

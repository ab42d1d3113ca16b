"""How many processors this process may keep busy."""

from __future__ import annotations

import os
from pathlib import Path


CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def usable_cpus() -> int:
    """Processors that the process may run on, or as many as its container's quota of time is worth: the fewer."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(int(quota) for quota in _quotas())]))


def _quotas() -> list[float]:
    """What Linux' control groups allow, those of this process and those that hold them, in processors."""
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:
        return []
    quotas = []
    for _, controllers, name in (line.split(":", 2) for line in lines):
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CGROUPS / controllers
        group = root / name.lstrip("/")
        for folder in (group, *group.parents):  # a container may not see its own group by name, but sees the root
            if folder.is_relative_to(root):
                quotas += _quota(folder)
    return quotas


def _quota(folder: Path) -> list[float]:
    try:
        if (folder / "cpu.max").is_file():  # version 2
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{what}_us").read_text() for what in ("quota", "period"))
        return [float(quota) / float(period)] if float(quota) > 0 else []
    except (OSError, ValueError):  # none of its own, or "max"
        return []

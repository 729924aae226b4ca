"""How many processors this process may use: those it may run on, bounded by the quota of its container."""

import contextlib
import math
import os
from pathlib import Path, PurePosixPath

GROUPS, HIERARCHIES = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def processors() -> int:
    """The processors that this process may use, at least 1; part of one counts as one."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(own, math.ceil(min(cpu_quota(), own))))


def cpu_quota(groups: Path = GROUPS, hierarchies: Path = HIERARCHIES) -> float:
    """The processors that control groups of either version allow, which may be a part of one; infinity: no bound.

    A group above may allow less than its own, so all are asked. Inside a container its own group is at the top, though
    version 1 names it by where the host has it.

    Args:
        groups: the file that names the groups of this process, as /proc/self/cgroup.
        hierarchies: where they are mounted.
    """
    quotas = [math.inf]
    for line in groups.read_text().splitlines() if groups.exists() else ():
        _, controllers, name = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = hierarchies / "cpu" if controllers else hierarchies
        own = PurePosixPath(name)
        quotas += [_quota(top / group.relative_to("/")) for group in (own, *own.parents)]
    return min(quotas)


def _quota(group: Path) -> float:
    """What one group allows: cpu.max has quota and period, in microseconds, and version 1 a file for each."""
    files = [group / "cpu.max"], [group / "cpu.cfs_quota_us", group / "cpu.cfs_period_us"]
    for names in files:
        with contextlib.suppress(OSError, ValueError):  # no such file; or "max", which is no bound
            quota, period = (int(word) for name in names for word in name.read_text().split())
            return quota / period if quota > 0 and period > 0 else math.inf
    return math.inf

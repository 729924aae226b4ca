"""How many processors this process may use: its CPU affinity, limited by the quota of its container."""

import contextlib
import math
import os
from pathlib import Path, PurePosixPath

GROUPS, HIERARCHIES = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def processors() -> int:
    """The number of processors that this process may use, rounded up, at least 1."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(own, math.ceil(min(cpu_quota(), own))))


def cpu_quota(groups: Path = GROUPS, hierarchies: Path = HIERARCHIES) -> float:
    """The processors that control groups (version 1 or 2) allow, possibly a fraction; infinity means no limit.

    A parent group may allow less than the group itself, so this reads all of them. Inside a container the group is
    mounted at the top, although version 1 names it by its path on the host.

    Args:
        groups: the file that names the groups of this process, such as /proc/self/cgroup.
        hierarchies: where the groups are mounted.
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
    """The quota of one group: cpu.max holds quota and period in microseconds; version 1 has a file for each."""
    files = [group / "cpu.max"], [group / "cpu.cfs_quota_us", group / "cpu.cfs_period_us"]
    for names in files:
        with contextlib.suppress(OSError, ValueError):  # no such file; or "max", which means no limit
            quota, period = (int(word) for name in names for word in name.read_text().split())
            return quota / period if quota > 0 and period > 0 else math.inf
    return math.inf

"""How many cores this process may really use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["available_cores"]

ROOT = Path("/")
# Where the kernel shows the CPU controller of control groups of version 1, by its usual names.
VERSION_1 = ("cpu", "cpu,cpuacct", "cpuacct,cpu")


def available_cores(root: Path = ROOT) -> int:
    """The cores of the affinity, or fewer where a control group grants less time; at least one.

    A quota of one and a half cores counts as one: threads beyond the quota only have the group stopped more often.

    Args:
        root: where `proc` and `sys` lie.
    """
    cores = len(os.sched_getaffinity(0))
    return max(1, min([cores, *(int(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """What each control group around this process grants, in cores; nothing for those without a bound."""
    groups = root / "sys/fs/cgroup"
    for place in _own(root, groups):
        with suppress(OSError, ValueError):  # this controller is not here, or not of this version
            quota, period = (place / "cpu.max").read_text(encoding="ascii").split()
            if quota != "max":
                yield int(quota) / int(period)
        with suppress(OSError, ValueError):
            quota = (place / "cpu.cfs_quota_us").read_text(encoding="ascii")
            if int(quota) > 0:
                yield int(quota) / int((place / "cpu.cfs_period_us").read_text(encoding="ascii"))


def _own(root: Path, groups: Path) -> Iterator[Path]:
    """The folders of this process's groups and of all above them, which bound it too."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in [*lines, "0::/", "0:cpu:/"]:  # in a container the path may be the host's; its root is always there
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for name in VERSION_1 if controllers else ("",):
            place = groups / name / path.lstrip("/")
            above = [parent for parent in place.parents if parent.is_relative_to(groups / name)]
            yield from (place, *above)

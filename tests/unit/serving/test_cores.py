"""Cores that a container really has: the kernel's files as they stand in containers of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from polyhead.serving.cores import available_cores
from polyhead.serving.settings import Settings

MANY = frozenset(range(16))


@pytest.fixture(autouse=True)
def _sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: MANY)


def kernel(root: Path, own: str, files: dict[str, str]) -> Path:
    """A root with these files below `sys/fs/cgroup`, and the process's own groups."""
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(own)
    return root


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000\n", 16),
        ("400000 100000\n", 4),
        ("150000 100000\n", 1),
        ("250000 100000\n", 2),
        ("50000 100000\n", 1),  # half a core is still one thread
        ("6400000 100000\n", 16),  # more than the affinity has
        ("garbage\n", 16),
        ("", 16),
    ],
)
def test_the_quota_of_version_2_counts_in_whole_cores(tmp_path, quota, cores):
    assert available_cores(kernel(tmp_path, "0::/\n", {"cpu.max": quota})) == cores


def test_a_group_further_up_bounds_those_below(tmp_path):
    root = kernel(tmp_path, "0::/a/b\n", {"a/b/cpu.max": "800000 100000", "a/cpu.max": "300000 100000"})
    assert available_cores(root) == 3


def test_the_hosts_path_in_a_container_is_no_obstacle(tmp_path):
    assert available_cores(kernel(tmp_path, "0::/system.slice/x.scope\n", {"cpu.max": "200000 100000"})) == 2


@pytest.mark.parametrize(("quota", "cores"), [("-1", 16), ("150000", 1), ("350000", 3), ("1000", 1)])
@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
def test_the_quota_of_version_1_is_found_under_either_name(tmp_path, quota, cores, folder):
    files = {f"{folder}/docker/x/cpu.cfs_quota_us": quota, f"{folder}/docker/x/cpu.cfs_period_us": "100000"}
    own = "5:memory:/elsewhere\n4:cpu,cpuacct:/docker/x\n0::/\n"
    assert available_cores(kernel(tmp_path, own, files)) == cores


def test_without_control_groups_the_affinity_counts(tmp_path):
    assert available_cores(tmp_path) == 16


def test_another_controllers_folder_is_not_asked(tmp_path):
    files = {"memory/x/cpu.cfs_quota_us": "100000", "memory/x/cpu.cfs_period_us": "100000"}
    assert available_cores(kernel(tmp_path, "5:memory:/x\n", files)) == 16


def test_threads_are_the_cores_shared_between_the_workers(monkeypatch):
    monkeypatch.setattr("polyhead.serving.settings.available_cores", lambda: 7)
    assert [Settings(workers=workers).threads_per_worker() for workers in (1, 2, 3, 8)] == [7, 3, 2, 1]

"""A driver that is killed before any of its changes is resumed to the very bytes of one that was left alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from polyhead.serving.scoring.driver import Driver
from polyhead.serving.scoring.publishing import SUCCESS
from polyhead.serving.scoring.retrying import retry
from polyhead.serving.scoring.store import Store
from polyhead.serving.scoring.verifying import verify
from tests.unit.serving.scoring.jobs import InlineEngine, ids, job, published, units

BAD = {3, 21, 22}


def driven(folder: Path, *, resume: bool = False) -> None:
    plan = units(2)
    Driver(Store.of(folder), job(str(folder), plan), plan, resume=resume).run(InlineEngine(), lambda _news: None)


def killed(verb: str, base: Path, start: Path) -> int:
    """How many drivers were killed, each one change later than the one before."""
    command = [sys.executable, "-m", "tests.unit.serving.scoring.killed", verb, str(base), str(start)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: what outlives a process is the same there, and syncs cost nothing."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """A job that nothing happened to."""
    driven(tmp_path / "whole")
    return tmp_path / "whole"


def test_every_kill_is_resumed_to_the_same_bytes(tmp_path: Path, whole: Path) -> None:
    expected = published(whole)
    count = killed("score", tmp_path, whole)
    assert count > 40  # two units: each with its attempts, its receipt, its parts
    unfinished = 0
    for number in range(1, count + 1):
        folder = tmp_path / str(number)
        before = published(folder)
        unfinished += SUCCESS not in before
        if SUCCESS in before:  # readers may trust it: everything was there when it was put
            assert before == expected, number
        driven(folder, resume=True)
        assert published(folder) == expected, number
        verify(folder)
        assert not (folder / "_polyhead/attempts").exists()
    assert unfinished > 35
    assert ids(folder) == [row for row in range(40) if row not in BAD]


def test_every_kill_of_a_retry_is_finished_by_the_next_one(tmp_path: Path, whole: Path) -> None:
    old = published(whole)
    quiet = Path(shutil.copytree(whole, tmp_path / "quiet"))
    retried(quiet)
    new = published(quiet)
    assert new != old
    count = killed("retry", tmp_path, whole)
    assert count > 25
    seen = set()
    for number in range(1, count + 1):
        folder = tmp_path / str(number)
        before = published(folder)
        seen.add("old" if before == old else "new" if before == new else "between")
        assert SUCCESS not in before or before in (old, new), number  # never half of it
        retried(folder)
        assert published(folder) == new, number
        verify(folder)
        assert not (folder / "_polyhead/retry.json").exists()
    assert seen == {"old", "between", "new"}
    assert ids(folder) == [row for row in range(40) if row != 21]


def retried(folder: Path) -> None:
    retry(folder, engine=InlineEngine(bad=frozenset({21})))

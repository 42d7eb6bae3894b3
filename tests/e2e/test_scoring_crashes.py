"""Batch scoring killed where it stands: the driver and the workers, at random moments, with -9.

`POLYHEAD_KILLS=200` kills the driver as often; `POLYHEAD_SEED` chooses other moments.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.command import POLYHEAD, run_polyhead

UNITS, UNIT_ROWS = 24, 4000
WORKER = "polyhead.serving.scoring.worker"
BAD_ROWS = (77, 9_000, 9_001, 91_999)
KILLS = int(os.environ.get("POLYHEAD_KILLS", "8"))
SEED = int(os.environ.get("POLYHEAD_SEED", "0"))


class Scoring:
    """One table, one bundle, and a destination that drivers come to and are killed."""

    def __init__(self, bundle: Path, table: Path, destination: Path) -> None:
        self.destination = destination
        self.command = [
            *("score", bundle, table, destination, "--resume", "--workers", 2),
            *("--unit-rows", UNIT_ROWS, "--batch-rows", 128, "--columns", "id"),
        ]

    def finish(self) -> None:
        """Run to the end; exit status 3: some rows are in quarantine."""
        run_polyhead(*self.command, expect=3)

    def start(self) -> psutil.Popen:
        return psutil.Popen(
            [str(POLYHEAD), *map(str, self.command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    @property
    def receipts(self) -> dict[str, bytes]:
        folder = self.destination / "_polyhead" / "receipts"
        return {path.name: path.read_bytes() for path in folder.glob("*.json")}

    @property
    def parts(self) -> dict[str, bytes]:
        """What readers see, the manifest aside, which says when and how often."""
        files = [*self.destination.glob("*.parquet"), *self.destination.glob("_quarantine/*.parquet")]
        return {str(path.relative_to(self.destination)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def scorings(wine: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Scoring]:
    folder = tmp_path_factory.mktemp("crashes")
    rows = UNITS * UNIT_ROWS
    numbers = np.random.default_rng(1).normal(size=(rows, 12)).astype(np.float32)
    numbers[list(BAD_ROWS), 5] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(numbers.ravel()), 12)
    table = pa.table({"id": np.arange(rows), "measurements": column})
    pq.write_table(table, folder / "in.parquet", row_group_size=UNIT_ROWS)
    return lambda name: Scoring(wine["bundle"], folder / "in.parquet", folder / name)


@pytest.fixture(scope="module")
def quiet(scorings: Callable[[str], Scoring]) -> dict[str, bytes]:
    """What an undisturbed run publishes."""
    scoring = scorings("quiet")
    scoring.finish()
    parts = scoring.parts
    table = pq.read_table([scoring.destination / name for name in sorted(parts) if name.startswith("part-")])
    assert table["id"].to_pylist() == [row for row in range(UNITS * UNIT_ROWS) if row not in BAD_ROWS]
    assert len(parts) == UNITS + 3
    return parts


def workers_of(driver: psutil.Popen) -> list[psutil.Process]:
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in driver.children():
            with suppress(psutil.Error):  # it may be gone by now
                if WORKER in child.cmdline():
                    found.append(child)
    return found


def eventually_gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=10)
    return not alive


def test_a_driver_killed_again_and_again_ends_as_if_never(
    scorings: Callable[[str], Scoring], quiet: dict[str, bytes]
) -> None:
    """Half the kills come at any time, half just as some number of units is committed."""
    moments = random.Random(SEED)
    kills = scored = rounds = 0
    scoring = scorings(f"driver-{SEED}-{rounds}")
    while kills < KILLS:
        before = scoring.receipts
        driver = scoring.start()
        target = moments.randint(len(before), UNITS) if moments.random() < 0.8 else UNITS + 1
        most = time.monotonic() + (60 if target <= UNITS else moments.uniform(0.3, 3.0))
        while driver.poll() is None and len(scoring.receipts) < target and time.monotonic() < most:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.02))
        workers = workers_of(driver)
        ended = driver.poll() is not None
        with suppress(psutil.NoSuchProcess):
            driver.kill()
        status = driver.wait()
        assert eventually_gone(workers)
        after = scoring.receipts
        assert before.items() <= after.items()  # what is committed stays as it is, and is not done again
        if ended:
            assert status == 3
        else:
            kills += 1
        scored += len(after) - len(before)
        if (scoring.destination / "_SUCCESS").exists():
            scoring.finish()
            assert scoring.parts == quiet
            rounds += 1
            scoring = scorings(f"driver-{SEED}-{rounds}")
    scoring.finish()
    assert scoring.parts == quiet
    assert scored or rounds


def test_workers_killed_at_random_change_nothing(scorings: Callable[[str], Scoring], quiet: dict[str, bytes]) -> None:
    moments = random.Random(SEED + 1)
    scoring = scorings(f"workers-{SEED}")
    driver = scoring.start()
    kills = 0
    while driver.poll() is None and kills < 6:
        time.sleep(moments.uniform(0, 0.05))
        workers = workers_of(driver)
        if workers and scoring.receipts:
            with suppress(psutil.NoSuchProcess):
                moments.choice(workers).kill()
                kills += 1
    assert driver.wait(120) == 3
    assert kills
    assert scoring.parts == quiet

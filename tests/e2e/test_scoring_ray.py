"""Batch scoring through Ray Data, on this machine: what the local engine writes, and nothing left behind."""

from __future__ import annotations

import re
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.command import POLYHEAD, run_polyhead

UNITS, UNIT_ROWS = 10, 300


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    numbers = np.random.default_rng(2).normal(size=(UNITS * UNIT_ROWS, 12)).astype(np.float32)
    numbers[1_234, 3] = np.inf
    column = pa.FixedSizeListArray.from_arrays(pa.array(numbers.ravel()), 12)
    path = tmp_path_factory.mktemp("ray") / "in.parquet"
    pq.write_table(pa.table({"measurements": column}), path, row_group_size=UNIT_ROWS)
    return path


def parts(destination: Path) -> dict[str, bytes]:
    files = [*destination.glob("*.parquet"), *destination.glob("_quarantine/*.parquet")]
    return {str(path.relative_to(destination)): path.read_bytes() for path in files}


def family(process: psutil.Process) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return process.children(recursive=True)
    return []


def listening(processes: list[psutil.Process]) -> set[str]:
    """Addresses on which somebody waits for connections."""
    found = set()
    for process in processes:
        with suppress(psutil.Error):
            found |= {c.laddr.ip for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN}
    return found


def test_ray_writes_what_the_local_engine_writes_also_when_an_actor_is_killed(
    wine: dict[str, Path], table: Path, tmp_path: Path
) -> None:
    common = ["score", wine["bundle"], table]
    flags = ["--unit-rows", UNIT_ROWS, "--batch-rows", 64]
    run_polyhead(*common, tmp_path / "local", *flags, expect=3)
    expected = parts(tmp_path / "local")
    assert len(expected) == UNITS + 1
    command = [str(POLYHEAD), *map(str, [*common, tmp_path / "ray", *flags, "--engine", "ray"])]
    driver = psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started: dict[int, psutil.Process] = {}
    addresses: set[str] = set()
    killed = False
    receipts = tmp_path / "ray" / "_polyhead" / "receipts"
    while driver.poll() is None:
        started |= {process.pid: process for process in family(driver)}
        if not killed and any(receipts.glob("*.json")):
            addresses = listening(list(started.values()))
            for process in started.values():
                with suppress(psutil.Error):
                    if not killed and "MapWorker" in " ".join(process.cmdline()):
                        process.kill()
                        killed = True
        time.sleep(0.05)
    _, errors = driver.communicate()
    assert driver.returncode == 3, errors
    assert killed
    assert parts(tmp_path / "ray") == expected
    assert addresses
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert not re.search(r"raylet|ray::|Ray|INFO|WARNING|pid=", errors), errors
    _, alive = psutil.wait_procs(list(started.values()), timeout=15)
    assert not alive

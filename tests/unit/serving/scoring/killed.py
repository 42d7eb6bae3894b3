"""`python -m tests.unit.serving.scoring.killed VERB FOLDER START`: a driver killed before each of its changes in turn.

The n-th driver works in `FOLDER/n`, and is gone, as by `kill -9`, before the n-th time that it opens, makes, links,
renames or removes a file there. It is a fork of this process, which has imported everything and started no thread.
With VERB `retry`, folder n begins as a copy of START.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa

from polyhead.serving.scoring.driver import Driver
from polyhead.serving.scoring.retrying import retry
from polyhead.serving.scoring.store import Store
from tests.unit.serving.scoring.jobs import InlineEngine, job, units

KILLED = 9
CHANGES = frozenset(["open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"])


def kill_before(number: int, folder: Path) -> None:
    """Kill this process before its n-th change below a folder."""
    left = number

    def seen(event: str, values: tuple[Any, ...]) -> None:
        nonlocal left
        if event in CHANGES and str(values[0]).startswith(str(folder)):
            left -= 1
            if left == 0:
                os._exit(KILLED)

    sys.addaudithook(seen)


def drive(verb: str, folder: Path, *, resume: bool = False) -> None:
    if verb == "score":
        plan = units(2)
        wanted = job(str(folder), plan)
        Driver(Store.of(folder), wanted, plan, resume=resume).run(InlineEngine(), lambda _news: None)
    else:
        retry(folder, engine=InlineEngine(bad=frozenset({21})))


def main() -> None:
    verb, base, start = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    pa.table({"a": [1]})  # pyarrow imports pandas with its first table: here, not in every fork
    for number in range(1, 1000):
        folder = base / str(number)
        if verb == "retry":
            shutil.copytree(start, folder)
        child = os.fork()
        if child == 0:
            kill_before(number, folder)
            drive(verb, folder)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:  # it had fewer changes to make
            shutil.rmtree(folder)
            print(number - 1)
            return
        if status != KILLED:
            sys.exit(f"the driver that should die before its change {number} ended with {status}")


if __name__ == "__main__":
    main()

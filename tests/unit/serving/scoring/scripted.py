"""A worker whose deaths are written down beforehand: a real process, real signals, and rows instead of a model.

It works through a unit as a scorer does: read a chunk, decode it, run it; with care row by row. Its chunks have four
rows. The first line names rows by what they do: `{"SIGSEGV": [5], "hang": [9], …}`, or steps: `{"together": [1]}`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

from polyhead.serving.errors import BundleError
from polyhead.serving.scoring.beats import Beats
from polyhead.serving.scoring.errors import InputChanged
from polyhead.serving.scoring.faults import Fault
from polyhead.serving.scoring.journal import Journal, Step
from polyhead.serving.scoring.lines import attend
from polyhead.serving.scoring.receipts import Receipt, Written
from polyhead.serving.scoring.task import Task

ROWS = 4
FORWARD = "forward"


class Scripted:
    """What each row does; `log` is a file that every attempt is written to."""

    def __init__(self, script: dict[str, Any]) -> None:
        self.script = script
        if "refused" in script:
            raise BundleError(script["refused"])
        if "start" in script:
            print("no such library", file=os.sys.stderr)
            self._die(script["start"])

    def do(self, task: Task, beats: Beats) -> Receipt:
        journal = Journal(beats.tell, task.care, task.killers)
        with Path(self.script["log"]).open("a") as log:
            log.write(f"{os.getpid()} {task.attempt} {len(task.care)} {sorted(task.killers)}\n")
        print("what a library prints must not be taken for an answer")
        faults: list[Fault] = []
        alone: list[str] = []
        for number in range(task.unit.rows // ROWS):
            rows = range(number * ROWS, number * ROWS + ROWS)
            journal.begin(Step("read", number))
            self._fate("read", number)
            for stage in ("decode", FORWARD):
                step = Step(stage, number)
                journal.begin(step)
                here = [row for row in rows if not (row in journal.killers and journal.killers[row].stage == stage)]
                faults += [journal.killers[row] for row in rows if row not in here]
                if step in journal.care:
                    for row in here:
                        journal.begin(step, row)
                        self._run([row], stage)
                if journal.care.get(step) == "alone":
                    alone.append(f"{stage} {number}")
                else:
                    journal.begin(step)
                    if stage == FORWARD:
                        self._fate("together", number)
                    self._run(here, stage)
            beats.set_rows(number * ROWS + ROWS)
        good = task.unit.rows - len(faults)
        written = Written(",".join(alone), good, 1, task.attempt)
        quarantine = Written("quarantine", len(faults), 1, "") if faults else None
        counts = Counter(f"{fault.stage}/{fault.type}" for fault in faults)
        return Receipt(task.unit.ordinal, task.unit.rows, good, len(faults), 0, written, quarantine, counts)

    def _run(self, rows: list[int], stage: str) -> None:
        for how in ("SIGSEGV", "SIGKILL", "hang", "exit", "decode", "once", "changed", "network"):
            for row in set(rows) & set(self.script.get(how, ())):
                if (stage == "decode") == (how == "decode"):
                    self._die(how, row)

    def _fate(self, what: str, number: int) -> None:
        if number in self.script.get(what, ()):
            self._die("SIGSEGV")

    def _die(self, how: str, row: int = 0) -> None:
        if how in ("SIGSEGV", "decode"):
            ctypes.string_at(0)
        elif how == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        elif how == "hang":
            time.sleep(600)
        elif how == "exit":
            os._exit(3)
        elif how == "changed":
            raise InputChanged("a.parquet: was written to since the job was planned: begin another job")
        elif not Path(f"{self.script['log']}.{row}").exists():
            Path(f"{self.script['log']}.{row}").touch()
            if how == "network":
                raise ConnectionResetError("the store hung up")
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    attend(Scripted)

"""A worker that answers a batch is told from one that was killed in the middle of one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from polyhead.serving.torchserve.busy import PAGE, Busy, any_busy

SCRIPT = """
import sys
from pathlib import Path
from polyhead.serving.torchserve.busy import Busy
Busy(Path(sys.argv[1])).__enter__()
print("answering", flush=True)
sys.stdin.read()
"""


def test_a_worker_is_busy_while_it_answers(tmp_path: Path):
    busy = Busy(tmp_path)
    assert not any_busy(tmp_path)
    with busy:
        assert any_busy(tmp_path)
    assert not any_busy(tmp_path)


def test_a_worker_that_was_killed_is_not_busy_and_neither_is_another_with_its_number(tmp_path: Path):
    worker = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout.readline() == "answering\n"
    assert any_busy(tmp_path)
    worker.kill()
    worker.wait()
    assert not any_busy(tmp_path)
    (left,) = tmp_path.glob("*.busy")
    state, started = PAGE.unpack(left.read_bytes())
    left.with_stem(str(os.getpid())).write_bytes(PAGE.pack(state, started - 100))  # our own number, another start
    assert not any_busy(tmp_path)
    worker.stdin.close()
    worker.stdout.close()

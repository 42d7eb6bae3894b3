"""Children that nobody waits for are collected; children that somebody waits for keep their exit status."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os, subprocess, sys, time
from polyhead.serving.torchserve.orphans import adopt, reap

def zombies():
    children = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    return [c for c in children if open(f"/proc/{c}/stat").read().rpartition(")")[2].split()[0] == "Z"]

assert reap() == []  # no child at all
adopt()
leads = "import os, time; pid = os.fork(); pid or os.setsid(); pid or time.sleep(0.1)"
assert subprocess.run([sys.executable, "-c", leads], start_new_session=True).returncode == 0  # ends first, and stays
code = "import os, sys, time; pid = os.fork(); pid or time.sleep(0.3); pid and print(pid, flush=True)"
parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, start_new_session=True)
orphan = int(parent.stdout.readline())
assert parent.wait() == 0
ours = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
leader = subprocess.Popen([sys.executable, "-c", "raise SystemExit(4)"], start_new_session=True)
deadline = time.monotonic() + 10
while len(zombies()) < 4 and time.monotonic() < deadline:
    time.sleep(0.05)
assert str(orphan) in zombies()
found = reap()
assert found == [orphan], (found, orphan)
assert (ours.wait(), leader.wait()) == (3, 4)
assert reap() == []
print("fine")
"""


def test_an_orphan_is_collected_and_what_somebody_waits_for_is_not():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.returncode) == ("fine\n", 0), done.stderr

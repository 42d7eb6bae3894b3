"""One workload: contenders measured in turn, round after round; answers checked before, under load and after."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from benchmarks.peers import wrk
from benchmarks.peers.contenders import CONTENDERS, Contender, Plan, task
from benchmarks.peers.environments import EnvironmentFailed, python_of
from benchmarks.peers.expected import fault
from benchmarks.peers.forward import Bare, forward
from benchmarks.peers.machine import Pinning
from benchmarks.peers.material import Material
from benchmarks.peers.processes import DidNotStart, Process, free_port, post
from benchmarks.peers.workloads import LOADED
from benchmarks.peers.wrappers import WRAPPERS

__all__ = ["Asked", "Standing", "Turn", "measure"]

CHECKED = 8  # requests, before and after each turn
LOAD = 0.7  # of the peak


# Measurements long is every contender asked before its first: Java compiles what it has seen run often.
WARM = 3


@dataclass(frozen=True)
class Asked:
    """How much is measured.

    Attributes:
        rounds: turns of each contender.
        seconds: factor on every duration.
        load: factor on how long a Poisson load lasts; 0 leaves it out.
        pinning: cores.
        say: told what happens.
    """

    rounds: int
    seconds: float
    load: float
    pinning: Pinning
    say: Callable[[str], None]


@dataclass
class Turn:
    """What one contender did in one round.

    Attributes:
        peaks: of wrk, one for each number of connections.
        alone: of wrk with one connection.
        load: of the open-loop client, at 70 % of this contender's best; None where not measured.
        batch: requests that shared a forward pass on average while the best peak was measured; where the server tells.
        faults: answers that were wrong.
    """

    peaks: list[wrk.Peak] = field(default_factory=list)
    alone: wrk.Peak | None = None
    load: dict[str, Any] | None = None
    batch: float | None = None
    faults: list[str] = field(default_factory=list)

    @property
    def best(self) -> wrk.Peak:
        """The peak of the highest rate, of those without errors where there is one."""
        return max(self.peaks, key=lambda peak: (not peak.errors, peak.rate))


@dataclass
class Standing:
    """All turns of one contender; or why it did not start."""

    name: str
    turns: list[Turn] = field(default_factory=list)
    absent: str | None = None
    memory: int = 0

    def rate(self) -> float:
        """Good answers a second: at the number of connections where their median over the rounds is highest."""
        return max((statistics.median(rates) for rates in self.rates().values()), default=0.0)

    def rates(self) -> dict[int, list[float]]:
        """By number of connections, of every round in which it was measured; where it answers without errors."""
        found: dict[int, list[wrk.Peak]] = {}
        for turn in self.turns:
            for peak in turn.peaks:
                found.setdefault(peak.connections, []).append(peak)
        clean = {number: peaks for number, peaks in found.items() if not any(peak.errors for peak in peaks)}
        return {number: [peak.rate for peak in peaks] for number, peaks in (clean or found).items()}

    def errors(self) -> dict[str, int]:
        """By measurement, where there were any: connections of wrk, or `load`."""
        found: Counter[str] = Counter()
        for turn in self.turns:
            for peak in (*turn.peaks, *([turn.alone] if turn.alone else [])):
                found[str(peak.connections)] += peak.errors
            found["load"] += turn.load["errors"] if turn.load else 0
        return {name: count for name, count in found.items() if count}

    def faults(self) -> list[str]:
        """Wrong answers."""
        return [one for turn in self.turns for one in turn.faults]

    def alone(self) -> float | None:
        """The median of p50 with one connection, seconds."""
        found = [turn.alone.p50 for turn in self.turns if turn.alone]
        return statistics.median(found) if found else None

    def content(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **asdict(self),
            "rate": self.rate(),
            "rates": self.rates(),
            "alone": self.alone(),
            "errors": self.errors(),
            "faults": self.faults(),
            "batch": statistics.median(turn.batch or 0.0 for turn in self.turns) if self.turns else 0.0,
            "about": CONTENDERS[self.name].about,
            "packages": list(CONTENDERS[self.name].packages),
        }


class Served:
    """A contender's server, and how it is asked."""

    def __init__(self, contender: Contender, material: Material, asked: Asked, scratch: Path) -> None:
        self.contender, self.material, self.asked = contender, material, asked
        self.wrap = WRAPPERS[contender.name]
        self.folder = scratch / contender.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.requests = self.folder / "requests"
        about = task(material.folder)
        path = contender.path(about)
        wanted = material.workload.wanted if self.wrap.chooses else None
        heads = [wanted(index) if wanted else None for index in range(len(material.bodies))]
        self.whole = [self.wrap.request(path, about, *pair) for pair in zip(material.bodies, heads, strict=True)]
        self.answers = [
            {head: answer[head] for head in names} if names else answer
            for answer, names in zip(material.answers, heads, strict=True)
        ]
        wrk.write_requests(self.requests, self.whole)
        self.python = python_of(contender, asked.say)
        self.process: Process | None = None
        self.port = 0

    def start(self) -> None:
        """Until it answers rightly, then warm."""
        if self.process is not None:
            self.process.resume()
            return
        self.begin()
        seconds = self.material.workload.seconds * WARM
        wrk.measure(self.port, self.requests, 64, seconds * self.asked.seconds, self.asked.pinning)
        self.drain()

    def drain(self) -> None:
        """Wait for what a client left behind when it went: its requests would be the next measurement's."""
        post(self.port, self.whole[0], timeout=120.0)

    def begin(self) -> None:
        """Until it answers rightly.

        Raises:
            DidNotStart: it did not.
        """
        self.port = free_port()
        command = self.contender.command(self.python, Plan(self.material.folder, self.port))
        self.process = Process(self.contender.name, command, self.folder, self.asked.pinning, lambda: self.check(0))

    def rest(self) -> None:
        """Leave the cores to the next."""
        if self.process is not None and self.contender.pausable:
            self.process.pause()
        else:
            self.stop()

    def stop(self) -> None:
        """End it."""
        process, self.process = self.process, None
        if process is not None:
            process.stop()

    def check(self, index: int) -> str | None:
        """What is wrong with the answer to one request."""
        status, body = post(self.port, self.whole[index])
        return self.judge(index, status, body)

    def judge(self, index: int, status: int, body: bytes) -> str | None:
        """What is wrong with an answer."""
        if status != 200:
            return f"status {status}: {body[:200]!r}"
        try:
            found = json.loads(self.wrap.answer(body))
        except ValueError as error:
            return f"no JSON ({error}): {body[:120]!r}"
        return fault(found, self.answers[index])

    def checked(self, turn: Turn) -> None:
        """Ask for several answers, spread over the requests."""
        count = len(self.whole)
        for index in range(0, count, max(1, count // CHECKED)):
            found = self.check(index)
            if found is not None:
                turn.faults.append(found)

    def counts(self) -> tuple[int, int] | None:
        """Requests and forward passes so far, where the server tells."""
        if not self.contender.name.startswith("polyhead") or self.process is None:
            return None
        place = f"http://127.0.0.1:{self.port + 1}/models/{task(self.material.folder)['name']}"
        found = httpx.get(place, params={"customized": "true"}, trust_env=False).json()
        counts = found[0]["customizedMetadata"]["counts"]
        return counts["requests"], counts["forwards"]


def measure(
    material: Material, names: Sequence[str], asked: Asked, scratch: Path
) -> tuple[dict[str, Standing], list[Bare]]:
    """Every contender in turn, `rounds` times, the order turned by one each round, and then the bare forward pass."""
    bare: list[Bare] = []
    standings = {name: Standing(name) for name in names}
    served: dict[str, Served] = {}
    try:
        for number in range(asked.rounds):
            shift = number % len(names)
            for name in (*names[shift:], *names[:shift]):
                if standings[name].absent is None:
                    _turn(name, material, asked, scratch, served, standings)
            sizes = {turn.batch for one in standings.values() for turn in one.turns[-1:] if turn.batch}
            bare.append(forward(material, sizes, asked.seconds, asked.pinning.one_core))
    finally:
        for one in served.values():
            one.stop()
    return standings, bare


def _turn(
    name: str,
    material: Material,
    asked: Asked,
    scratch: Path,
    served: dict[str, Served],
    standings: Mapping[str, Standing],
) -> None:
    standing = standings[name]
    try:
        one = served.get(name) or Served(CONTENDERS[name], material, asked, scratch)
        served[name] = one
        one.start()
    except (DidNotStart, EnvironmentFailed) as error:
        standing.absent = str(error)
        asked.say(f"{material.workload.name}: {error}")
        return
    try:
        turn = _measured(one, standing)
        standing.turns.append(turn)
        assert one.process is not None
        standing.memory = max(standing.memory, one.process.memory())
    except (OSError, wrk.WrkFailed) as error:
        standing.absent = f"did not hold: {error}: {one.process.tail() if one.process else ''}"
        asked.say(f"{material.workload.name}: {name} {standing.absent}")
        one.stop()
        return
    one.rest()
    asked.say(
        f"{material.workload.name}, round {len(standing.turns)}: {name} {turn.best.rate:,.0f}/s "
        f"at {turn.best.connections} connections" + (f"; WRONG: {turn.faults[0]}" if turn.faults else "")
    )


def _measured(one: Served, standing: Standing) -> Turn:
    workload, asked, turn = one.material.workload, one.asked, Turn()
    one.checked(turn)
    best: tuple[bool, float] | None = None
    for connections in _connections(workload.connections, standing):
        before = one.counts()
        seconds, slow = workload.seconds * asked.seconds, workload.slow
        peak = wrk.measure(one.port, one.requests, connections, seconds, asked.pinning, slow)
        after = one.counts()
        one.drain()
        turn.peaks.append(peak)
        if best is None or (not peak.errors, peak.rate) > best:
            best = (not peak.errors, peak.rate)
            if before and after and after[1] > before[1]:
                turn.batch = (after[0] - before[0]) / (after[1] - before[1])
    turn.alone = wrk.measure(one.port, one.requests, 1, asked.seconds, asked.pinning, workload.slow)
    one.drain()
    if asked.load and one.contender.name in LOADED:
        turn.load = _loaded(one, turn)
    one.checked(turn)
    return turn


def _connections(all_of_them: Sequence[int], standing: Standing) -> Sequence[int]:
    """In the first round all; from then on the two that were best, for time is better spent on rounds."""
    if not standing.turns:
        return all_of_them
    first = sorted(standing.turns[0].peaks, key=lambda peak: -peak.rate)[:2]
    return sorted(peak.connections for peak in first)


def _loaded(one: Served, turn: Turn) -> dict[str, Any]:
    """The open-loop client, in a process of its own, at 70 % of the best rate of this turn."""
    asked = one.asked
    command = [*asked.pinning.client, sys.executable, "-m", "benchmarks.peers.openloop", "--port", str(one.port)]
    command += ["--requests", str(one.requests), "--rate", str(LOAD * turn.best.rate)]
    command += ["--seconds", str(one.material.workload.load_seconds * asked.load), "--seed", str(len(turn.peaks))]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise wrk.WrkFailed(f"the open-loop client ended with {found.returncode}: {found.stderr.strip()[-400:]}")
    load: dict[str, Any] = json.loads(found.stdout)
    samples = load.pop("samples")
    judged = [one.judge(s["index"], s["status"], s["body"].encode("latin-1")) for s in samples]
    turn.faults += [f"under load: {wrong}" for wrong in judged if wrong is not None]
    load["checked"] = len(samples)
    return load

"""All contenders, each loaded in its own process, visited in turn round after round: noise falls on all of them."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from polyhead.export.errors import ExportError
from polyhead.export.timing.contenders import Contender, NetworkPlace, contenders
from polyhead.export.timing.machine import machine
from polyhead.export.timing.process import ContenderProcess, Refused
from polyhead.export.timing.results import Refusal, Results, summarised
from polyhead.serving.bundle import Bundle

__all__ = ["NO_EAGER", "Effort", "measure"]

NO_EAGER = "not timed: give --run, or --factory with --weights and --spec"

# Told what is being done, how many steps are done and how many there are.
Watch = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Effort:
    """How long and at what.

    Attributes:
        batches: rows of a forward pass.
        rounds: visits of every contender at every batch size.
        seconds: of a visit, about.
        threads: of one forward pass on the CPU.
    """

    batches: Sequence[int] = (1, 8, 64)
    rounds: int = 5
    seconds: float = 0.2
    threads: int = 1


def measure(
    bundle: Bundle,
    devices: Sequence[str],
    effort: Effort,
    network: NetworkPlace | None = None,
    watch: Watch = lambda _text, _done, _all: None,
) -> Results:
    """Time every graph in every runtime that reads it, beside the eager network.

    Every contender stays loaded until the end, so that rounds can alternate between them; one at a time runs.

    Args:
        bundle: an opened bundle.
        devices: each as `base.resolve_device` returned it.
        effort: how long and at what.
        network: where the network is that the bundle was made of; it is not timed where None.
        watch: told what is being done.

    Raises:
        ExportError: the network cannot be loaded, or no contender could be timed.
    """
    load = os.getloadavg()[0]
    race = _Race(contenders(bundle.manifest, devices, network is not None), effort, watch)
    with ExitStack() as stack:
        race.load(stack, bundle, network)
        race.run()
    if not race.running:
        reasons = "; ".join(f"{c.name} on {c.device}: {refused.reason}" for c, refused in race.refused.items())
        raise ExportError(f"bundle {bundle.title}: nothing could be timed ({reasons})")
    return Results(
        model=bundle.title,
        bundle=bundle.digest,
        machines={device: machine(device) for device in devices},
        threads=effort.threads,
        load=load,
        rounds=effort.rounds,
        batches=tuple(effort.batches),
        eager=NO_EAGER if network is None else None,
        timings=tuple(summarised(race.times, list(race.running), effort.batches)),
        refused=tuple(_refusal(contender, refused) for contender, refused in race.refused.items()),
    )


class _Race:
    def __init__(self, entered: Sequence[Contender], effort: Effort, watch: Watch) -> None:
        self.entered = entered
        self.effort = effort
        self.running: dict[Contender, ContenderProcess] = {}
        self.refused: dict[Contender, Refused] = {}
        self.times: defaultdict[tuple[Contender, int], list[list[float]]] = defaultdict(list)
        self._watch = watch
        self._done = 0

    def load(self, stack: ExitStack, bundle: Bundle, network: NetworkPlace | None) -> None:
        for contender in self.entered:
            self._say(f"loading {contender.name} on {contender.device}")
            process = stack.enter_context(ContenderProcess(bundle, contender, network, self.effort.threads))
            self.running[contender] = process
            self._try(contender, process.load)
            refused = self.refused.get(contender)
            if contender.graph is None and refused is not None and not refused.wrong:
                raise ExportError(f"the eager network cannot be timed on {contender.device}: {refused.reason}")

    def run(self) -> None:
        for number in range(self.effort.rounds):
            for batch in self.effort.batches:
                # Another one begins each round: nobody always runs behind the same neighbour.
                order = list(self.entered[number % len(self.entered) :]) + list(
                    self.entered[: number % len(self.entered)]
                )
                for contender in order:
                    self._say(f"round {number + 1} of {self.effort.rounds}")
                    if contender in self.running:
                        self._visit(contender, batch)

    def _visit(self, contender: Contender, batch: int) -> None:
        process = self.running[contender]
        self._try(contender, lambda: self.times[contender, batch].append(process.passes(batch, self.effort.seconds)))

    def _try(self, contender: Contender, work: Callable[[], None]) -> None:
        """Do something with a contender; where that fails it is out, and its process ends."""
        try:
            work()
        except Refused as refused:
            self.refused[contender] = refused
            self.running.pop(contender).close()

    def _say(self, text: str) -> None:
        steps = len(self.entered) * (1 + self.effort.rounds * len(self.effort.batches))
        self._watch(text, self._done, steps)
        self._done += 1


def _refusal(contender: Contender, refused: Refused) -> Refusal:
    return Refusal(
        contender=contender.name,
        graph=contender.graph,
        runtime=contender.runtime,
        precision=contender.precision,
        device=contender.device,
        reason=refused.reason,
        wrong=refused.wrong,
    )

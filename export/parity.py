"""The gate: every head, eager against every graph, through the very runtimes that will serve.

A graph passes where, for each head and each case (batch sizes, least and greatest lengths, padding), values and
decisions are eager's within the tolerance of its precision; where row i alone, without padding, is row i of the batch;
where nothing depends on what padding holds; and where the packed output is the heads' own outputs, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
import torch

from polyhead.export import cases
from polyhead.export.errors import ExportError, ParityError
from polyhead.export.graphs import FusedGraph
from polyhead.serving.golden import Array, Tolerance, decisions, difference, fault
from polyhead.serving.manifest import Device, Graph, Precision, Proof
from polyhead.serving.runtimes import base

__all__ = ["AGREEMENT", "TOLERANCE", "Parity", "check", "eager", "proof", "require_repeatable"]

# Of values, by precision. What half precision loses is relative to the numbers it holds, as is what eight bits lose.
TOLERANCE: dict[Precision, Tolerance] = {
    "fp32": Tolerance(atol=1e-5, rtol=1e-4),
    "fp16": Tolerance(atol=1e-2, rtol=5e-2, cosine=0.999),
    "bf16": Tolerance(atol=1e-2, rtol=5e-2, cosine=0.999),
    "int8": Tolerance(atol=5e-2, rtol=1e-1, cosine=0.98),
}
# The least share of clear decisions that must be eager's.
AGREEMENT: dict[Precision, float] = {"fp32": 1.0, "fp16": 0.999, "bf16": 0.999, "int8": 0.98}

NONE = slice(0, 0)  # of the rows


@dataclass
class Parity:
    """What the gate saw of one graph on one runtime.

    Attributes:
        heads: the largest absolute difference to eager, by head.
        decisions: by head, how many of eager's decisions were clear, and how many of these were the same; each row
            counted once, and a graph beside itself not at all, or the share would be better than it is.
        batches: by case ("batch 7", "row alone …") and head, the largest absolute difference.
    """

    graph: str
    runtime: str
    device: str
    heads: dict[str, float] = field(default_factory=dict)
    decisions: dict[str, tuple[int, int]] = field(default_factory=dict)
    batches: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def largest(self) -> float:
        """Over all heads and cases."""
        return max(self.heads.values(), default=0.0)

    @property
    def agreement(self) -> float:
        """The smallest share of clear decisions that are eager's, over the heads; 1 where nothing is decided."""
        return min((same / clear for clear, same in self.decisions.values() if clear), default=1.0)

    def note(self, case: str, head: str, value: float, decided: tuple[int, int]) -> None:
        """Keep a difference, and how many decisions were clear and the same."""
        self.batches.setdefault(case, {})[head] = value
        self.heads[head] = max(self.heads.get(head, 0.0), value)
        clear, same = self.decisions.get(head, (0, 0))
        self.decisions[head] = (clear + decided[0], same + decided[1])


def proof(parities: Sequence[Parity]) -> Proof:
    """One graph's entry in the manifest, of all devices that it was proven on."""
    devices: dict[Device, None] = dict.fromkeys("cuda" if p.device.startswith("cuda") else "cpu" for p in parities)
    return Proof(
        largest=max(parity.largest for parity in parities),
        agreement=min(parity.agreement for parity in parities),
        devices=tuple(devices),
    )


def eager(graph: FusedGraph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Every head's output by eager PyTorch, the reference of everything.

    Raises:
        ExportError: the network does not run on so many rows, or returns other shapes.
    """
    outputs = graph.check({name: torch.from_numpy(array.copy()) for name, array in inputs.items()})
    return {name: output.numpy() for name, output in zip(graph.spec.head_names, outputs, strict=True)}


def require_repeatable(graph: FusedGraph, inputs: Mapping[str, Array]) -> None:
    """The network itself must answer the same rows the same way twice, and no other rows because of these.

    Raises:
        ExportError: naming the head that does not.
    """
    first, second = eager(graph, inputs), eager(graph, inputs)
    for head in graph.spec.head_names:
        if not np.array_equal(first[head], second[head], equal_nan=True):
            raise ExportError(
                f"head {head!r} answers the same rows differently each time "
                f"(by {difference(first[head], second[head]):.3g}): is dropout on, or a random number drawn in "
                "forward? (functional dropout needs training=self.training)"
            )


def check(entry: Graph, runtime: base.Runtime, graph: FusedGraph, samples: Sequence[Mapping[str, Array]]) -> Parity:
    """Put one graph through the gate.

    Args:
        entry: the graph's manifest entry; of a split graph, one that names arrays and heads.
        runtime: the graph, loaded where it is to serve.
        graph: the eager reference.
        samples: rows to run, of each shape that is at hand; the first are repeated where there are fewer than the
            largest batch.

    Raises:
        ExportError: the network itself does not run on so many rows or tokens, or answers no finite numbers.
        ParityError: naming head, graph, runtime, case and error, and what to do.
    """
    gate = _Gate(entry, runtime, graph)
    for case in cases.shapes(graph.spec, samples):
        # The network first: what it cannot do itself is not the graph's fault.
        expected = gate.eager(case.rows, case.name)
        gate.require(case.name, gate.run(case.rows, case.name), expected, gate.advice, case.fresh)
    together = cases.ragged(graph.spec, samples[0])
    batch = gate.run(together.rows, together.name)
    if together.lengths:
        gate.require(together.name, batch, gate.eager(together.rows, together.name), gate.advice, NONE)

    def why(head: str, wrong: str) -> str:
        if entry.precision != "fp32":  # fp32 was proven before: the network itself depends on nothing
            return gate.advice(head, wrong)
        return together.hint if together.lengths and gate.alike(together.single(), batch) else cases.NEIGHBOURS

    parts = [gate.run(row, "a row alone") for row in together.alone()]
    gate.require("row alone against row in batch", cases.joined(parts, batch), batch, why, NONE)
    if together.padded:
        scrambled = gate.run(together.scrambled(), "other padding")
        gate.require("padding that holds other tokens", scrambled, batch, why, NONE)
    gate.require_agreement()
    return gate.parity


class _Gate:
    """One graph on one runtime, and what was seen of it."""

    def __init__(self, entry: Graph, runtime: base.Runtime, graph: FusedGraph) -> None:
        self.entry = entry
        self.runtime = runtime
        self.graph = graph
        self.tolerance = entry.tolerance.on(runtime.device)
        self.parity = Parity(entry.id, runtime.name, runtime.device)

    @property
    def words(self) -> str:
        """The graph, as every message names it."""
        behind = " with the head's own graph behind it" if self.entry.part == "trunk" else ""
        return f"graph {self.entry.file}{behind} ({self.runtime.name} on {self.runtime.device})"

    def advice(self, head: str, wrong: str) -> str:
        """What to do about a head that is not eager's."""
        precision = self.entry.precision
        if precision == "fp16" and "its values are not finite" in wrong:
            return "; fp16 ends at 65504: export bf16, which does not, or scale what is so large"
        if head in self.entry.kept:  # it is the trunk's numbers that are too coarse
            return f"; leave --precision {precision} out"
        if precision != "fp32":
            return f"; keep the head in fp32 (--keep-fp32 {head}), or leave --precision {precision} out"
        return (
            "; a graph holds no branch of Python on values or sizes: write it with torch.where, "
            f"or leave --format {self.entry.format} out"
        )

    def eager(self, rows: Mapping[str, Array], case: str) -> dict[str, Array]:
        """What the network answers, which must be numbers."""
        expected = eager(self.graph, rows)
        for head, values in expected.items():
            bad = ~np.isfinite(values)
            if bad.any():
                row = int(np.argmax(bad.reshape(len(bad), -1).any(axis=1)))
                raise ExportError(
                    f"head {head!r}: the network itself answers {int(bad.sum())} of {bad.size} values that are not "
                    f"finite at {case}, the first in row {row}: an answer is made of numbers "
                    "(a division by zero, or a logarithm or root of nothing, in forward?)"
                )
        return expected

    def run(self, rows: Mapping[str, Array], case: str) -> dict[str, Array]:
        """One forward pass for every output."""
        try:
            found = self.runtime.run([rows[name] for name in self.entry.inputs], self.entry.outputs)
        except Exception as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            said = lines[-1] if self.entry.format == "torchscript" else lines[0]  # the line that says what is wrong
            raise ParityError(
                f"{self.words} fails at {case}: {said}; a graph takes any number of rows and any length of the spec: "
                "is one of the example's in it (a Python number of a shape, a reshape to a fixed size)?"
            ) from error
        return dict(zip(self.entry.outputs, found, strict=True))

    def require(
        self,
        case: str,
        actual: Mapping[str, Array],
        expected: Mapping[str, Array],
        why: Callable[[str, str], str],
        fresh: slice,
    ) -> None:
        """Note every head's difference, and refuse the first that is beyond tolerance.

        Args:
            case: its name.
            actual: a graph's outputs; where the packed one is among them, it must hold the heads exactly.
            expected: the heads.
            why: of a head and what is wrong with it, why that may be and what to do.
            fresh: the rows that no case had before.

        Raises:
            ParityError: naming head, graph, runtime, case, shape and error.
        """
        for head, spec in sorted(self.graph.spec.heads.items()):
            same_shape = actual[head].shape == expected[head].shape
            decided = (
                decisions(spec, actual[head][fresh], expected[head][fresh], self.tolerance) if same_shape else (0, 0)
            )
            self.parity.note(case, head, difference(actual[head], expected[head]), decided)
            wrong = self._fault(head, actual[head], expected[head])
            if wrong is not None:
                raise ParityError(
                    f"head {head!r} of {self.words} is not eager's: "
                    f"{case}, shape {list(expected[head].shape)}: {wrong}{why(head, wrong)}"
                )
        self._require_packed(actual, case)

    def _fault(self, head: str, actual: Array, expected: Array) -> str | None:
        if (
            actual.dtype != expected.dtype
        ):  # numbers alone would be the same, and what takes them on would get another type
            return f"{actual.dtype}, eager has {expected.dtype}"
        # Of a precision that may differ in a share of its decisions, all cases together are counted, at the end.
        share = 1.0 if self.entry.agreement == 1.0 else 0.0
        return fault(self.graph.spec.heads[head], actual, expected, self.tolerance, share)

    def alike(self, parts: Sequence[Mapping[str, Array]], batch: Mapping[str, Array]) -> bool:
        """Whether each row run by itself, as it is, answers what it does in the batch."""
        found = [self.run(part, "a row by itself") for part in parts]
        return all(
            self._fault(head, np.concatenate([part[head] for part in found]), batch[head]) is None
            for head in self.graph.spec.heads
        )

    def _require_packed(self, outputs: Mapping[str, Array], case: str) -> None:
        """The packed output holds the heads' own outputs side by side, and nothing else."""
        packed = self.entry.packed
        if packed is None or packed.output not in outputs:
            return
        width = outputs[packed.output].shape[1]
        taken = sorted(packed.columns.values())
        ends = [0, *(stop for _, stop in taken)]
        sizes = {head: prod(packed.shapes[head]) for head in packed.columns}
        if (
            [start for start, _ in taken] != ends[:-1]
            or ends[-1] != width
            or any(stop - start != sizes[head] for head, (start, stop) in packed.columns.items())
        ):
            places = ", ".join(f"{head} {start}:{stop}" for head, (start, stop) in packed.columns.items())
            raise ParityError(
                f"{self.words}: the packed output has {width} columns, which {places} do not fill one after the other, "
                f"at {case}: export again"
            )
        for head, view in packed.views(outputs[packed.output]).items():
            same = view.dtype == outputs[head].dtype and np.array_equal(view, outputs[head], equal_nan=True)
            if not same:
                start, stop = packed.columns[head]
                raise ParityError(
                    f"head {head!r} of {self.words}: columns {start}:{stop} of the packed output are not "
                    f"the head's own output, at {case}: export again"
                )

    def require_agreement(self) -> None:
        """Of a precision that may differ in a share of its decisions: not in more.

        Raises:
            ParityError: naming head, graph, runtime and share.
        """
        for head, (clear, same) in self.parity.decisions.items():
            if same < self.entry.agreement * clear:
                wrong = f"{clear - same} of {clear} clear decisions differ, {self.entry.agreement:.1%} must be the same"
                raise ParityError(
                    f"head {head!r} of {self.words} is not eager's: over all cases, {wrong}{self.advice(head, wrong)}"
                )

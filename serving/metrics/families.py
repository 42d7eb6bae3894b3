"""The metric families that a worker counts, and where each series lies among a worker's cells.

A series is a row of `float64` cells: one cell of a counter, one a label of a labelled counter, and of a histogram one a
bucket and one for the sum. All series of a model are known when it is loaded, so counting is adding to cells.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from polyhead.models.spec import (
    ClassificationHead,
    HeadSpec,
    MultilabelHead,
    OneShotHead,
    RegressionHead,
    Strict,
    TokensHead,
)
from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import RequestError
from polyhead.serving.golden import Array
from polyhead.serving.record import STAGES

__all__ = ["FAMILIES", "NONE", "OTHER", "Layout", "Series", "layout_of", "value_bounds"]

# By name, without the `_total` of counters: what it says. All have the labels `model` and `version`.
FAMILIES = {
    "polyhead_requests": "Requests answered by the workers, failures counted",
    "polyhead_request_failures": "Requests answered with an error of ours, by its type",
    "polyhead_rows": "Rows of the requests that were decoded",
    "polyhead_batch_requests": "Requests of a batch",
    "polyhead_batch_rows": "Rows of a batch",
    "polyhead_stage_seconds": "Time that one batch spent in a stage of the worker",
    "polyhead_head_requests": "Requests that wanted the head",
    "polyhead_head_rows": "Rows that wanted the head",
    "polyhead_head_labels": "Answers of the head by label: rows (of a tokens head words) whose answer it was",
    "polyhead_head_confidence": "Probability of the best label of a row",
    "polyhead_head_value": "Values that a regression head answered, in its own unit",
}
NONE = "(none)"  # of a oneshot head: no enrolled class is near enough
OTHER = "(other)"  # types of failure, or labels, beyond those with a series of their own

SECONDS = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
REQUESTS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 4096.0, 16384.0)
CONFIDENCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999)
VALUES = 12  # bounds of a regression head's histogram
COMPONENTS = 8  # values of a regression head that have a histogram each; those beyond have none


class Series(Strict):
    """One series, or one a name where it is a labelled counter.

    Attributes:
        family: its name among `FAMILIES`.
        labels: besides `model` and `version`.
        over: the label whose values are `names`.
        bounds: upper bounds of a histogram's buckets, ascending; the one beyond all is not among them.
        start: its first cell.
    """

    family: str
    labels: dict[str, str] = Field(default_factory=dict)
    over: str | None = None
    names: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    start: Annotated[int, Field(ge=0)]

    @property
    def size(self) -> int:
        """How many cells it takes."""
        return len(self.bounds) + 2 if self.bounds else len(self.names) if self.over else 1

    @property
    def place(self) -> slice:
        """Its cells."""
        return slice(self.start, self.start + self.size)


class Layout:
    """All series of one worker, by family and labels."""

    def __init__(self) -> None:
        self.series: list[Series] = []
        self.size = 0

    def add(
        self,
        family: str,
        labels: dict[str, str] | None = None,
        over: str | None = None,
        names: Sequence[str] = (),
        bounds: Sequence[float] = (),
    ) -> Series:
        """Room for one more series."""
        assert family in FAMILIES
        made = Series(
            family=family, labels=labels or {}, over=over, names=tuple(names), bounds=tuple(bounds), start=self.size
        )
        self.series.append(made)
        self.size += made.size
        return made

    def find(self, family: str, **labels: str) -> Series:
        """The series of a family with these labels.

        Raises:
            KeyError: there is none.
        """
        for series in self.series:
            if series.family == family and series.labels == labels:
                return series
        raise KeyError(f"{family} {labels}")


def layout_of(bundle: Bundle) -> Layout:
    """The series of a bundle's model: the same in every worker."""
    layout = Layout()
    layout.add("polyhead_requests")
    layout.add("polyhead_request_failures", over="type", names=(*_failures(RequestError), OTHER))
    layout.add("polyhead_rows")
    layout.add("polyhead_batch_requests", bounds=REQUESTS)
    layout.add("polyhead_batch_rows", bounds=ROWS)
    for stage in STAGES:
        layout.add("polyhead_stage_seconds", {"stage": stage}, bounds=SECONDS)
    enrolled = {name: classes.labels for name, classes in bundle.prototypes().items()}
    golden = bundle.golden().outputs
    for name, head in bundle.spec.heads.items():
        layout.add("polyhead_head_requests", {"head": name})
        layout.add("polyhead_head_rows", {"head": name})
        labels = _labels(head, enrolled.get(name, ()))
        if labels:
            layout.add("polyhead_head_labels", {"head": name}, over="label", names=labels)
        if isinstance(head, ClassificationHead):
            layout.add("polyhead_head_confidence", {"head": name}, bounds=CONFIDENCE)
        if isinstance(head, RegressionHead):
            values = golden[name].reshape(len(golden[name]), -1)
            for component in range(min(head.dim, COMPONENTS)):
                labels_of = {"head": name, "unit": head.unit, "component": str(component)}
                layout.add("polyhead_head_value", labels_of, bounds=value_bounds(values[:, component]))
    return layout


def _failures(kind: type[RequestError]) -> list[str]:
    """The types of all failures of a request that there are."""
    found = dict.fromkeys(name for child in kind.__subclasses__() for name in (child.type, *_failures(child)))
    return list(found)


def _labels(head: HeadSpec, enrolled: Sequence[str]) -> tuple[str, ...]:
    """What a head's answers are counted by; nothing where they are no labels, or one a pixel."""
    if isinstance(head, ClassificationHead | MultilabelHead | TokensHead):
        return head.labels
    return (*enrolled, NONE) if isinstance(head, OneShotHead) else ()


def value_bounds(expected: Array) -> tuple[float, ...]:
    """Bounds for values that are expected to be like these: from half a range below them to half a range above.

    Args:
        expected: a regression head's values for the golden samples, `[rows]`.
    """
    low, high = float(expected.min()), float(expected.max())
    span = (high - low) or abs(high) or 1.0
    step = 2 * span / (VALUES - 1)
    digits = 1 - math.floor(math.log10(step))  # two significant digits of a step: bounds that can be read
    bounds = [round(float(bound), digits) for bound in np.linspace(low - span / 2, high + span / 2, VALUES)]
    return tuple(sorted(set(bounds)))

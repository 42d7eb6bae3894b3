"""One batch to its answers, and down the ladder where that fails: a row that cannot be answered fails alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from polyhead.models.spec import TokensHead
from polyhead.models.tokenizer import Encoding
from polyhead.serving.answers import HeadAnswers
from polyhead.serving.engine import Engine
from polyhead.serving.errors import AnswerNotFinite
from polyhead.serving.finite import all_finite, infinite, not_finite
from polyhead.serving.golden import Array
from polyhead.serving.request import Options
from polyhead.serving.scoring.errors import EngineLost
from polyhead.serving.scoring.faults import Fault
from polyhead.serving.scoring.journal import Journal, Step
from polyhead.serving.scoring.ladder import Pieces, bisect, fault_of
from polyhead.serving.scoring.schema import answers_table

__all__ = ["Answered", "Batch", "Passes"]


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are run together.

    Attributes:
        step: of the unit.
        rows: their numbers in the unit, in the order of the arrays.
        arrays: as the graph takes them, `[rows, …]`.
        texts: by text input, each row's tokens; of those that a wanted head labels.
    """

    step: Step
    rows: Array
    arrays: Mapping[str, Array]
    texts: Mapping[str, Sequence[Encoding]]


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a batch.

    Attributes:
        tables: a column per head, one table for each pass.
        places: of each row of the tables, one after the other, its place in the batch.
        faults: of the other rows.
    """

    tables: list[pa.RecordBatch]
    places: Array
    faults: list[Fault]


class Passes:
    """Runs batches through one engine.

    Args:
        engine: loaded.
        heads: that are wanted.
        options: what is written besides each head's plain answer.
    """

    def __init__(self, engine: Engine, heads: tuple[str, ...], options: Options) -> None:
        self._engine = engine
        self._heads = heads
        self._options = options
        spec = engine.bundle.spec
        self._specs = {name: spec.heads[name] for name in heads}
        self._sources = {n: spec.text_of(head) for n, head in self._specs.items() if isinstance(head, TokensHead)}
        self._prototypes = engine.bundle.prototypes()
        golden = engine.bundle.golden()
        self._known = {name: np.ascontiguousarray(array[:1]) for name, array in golden.inputs.items()}
        self.labelled = tuple(dict.fromkeys(self._sources.values()))

    def run(self, batch: Batch, journal: Journal) -> Answered:
        """The answers to a batch, each row's exactly once: in a table, or in a fault.

        Rows that killed a worker in this stage are left out of a batch that is otherwise what it was. Those that raise
        are found, and the others answered together: as if these rows had not been there.
        """
        killed = np.isin(batch.rows, list(journal.killers))
        faults = [journal.killers[row] for row in batch.rows[killed].tolist()]
        left = np.flatnonzero(~killed)

        def part(places: Array) -> tuple[pa.RecordBatch, Array, list[Fault]]:
            return self._together(batch, places)

        care = journal.care.get(batch.step)
        journal.begin(batch.step)
        pieces: Pieces[tuple[pa.RecordBatch, Array, list[Fault]]]
        if care is None:
            pieces, errors = self._climb(left, part)
        else:
            alone = []
            for place in left.tolist():
                journal.begin(batch.step, int(batch.rows[place]))
                alone.append(bisect(np.array([place]), part))
                if alone[-1][1]:  # said while it is known of which row
                    self._require_sound(alone[-1][1][place])
            if care == "first":
                journal.begin(batch.step)
                pieces, errors = self._climb(left, part)
            else:
                pieces = [piece for found, _ in alone for piece in found]
                errors = {place: error for _, wrong in alone for place, error in wrong.items()}
        if errors:
            self._require_sound(next(iter(errors.values())))
        faults += [fault_of(int(batch.rows[place]), "forward", error) for place, error in errors.items()]
        answers = [answer for _, answer in pieces]
        places = [kept for _, kept, _ in answers]
        return Answered(
            [table for table, _, _ in answers],
            np.concatenate(places) if places else np.empty(0, np.int64),
            faults + [fault for _, _, wrong in answers for fault in wrong],
        )

    def _climb(
        self, left: Array, part: Callable[[Array], tuple[pa.RecordBatch, Array, list[Fault]]]
    ) -> tuple[Pieces[tuple[pa.RecordBatch, Array, list[Fault]]], dict[int, Exception]]:
        pieces, errors = bisect(left, part)
        if errors and len(pieces) > 1:
            good = np.delete(left, np.flatnonzero(np.isin(left, list(errors))))
            with suppress(Exception):  # only together they fail: what each part said of its rows must do
                pieces = [(good, part(good))]
        return pieces, errors

    def _together(self, batch: Batch, places: Array) -> tuple[pa.RecordBatch, Array, list[Fault]]:
        """The answers to some rows of a batch in one pass; padding stays as it is."""
        arrays = batch.arrays
        if len(places) < len(batch.rows):
            arrays = {name: np.ascontiguousarray(array[places]) for name, array in arrays.items()}
        found = self._engine.run(arrays, self._heads)
        outputs = {head: found[head] for head in self._heads}
        unsound = {} if all_finite(outputs) else infinite(outputs)
        with np.errstate(all="ignore"):  # rows that are not finite are left out below; their neighbours are exact
            answers = {
                head: HeadAnswers(
                    self._specs[head], output, self._texts(head, batch, places), self._prototypes.get(head)
                )
                for head, output in outputs.items()
            }
            table = answers_table(answers, len(places), self._options)
        if not unsound:
            return table, places, []
        good = np.logical_and.reduce(list(unsound.values()))
        faults = []
        for place in np.flatnonzero(~good).tolist():
            head = next(head for head, rows in unsound.items() if not rows[place])
            row = int(batch.rows[places[place]])
            faults.append(fault_of(row, "answer", AnswerNotFinite(not_finite(head))))
        return table.filter(pa.array(good)), places[good], faults

    def _texts(self, head: str, batch: Batch, places: Array) -> Sequence[Encoding]:
        if head not in self._sources:
            return ()
        texts = batch.texts[self._sources[head]]
        return texts if len(places) == len(texts) else [texts[place] for place in places.tolist()]

    def _require_sound(self, error: Exception) -> None:
        """Tell rows that fail from an engine that does: a GPU that is lost would quarantine everything.

        Raises:
            EngineLost: a golden sample fails too.
        """
        try:
            self._engine.run(self._known, self._heads)
        except Exception:  # noqa: BLE001 - a broken engine has no class of its own
            raise EngineLost(
                f"the engine ({self._engine.runtime.name} on {self._engine.runtime.device}) fails on the bundle's own "
                f"golden samples since a batch failed ({fault_of(0, 'forward', error).message}): restart the worker"
            ) from error

"""The model's inputs out of the columns of a table, by the functions that read HTTP's bodies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from polyhead.models.spec import ImageInput, TensorInput, TextInput
from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import PayloadTooLarge
from polyhead.serving.golden import Array
from polyhead.serving.protocol import arrow, arrowcolumns, images, rows
from polyhead.serving.protocol.lengths import require_lengths
from polyhead.serving.request import Query, Values
from polyhead.serving.scoring import cells
from polyhead.serving.scoring.chunks import Column
from polyhead.serving.scoring.ladder import bisect
from polyhead.serving.scoring.settings import ScoreSettings
from polyhead.serving.texts import Texts

__all__ = ["Decoded", "Inputs", "joined"]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Rows as the collator takes them, and those that are none.

    Attributes:
        rows: which are here, `int64`, ascending; numbers among the rows given.
        inputs: their values, by input; of a fixed shape one array, else one object a row.
        errors: of the others, why.
    """

    rows: Array
    inputs: Mapping[str, Values]
    errors: Mapping[int, Exception]


class Inputs:
    """Decodes rows of one model.

    Args:
        bundle: the model's.
        heads: that are wanted; words are found only where one of them labels them.
        settings: the bounds of a row.
        threads: that decode images.
    """

    def __init__(self, bundle: Bundle, heads: tuple[str, ...], settings: ScoreSettings, threads: int) -> None:
        self.spec = bundle.spec
        self.heads = heads
        self.texts = Texts.of(bundle)
        self._settings = settings
        self._free = any(isinstance(value, TensorInput) and value.free for value in self.spec.inputs.values())
        pictures = any(isinstance(value, ImageInput) for value in self.spec.inputs.values())
        self._pool = ThreadPoolExecutor(threads, "decode") if pictures and threads > 1 else None

    def decode(self, columns: Mapping[str, Column]) -> Decoded:
        """All rows of some columns; a row that is no input of the model is refused alone."""
        count = len(next(iter(columns.values())))
        errors: dict[int, Exception] = {}
        found: dict[str, tuple[Array, Values]] = {}
        for name in self.spec.inputs:
            found[name], wrong = self._column(name, columns[name], count)
            errors = wrong | errors  # of a row that is wrong twice, the first input's
        decoded = Decoded(*_sound(found, errors, count), errors)
        if self.texts.tokenizers:
            decoded = self._checked(decoded, self._encoded)
        return self._checked(decoded, self._measured) if self._free else decoded

    def _column(self, name: str, column: Column, count: int) -> tuple[tuple[Array, Values], dict[int, Exception]]:
        """The rows of one input that are its values, these values, and what is wrong with the other rows."""
        spec = self.spec.inputs[name]
        if isinstance(column, pa.Array):
            column = cells.plain(column)
            if isinstance(spec, TextInput):
                texts, wrong = cells.texts(name, column)
                return (np.arange(count), texts), dict(wrong)
            if isinstance(spec, ImageInput) and arrowcolumns.holds(column.type, arrowcolumns.BYTES):
                return self._images(name, spec, column.to_pylist())
        elif isinstance(spec, ImageInput):
            return self._images(name, spec, column)

        def part(rows: Array) -> Values:
            return self._values(name, column, int(rows[0]), len(rows))

        pieces, errors = bisect(np.arange(count), part)
        return (_rows([rows for rows, _ in pieces]), _all([values for _, values in pieces])), errors

    def _values(self, name: str, column: Column, start: int, count: int) -> Values:
        """Some rows of one input that is no image in a file, nor a text of an Arrow column."""
        spec = self.spec.inputs[name]
        part = column.slice(start, count) if isinstance(column, pa.Array) else column[start : start + count]
        if isinstance(part, pa.Array):
            assert not isinstance(spec, TextInput)
            given = cells.numbers_in_texts(name, part)
            if given is None:
                return self._within(name, arrow.numbers(name, spec, [part], self._settings.max_row_bytes * count))
            part = [[value] if spec.shape == (1,) and not isinstance(value, list) else value for value in given]
        return self._within(name, rows.parse(name, spec, part, self._settings.max_image_pixels))

    def _within(self, name: str, values: Values) -> Values:
        """The values, none of them larger than a row may be."""
        limit = self._settings.max_row_bytes
        if isinstance(values, np.ndarray):
            size = values.nbytes // max(1, len(values))
        else:
            size = max(row.nbytes if isinstance(row, np.ndarray) else len(row) for row in values)  # type: ignore[arg-type]
        if size > limit:
            raise PayloadTooLarge(
                f"input {name!r}: {size} bytes for the model, allowed are {limit} a row: raise max_row_bytes"
            )
        return values

    def _images(
        self, name: str, spec: ImageInput, files: Sequence[Any]
    ) -> tuple[tuple[Array, Values], dict[int, Exception]]:
        """Each on its own: a second look at a neighbour would take as long as the first."""
        pixels = self._settings.max_image_pixels

        def one(value: Any) -> Array | Exception:
            try:
                if value is None:
                    return cells.null(name)
                if isinstance(value, bytes):
                    return images.decode(value, spec, images.PixelBudget(pixels), ())
                return rows.parse(name, spec, [value], pixels)[0]  # type: ignore[return-value]
            except Exception as error:  # noqa: BLE001 - it is this row's
                return error

        made = list(map(one, files) if self._pool is None else self._pool.map(one, files))
        errors = {row: found for row, found in enumerate(made) if isinstance(found, Exception)}
        good = [found for found in made if not isinstance(found, Exception)]
        values = np.stack(good) if good else np.empty((0, *spec.shape), spec.dtype)
        return (np.flatnonzero([not isinstance(found, Exception) for found in made]), values), errors

    def _checked(
        self, decoded: Decoded, change: Callable[[int, Mapping[str, Values]], Mapping[str, Values]]
    ) -> Decoded:
        """What becomes of the rows; those for which it raises are refused."""

        def part(places: Array) -> Mapping[str, Values]:
            return change(len(places), {name: _some(values, places) for name, values in decoded.inputs.items()})

        pieces, errors = bisect(np.arange(len(decoded.rows)), part)
        left = _rows([places for places, _ in pieces])
        inputs = {name: _all([values[name] for _, values in pieces]) for name in decoded.inputs}
        wrong = {int(decoded.rows[place]): error for place, error in errors.items()}
        return Decoded(decoded.rows[left], inputs, {**decoded.errors, **wrong})

    def _encoded(self, count: int, inputs: Mapping[str, Values]) -> Mapping[str, Values]:
        return self.texts.encode(Query(count, inputs, self.heads)).inputs

    def _measured(self, _count: int, inputs: Mapping[str, Values]) -> Mapping[str, Values]:
        require_lengths(self.spec, inputs)
        return inputs


def joined(parts: Sequence[Decoded]) -> Decoded:
    """Rows that were decoded one by one, as if they had been decoded together."""
    return Decoded(
        _rows([part.rows + place for place, part in enumerate(parts)]),
        {name: _all([part.inputs[name] for part in parts if len(part.rows)]) for name in parts[0].inputs},
        {place: error for place, part in enumerate(parts) for error in part.errors.values()},
    )


def _sound(
    found: Mapping[str, tuple[Array, Values]], errors: Mapping[int, Exception], count: int
) -> tuple[Array, dict[str, Values]]:
    """The rows that no input is missing of."""
    if not errors:
        return np.arange(count), {name: values for name, (_, values) in found.items()}
    good = np.ones(count, bool)
    good[list(errors)] = False
    return np.flatnonzero(good), {
        name: _some(values, np.flatnonzero(good[rows])) for name, (rows, values) in found.items()
    }


def _rows(parts: Sequence[Array]) -> Array:
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _some(values: Values, places: Array) -> Values:
    """Some rows; all of them as they are."""
    if len(places) == len(values):
        return values
    if len(places) and int(places[-1]) - int(places[0]) + 1 == len(places):
        return values[int(places[0]) : int(places[-1]) + 1]
    return values[places] if isinstance(values, np.ndarray) else [values[place] for place in places.tolist()]


def _all(parts: Sequence[Values]) -> Values:
    """Parts of one input's values, one after the other."""
    if len(parts) == 1:
        return parts[0]
    if parts and isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)  # type: ignore[arg-type]
    return [value for part in parts for value in part]  # type: ignore[return-value]

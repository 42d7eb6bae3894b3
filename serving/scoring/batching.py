"""Windows of decoded rows, and the batches that they are run in: by the rows alone, whatever the machine does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import pyarrow as pa

from polyhead.models.arrays import ArraySpec, array_specs
from polyhead.models.spec import SegmentationHead, TensorInput
from polyhead.serving.collate import rounded, stacked
from polyhead.serving.engine import Engine
from polyhead.serving.golden import Array
from polyhead.serving.masksize import measured
from polyhead.serving.protocol.rows import row_bytes
from polyhead.serving.request import Values
from polyhead.serving.scoring.faults import Fault
from polyhead.serving.scoring.settings import ScoreSettings

__all__ = ["BATCH_BYTES", "CHUNK_BYTES", "Batching", "Window", "chunk_rows"]

# Rows and bytes of a window at most, one chunk aside. Within it texts are sorted: the more, the less padding.
WINDOW_ROWS, WINDOW_BYTES = 16_384, 64 * 1024 * 1024
CHUNK_ROWS, CHUNK_BYTES = 4096, 32 * 1024 * 1024  # of a chunk at most
NEAR_BYTES = 4 * 1024 * 1024  # of a chunk of small batches: what was just read is still in a cache when it is run
BATCH_BYTES = 8 * 1024 * 1024  # of the inputs of one forward pass, padding counted
# Tokens of one forward pass where nobody asked for a number. What a pass works on should stay in a core's cache: on a
# CPU, MiniLM takes 249 us a token in batches of 64 rows of 16, 324 in batches of 1024. A GPU wants many.
CPU_TOKENS, GPU_TOKENS = 1024, 16_384
DENSE_BYTES = 128 * 1024 * 1024  # of the outputs of one forward pass that have a value per pixel
ITEM = 8  # bytes of a token's id


@dataclass(frozen=True, slots=True)
class Window:
    """Consecutive rows of a unit, decoded.

    Attributes:
        total: rows of the unit that it stands for.
        rows: of each row that is here, its number in the unit, `int64`, ascending.
        inputs: their values.
        passed: their columns that go to the output as they are.
        faults: rows that are not here.
        filtered: rows that the filter left out.
    """

    total: int
    rows: Array
    inputs: Mapping[str, Values]
    passed: pa.Table
    faults: tuple[Fault, ...] = ()
    filtered: int = 0


def chunk_rows(engine: Engine, settings: ScoreSettings) -> int:
    """Rows of a chunk: of one batch, or of several that are small."""
    size = max(1, sum(row_bytes(value) for value in engine.bundle.spec.inputs.values()))
    batch = max(1, min(settings.batch_rows, BATCH_BYTES // size))
    return batch * max(1, min(CHUNK_ROWS, NEAR_BYTES // size) // batch)


class Batching:
    """Cuts windows into batches.

    Args:
        engine: its model tells which rows may stand in one batch, its heads how large the outputs become.
        heads: that are wanted.
        settings: the bounds of a batch, and whether texts are sorted.
    """

    def __init__(self, engine: Engine, heads: Sequence[str], settings: ScoreSettings) -> None:
        spec = engine.bundle.spec
        self._settings = settings
        self._tokens = settings.batch_tokens or (CPU_TOKENS if engine.runtime.device == "cpu" else GPU_TOKENS)
        self._arrays = array_specs(spec)
        self._ids = {array.input: name for name, array in self._arrays.items() if array.role == "ids"}
        self._free = [n for n, array in self._arrays.items() if array.role == "value" and array.free]
        self._grouped = [name for name in self._free if self._arrays[name].pad is None]
        self.fixed = not self._ids and not self._free
        self._places = {
            dimension: (name, axis)
            for name, value in spec.inputs.items()
            if isinstance(value, TensorInput)
            for axis, dimension in enumerate(value.shape)
            if isinstance(dimension, str)
        }
        masks = [name for name in heads if isinstance(spec.heads[name], SegmentationHead)]
        self._masks = measured(engine, masks) if masks else {}

    def windows(self, parts: Iterable[Window]) -> Iterator[Window]:
        """Decoded chunks, each a window of its own where nothing is sorted or padded, else put together.

        A window ends with the chunk in which it becomes large enough.
        """
        if self.fixed:
            yield from parts
            return
        held: list[Window] = []
        rows = size = 0
        for part in parts:
            held.append(part)
            rows, size = rows + part.total, size + self._size(part)
            if rows >= WINDOW_ROWS or size >= WINDOW_BYTES:
                yield _together(held)
                held, rows, size = [], 0, 0
        if held:
            yield _together(held)

    def batches(self, window: Window) -> list[Array]:
        """The places of the rows of each batch in the window."""
        count = len(window.rows)
        if not count:
            return []
        if self.fixed:
            most = self._most_rows(sum(array.nbytes for array in _arrays(window)) // count, {})
            return [np.arange(start, min(start + most, count)) for start in range(0, count, most)]
        tokens = np.zeros(count, np.int64)
        for name in self._ids:
            tokens = np.maximum(tokens, [len(encoding.ids) for encoding in window.inputs[name]])  # type: ignore[union-attr]
        sizes = np.zeros(count, np.int64)
        for name in self._free:
            sizes += [row.nbytes for row in window.inputs[name]]  # type: ignore[union-attr]
        order = np.lexsort((sizes, tokens)) if self._settings.sort else np.arange(count)
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        if not self._grouped:
            groups[()] = order.tolist()
        for place in order.tolist() if self._grouped else ():
            key = tuple(window.inputs[name][place].shape for name in self._grouped)
            groups.setdefault(key, []).append(place)
        return [np.asarray(batch) for members in groups.values() for batch in self._cut(window, members, tokens)]

    def stack(self, window: Window, places: Array) -> dict[str, Array]:
        """The arrays of one batch, as the graph takes them."""
        if self.fixed:
            part = slice(int(places[0]), int(places[-1]) + 1)
            return {name: np.ascontiguousarray(window.inputs[name][part]) for name in self._arrays}
        made: dict[str, Array] = {}
        for name, array in self._arrays.items():
            values = window.inputs[array.input]
            if array.role == "value":
                fixed = isinstance(values, np.ndarray)
                made[name] = values[places] if fixed else stacked(array, [values[i] for i in places.tolist()])  # type: ignore
            elif name not in made:
                rows = [values[place] for place in places.tolist()]
                made |= _padded(array, [encoding.ids for encoding in rows], self._pair(array.input))
        return made

    def _pair(self, name: str) -> tuple[str, str]:
        """The arrays of a text: its ids and its mask."""
        mask = next(n for n, array in self._arrays.items() if array.input == name and array.role == "mask")
        return self._ids[name], mask

    def _size(self, window: Window) -> int:
        """Bytes of the inputs, about."""
        size = 0
        for values in window.inputs.values():
            if isinstance(values, np.ndarray):
                size += values.nbytes
            else:
                size += sum(v.nbytes if isinstance(v, np.ndarray) else v.ids.nbytes + len(v.text) for v in values)  # type: ignore
        return size

    def _most_rows(self, row: int, lengths: Mapping[str, int]) -> int:
        """Rows of so many bytes, and of masks of this size, in one batch."""
        dense = sum(mask.bytes(lengths) for mask in self._masks.values())
        bounds = [self._settings.batch_rows, BATCH_BYTES // max(1, row), DENSE_BYTES // max(1, dense)]
        return max(1, min(bounds))

    def _cut(self, window: Window, members: list[int], tokens: Array) -> Iterator[list[int]]:
        """Rows that may stand in one batch, in their order, as many together as fit."""
        first = members[0]
        lengths = {d: window.inputs[name][first].shape[axis] for d, (name, axis) in self._places.items()}  # type: ignore
        constant = sum(a.nbytes // len(a) for a in _arrays(window))
        most = self._most_rows(constant, lengths)
        free = [window.inputs[name] for name in self._free]
        part: list[int] = []
        longest = 0
        widest: list[tuple[int, ...]] = [(0,)] * len(free)
        for place in members:
            length = rounded(int(tokens[place])) if self._ids else 0
            shapes = [rows[place].shape for rows in free]  # type: ignore[union-attr]
            longer = max(longest, length)
            wider = [_widest(old, new) for old, new in zip(widest, shapes, strict=True)]
            size = constant + sum(prod(s) * r[place].itemsize for s, r in zip(wider, free, strict=True))  # type: ignore
            count = len(part) + 1
            full = count > most or count * longer > self._tokens or count * size > BATCH_BYTES
            if part and full:
                yield part
                part, longer, wider = [], length, shapes
            part.append(place)
            longest, widest = longer, wider
        yield part


def _arrays(window: Window) -> list[Array]:
    """The inputs that are arrays of all rows."""
    return [values for values in window.inputs.values() if isinstance(values, np.ndarray)]


def _widest(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return other if len(one) != len(other) else tuple(map(max, one, other))


def _padded(spec: ArraySpec, rows: Sequence[Array], names: tuple[str, str]) -> dict[str, Array]:
    """Ids and mask of some texts, filled up to the longest."""
    lengths = np.array([len(row) for row in rows])
    width = rounded(int(lengths.max()))
    width = width if spec.longest is None else min(spec.longest, width)
    mask = np.arange(width) < lengths[:, None]
    ids = np.full(mask.shape, spec.pad or 0, np.int64)
    ids[mask] = np.concatenate(rows)
    return dict(zip(names, (ids, mask.astype(np.int64)), strict=True))


def _together(parts: Sequence[Window]) -> Window:
    if len(parts) == 1:
        return parts[0]
    inputs: dict[str, Values] = {}
    for name in parts[0].inputs:
        columns = [part.inputs[name] for part in parts if len(part.rows)] or [parts[0].inputs[name]]
        if isinstance(columns[0], np.ndarray):
            inputs[name] = np.concatenate(columns)  # type: ignore[arg-type]
        else:
            inputs[name] = [value for column in columns for value in column]  # type: ignore[assignment]
    return Window(
        sum(part.total for part in parts),
        np.concatenate([part.rows for part in parts]),
        inputs,
        pa.concat_tables([part.passed for part in parts]),
        tuple(fault for part in parts for fault in part.faults),
        sum(part.filtered for part in parts),
    )

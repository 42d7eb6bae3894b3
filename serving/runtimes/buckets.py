"""Which passes are recorded: rows filled up to a bucket, each shape that comes back kept, within bounds of memory."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Literal

import numpy as np
import torch

from polyhead.serving.golden import Array
from polyhead.serving.runtimes.recording import HostMemory, NotRecordable, RecordedPass, Recorder

__all__ = ["KEPT", "Buckets", "Mode", "Recordable", "bucket"]

logger = logging.getLogger(__name__)

LARGEST = 256  # rows of a recorded pass; a larger one keeps the device busy longer than its launches take
KEPT = 128  # recorded passes: 11 buckets up to 64 rows, times 8 lengths of texts of 64 tokens, and room beside them
SIGHTED = 1024  # shapes whose first sight is remembered
# Between a recorded pass and a plain one, of the largest value: other buckets take other kernels, whose halves round
# otherwise. What was recorded wrongly is not near at all.
NEAR = 0.05

Mode = Literal["cuda graphs", "eager"]
Key = tuple[object, ...]
Plain = Callable[[Sequence[Array], Sequence[str]], list[Array]]


def bucket(rows: int) -> int:
    """The rows of the pass that so many rows run in: a power of two up to 16, then a multiple of 8, of 16, of 32.

    Powers of two alone would nearly double the arithmetic of 33 images; each number of rows by itself would take a
    recording of its own.
    """
    whole = 1 << (rows - 1).bit_length()
    if whole <= 16:
        return whole
    step = max(8, whole // 8)
    return -(-rows // step) * step


class Buckets:
    """Passes of one graph: recorded where their shape comes back, plain otherwise.

    A shape is recorded when it is seen for the second time, so that shapes that never come back cost nothing but their
    own plain pass. A recorded pass is compared with a plain one before it answers anybody.

    Args:
        plain: runs any rows as they are; see `Runtime.run`.
        recorder: records passes of the same graph.
        positions: of the outputs that are recorded, by name; a pass that wants another one is run plainly.
        kept: recorded passes, at most; the one that was not used for longest goes.
        largest: rows of a recorded pass.

    Attributes:
        mode: `cuda graphs`, or `eager` where the graph's passes cannot be recorded.
        why: the reason, where it is `eager`.
        replays: passes answered by a recording since it was made.
    """

    def __init__(
        self, plain: Plain, recorder: Recorder, positions: Mapping[str, int], kept: int = KEPT, largest: int = LARGEST
    ) -> None:
        self._plain, self._recorder, self._positions = plain, recorder, positions
        self._kept, self._largest = kept, largest
        self._host = HostMemory(recorder.pinned)
        self._passes: OrderedDict[Key, RecordedPass] = OrderedDict()
        self._sighted: OrderedDict[Key, None] = OrderedDict()
        self.mode: Mode = "cuda graphs"
        self.why = ""
        self.replays = 0
        self._full = False

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """See `Recordable.empty`."""
        whole = torch.empty(prod(shape) * np.dtype(dtype).itemsize, dtype=torch.uint8, pin_memory=self._recorder.pinned)
        array: Array = whole.numpy().view(dtype).reshape(shape)
        return array

    @property
    def recorded(self) -> int:
        """Passes that are recorded now."""
        return len(self._passes)

    def bare(self, inputs: Sequence[Array]) -> Callable[[], None] | None:
        """The replay alone, waited for, of the recorded pass that such rows run in; None where there is none.

        It runs on what its inputs hold, and nothing is copied: what a pass is measured against.
        """
        found = self._passes.get(_key(bucket(len(inputs[0])), inputs))
        return None if found is None else found.bare

    def run(self, inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        """One forward pass; see `Runtime.run`. The arrays returned are the caller's own."""
        rows = len(inputs[0])
        recorded = self.mode != "eager" and 0 < rows <= self._largest
        if not recorded or any(name not in self._positions for name in outputs):
            return self._plain(inputs, outputs)
        size = bucket(rows)
        key = _key(size, inputs)
        found = self._passes.get(key)
        if found is not None:
            self._passes.move_to_end(key)
            self.replays += 1
            return found.run(inputs, [self._positions[name] for name in outputs])
        answers = self._plain(inputs, outputs)
        if key not in self._sighted:
            self._sighted[key] = None
            if len(self._sighted) > SIGHTED:
                self._sighted.popitem(last=False)
        # Rows whose answers overflow prove nothing, and nobody shall be able to stop recording by sending them.
        elif all(bool(np.isfinite(answer).all()) for answer in answers):
            self._record(key, size, inputs, outputs, answers)
        return answers

    def _record(
        self, key: Key, size: int, inputs: Sequence[Array], outputs: Sequence[str], answers: Sequence[Array]
    ) -> None:
        """Record the pass of a shape, and keep it if it answers as the plain one did."""
        needed = sum(array.nbytes // len(array) * size for array in inputs)
        if self._full or not self._recorder.room or needed > self._recorder.limit:
            return
        self._make_room(needed)
        try:
            made = RecordedPass(self._recorder, self._host, size, inputs)
            again = made.run(inputs, [self._positions[name] for name in outputs])
            for name, answer, expected in zip(outputs, again, answers, strict=True):
                if not _near(answer, expected):
                    raise NotRecordable(f"recorded, output {name!r} of {len(expected)} rows is another than it was")
        except torch.OutOfMemoryError as error:
            self._full = True
            logger.warning("no further pass is recorded, for the device has no memory left: %s", error)
            return
        except NotRecordable as error:
            self.mode, self.why = "eager", str(error)
            self._passes.clear()
            logger.warning("passes run eagerly, operation by operation, for they cannot be recorded: %s", error)
            return
        self._passes[key] = made

    def _make_room(self, needed: int) -> None:
        """Forget passes until there is room for another, the one that was not used for longest first."""
        taken = sum(entry.bytes for entry in self._passes.values())
        while self._passes and (len(self._passes) >= self._kept or taken + needed > self._recorder.limit):
            _, gone = self._passes.popitem(last=False)
            taken -= gone.bytes


class Recordable:
    """What a runtime whose passes may be recorded says of them.

    Attributes:
        buckets: None where they are not recorded.
        eager: why they are not; empty on the CPU, where nothing is.
    """

    buckets: Buckets | None = None
    eager: str = ""

    @property
    def mode(self) -> Mode:
        """How passes run."""
        return "eager" if self.buckets is None else self.buckets.mode

    @property
    def why(self) -> str:
        """On a GPU, why passes are not replayed from CUDA graphs; empty where they are."""
        return self.eager if self.buckets is None else self.buckets.why

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """An array to collate rows into; where passes are recorded, in memory that the device copies from as it is."""
        return np.empty(shape, dtype) if self.buckets is None else self.buckets.empty(shape, dtype)


def _key(size: int, inputs: Sequence[Array]) -> Key:
    return (size, *((array.shape[1:], array.dtype.str) for array in inputs))


def _near(answer: Array, expected: Array) -> bool:
    """Whether two passes said the same, as far as kernels of two sizes can."""
    if not expected.size:
        return True
    allowed = NEAR * float(np.abs(expected).max()) + 1e-3
    return bool(np.isfinite(answer).all()) and float(np.abs(answer - expected).max()) <= allowed

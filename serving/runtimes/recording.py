"""One recorded pass: rows into fixed memory, the replay, answers out of it.

What is recorded, and how it runs again, is the `Recorder`'s: a CUDA graph of PyTorch or of ONNX Runtime. Everything
around it is the same for both, and runs on any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from math import prod
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from polyhead.serving.golden import Array

__all__ = ["HostMemory", "NotRecordable", "RecordedPass", "Recorder", "Recording"]

LARGE = 1 << 16  # bytes of an array of which asking where it lies costs less than copying it


class NotRecordable(Exception):
    """A graph whose passes cannot be recorded, with the reason in one line."""


class Recording(Protocol):
    """A pass that was recorded over fixed inputs."""

    @property
    def outputs(self) -> Sequence[Tensor]:
        """By position, each `[bucket, …]` on the device, contiguous, and its own memory: each replay overwrites it."""
        ...

    def replay(self) -> None:
        """Start the pass again on what the fixed inputs hold now; it may still run when this returns."""
        ...


class Recorder(Protocol):
    """Records passes of one graph on one device, one stream of work after the other.

    Attributes:
        device: where the fixed inputs lie.
        pinned: host memory that is copied from and to is locked in place, so that copies need not wait.
        limit: bytes of device memory for fixed inputs; as much again is the recorder's.
        room: whether another pass may be recorded.
    """

    device: torch.device
    pinned: bool
    limit: int

    @property
    def room(self) -> bool:
        """See above."""
        ...

    def running(self) -> AbstractContextManager[object]:
        """In which copies and replays are in order with one another."""
        ...

    def record(self, inputs: Sequence[Tensor]) -> Recording:
        """Record one pass.

        Args:
            inputs: by the graph's position, each `[bucket, …]`, fixed, and filled with real rows.

        Raises:
            NotRecordable: this graph's passes cannot be recorded.
            torch.OutOfMemoryError: the device has no room for this one.
        """
        ...

    def wait(self) -> None:
        """Until all that was started has run."""
        ...

    def is_pinned(self, tensor: Tensor) -> bool:
        """Whether the device copies from a tensor of the host without stopping for it."""
        ...


class RecordedPass:
    """One recorded pass and its memory.

    Args:
        recorder: of the graph.
        host: memory that all passes share.
        size: rows of the pass.
        inputs: to record it over; not more rows than that.

    Raises:
        NotRecordable: the graph's passes cannot be recorded.
        torch.OutOfMemoryError: the device has no room.
    """

    def __init__(self, recorder: Recorder, host: HostMemory, size: int, inputs: Sequence[Array]) -> None:
        self._recorder, self._host, self._size = recorder, host, size
        self._staged = [
            host.take(("in", place), (size, *array.shape[1:]), torch.from_numpy(array[:0].copy()).dtype)
            for place, array in enumerate(inputs)
        ]
        self._views = [staged.numpy() for staged in self._staged]
        with torch.inference_mode(), recorder.running():
            self._fixed = [torch.empty(s.shape, dtype=s.dtype, device=recorder.device) for s in self._staged]
            self._fill(inputs)
            self._recording = recorder.record(self._fixed)
            for output in self._recording.outputs:
                output.zero_()  # what warming up left there must not pass for a replay's answer
        self.bytes = sum(fixed.nbytes for fixed in self._fixed)

    def run(self, inputs: Sequence[Array], positions: Sequence[int]) -> list[Array]:
        """Fill, replay, copy the outputs at some positions, and wait, once."""
        rows = len(inputs[0])
        with torch.inference_mode(), self._recorder.running():
            self._fill(inputs)
            self._recording.replay()
            landed = []
            for position in positions:
                output = self._recording.outputs[position]
                landing = self._host.take(("out", position), tuple(output.shape), output.dtype)[:rows]
                landing.copy_(output[:rows], non_blocking=True)
                landed.append(landing)
            self._recorder.wait()
            # Off the shared memory, which the next pass overwrites while these answers are still being written out.
            return [landing.numpy().copy() for landing in landed]

    def bare(self) -> None:
        """Replay, and wait."""
        with torch.inference_mode(), self._recorder.running():
            self._recording.replay()
            self._recorder.wait()

    def _fill(self, inputs: Sequence[Array]) -> None:
        """The rows, and below them the first row again: no number is in a pass that a request did not bring.

        So the largest and the smallest value of a batch, by which a quantised graph scales it, stay what they are.
        """
        rows = len(inputs[0])
        for array, view, staged, fixed in zip(inputs, self._views, self._staged, self._fixed, strict=True):
            if array.nbytes > LARGE and array.flags.writeable and self._recorder.is_pinned(torch.from_numpy(array)):
                fixed[:rows].copy_(torch.from_numpy(array), non_blocking=True)  # the caller keeps it: it waits for us
            else:
                np.copyto(view[:rows], array)
                fixed[:rows].copy_(staged[:rows], non_blocking=True)
            if rows < self._size:
                fixed[rows:].copy_(fixed[:1].expand_as(fixed[rows:]))


class HostMemory:
    """What is copied from and to, shared by all passes: one runs at a time, and waits until its copies are done."""

    def __init__(self, pinned: bool) -> None:
        self._pinned = pinned
        self._blocks: dict[tuple[str, int], Tensor] = {}

    def take(self, name: tuple[str, int], shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory under a name, that every tensor of this name shares; contents are whatever was there."""
        size = prod(shape) * dtype.itemsize
        block = self._blocks.get(name)
        if block is None or block.numel() < size:  # doubled, so that passes of rising size do not leave many behind
            room = 1 << max(0, size - 1).bit_length()
            block = self._blocks[name] = torch.empty(room, dtype=torch.uint8, pin_memory=self._pinned)
        return block[:size].view(dtype).view(shape)

"""Passes of PyTorch recorded as CUDA graphs: a replay launches all kernels of a pass at once.

Graphs share one pool of memory: one replays at a time, and its outputs are copied away before the next one does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from polyhead.serving.runtimes.recording import NotRecordable, Recording

__all__ = ["CudaGraphs", "CudaStream", "first_line"]

SHARE = 0.1  # of the device memory that is free when a model is loaded
WARM_UPS = 3  # passes before the recorded one: libraries make their plans, TorchScript its kernels


class CudaStream:
    """The one stream that all of a runtime's work runs on, in its order.

    Args:
        device: `cuda:N`.

    Attributes:
        limit: see `Recorder`.
    """

    pinned = True

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        self.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        free, _ = torch.cuda.mem_get_info(self.device)
        self.limit = int(SHARE * free)

    def running(self) -> AbstractContextManager[object]:
        """See `Recorder.running`."""
        return torch.cuda.stream(self.stream)

    def wait(self) -> None:
        """See `Recorder.wait`."""
        self.stream.synchronize()

    def is_pinned(self, tensor: Tensor) -> bool:
        """See `Recorder.is_pinned`."""
        return tensor.is_pinned()


class CudaGraphs(CudaStream):
    """Records passes of a function of tensors; see `Recorder`.

    Args:
        function: takes the graph's inputs by position and returns its outputs; its weights are on the device.
        device: `cuda:N`.
    """

    def __init__(self, function: Callable[..., Sequence[Tensor]], device: str) -> None:
        super().__init__(device)
        self._function = function
        self._pool = torch.cuda.graph_pool_handle()
        self._taken = 0
        torch.cuda.synchronize(self.device)  # the weights were copied on another stream than the passes run on

    @property
    def room(self) -> bool:
        """Whether the graphs' shared memory is below its limit. What one frees, another uses: it never shrinks."""
        return self._taken < self.limit

    def record(self, inputs: Sequence[Tensor]) -> Recording:
        """See `Recorder.record`."""
        graph = torch.cuda.CUDAGraph()
        try:
            for _ in range(WARM_UPS):
                self._function(*inputs)
            self.wait()
            torch.cuda.empty_cache()
            before = torch.cuda.memory_reserved(self.device)
            # Other threads, which copy or free at the same time, are not part of the pass and must not end it.
            with torch.cuda.graph(graph, pool=self._pool, stream=self.stream, capture_error_mode="thread_local"):
                outputs = tuple(
                    # Copies of its own: an output may be a view of an input, or of a weight.
                    output.clone(memory_format=torch.contiguous_format)
                    for output in self._function(*inputs)
                )
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - CUDA, TorchScript and operators each raise another class
            raise NotRecordable(first_line(error)) from None
        self._taken += max(0, torch.cuda.memory_reserved(self.device) - before)
        return _Graph(graph, outputs)


class _Graph:
    """A captured graph with what it writes."""

    def __init__(self, graph: torch.cuda.CUDAGraph, outputs: Sequence[Tensor]) -> None:
        self._graph = graph
        self.outputs = outputs

    def replay(self) -> None:
        """See `Recording.replay`."""
        self._graph.replay()


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

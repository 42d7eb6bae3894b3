"""What all runtimes of PyTorch share: arrays to tensors on the device, and the outputs that are wanted back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from polyhead.serving.golden import Array
from polyhead.serving.manifest import Graph
from polyhead.serving.runtimes.base import fetched
from polyhead.serving.runtimes.buckets import Buckets, Recordable

__all__ = ["TensorRuntime", "as_tensor", "exact"]


class TensorRuntime(Recordable):
    """A graph as a function of tensors.

    Args:
        name: of the runtime.
        function: takes the graph's inputs by position and returns its outputs.
        graph: its entry in the manifest.
        device: as `base.resolve_device` returned it.
        eager: why its passes on a GPU are not recorded; empty where they are.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Sequence[Tensor]],
        graph: Graph,
        device: str,
        eager: str = "",
    ) -> None:
        self.name = name
        self.device = device
        self._function = function
        self._positions = {name: index for index, name in enumerate(graph.outputs)}
        self._device = torch.device(device)
        self.eager = "" if device == "cpu" else eager
        if device != "cpu" and not eager:
            self.buckets = self._recorded(graph)

    def _recorded(self, graph: Graph) -> Buckets:
        from polyhead.serving.runtimes.cudagraphs import CudaGraphs

        names = fetched(graph)
        places = [self._positions[name] for name in names]

        def some(*tensors: Tensor) -> list[Tensor]:
            results = self._function(*tensors)
            return [results[place] for place in places]

        recorder = CudaGraphs(some, self.device)
        return Buckets(self._plain, recorder, {name: index for index, name in enumerate(names)})

    def run(self, inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        """One forward pass; see `Runtime.run`."""
        return (self._plain if self.buckets is None else self.buckets.run)(inputs, outputs)

    def _plain(self, inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        """Operation by operation, the rows as they are."""
        with torch.inference_mode():
            tensors = [as_tensor(array) for array in inputs]
            if self._device.type != "cpu":
                tensors = [tensor.to(self._device) for tensor in tensors]
            results = self._function(*tensors)
            return [results[self._positions[name]].detach().cpu().numpy() for name in outputs]


def as_tensor(array: Array) -> Tensor:
    """A tensor over the array's memory; only a read-only array (a request's own bytes) is copied."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def exact(threads: int) -> None:
    """As in ONNX Runtime's session: this many threads, and no TF32.

    TF32 keeps 10 bits of the 23, and would make the runtimes answer differently.
    """
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

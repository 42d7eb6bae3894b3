"""Passes of ONNX Runtime recorded as CUDA graphs, through IO bindings over memory of PyTorch's.

ONNX Runtime captures by itself: a run with an unseen `gpu_graph_id` warms up and captures, later ones replay. Session,
copies and replays share one stream, so that one wait ends them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnxruntime
import torch
from torch import Tensor

from polyhead.serving.golden import Array
from polyhead.serving.manifest import Graph
from polyhead.serving.runtimes.base import fetched
from polyhead.serving.runtimes.buckets import KEPT, Buckets, Recordable
from polyhead.serving.runtimes.cudagraphs import CudaStream, first_line
from polyhead.serving.runtimes.recording import NotRecordable, Recording

__all__ = ["BoundRun", "CudaOnnxRuntime", "SessionGraphs", "provider_settings"]

SKIPPED = "-1"  # the graph id of a run that is neither captured nor replayed


def provider_settings(stream: CudaStream) -> dict[str, str]:
    """What a session's CUDA provider must be told, so that its passes can be recorded on a stream."""
    return {"enable_cuda_graph": "1", "user_compute_stream": str(stream.stream.cuda_stream)}


class CudaOnnxRuntime(Recordable):
    """An ONNX Runtime session on CUDA.

    Args:
        session: loaded.
        graph: its entry in the manifest.
        device: `cuda:N`.
        recorder: of the session's passes; None where it cannot record any.
        eager: why not.
    """

    name = "onnxruntime"

    def __init__(
        self, session: Any, graph: Graph, device: str, recorder: SessionGraphs | None, eager: str = ""
    ) -> None:
        self._session, self._inputs = session, graph.inputs
        self._options = None if recorder is None else run_options(SKIPPED)
        self.device, self.eager = device, eager
        if recorder is not None:
            recorder.attach(session)
            self.buckets = Buckets(self._plain, recorder, {name: i for i, name in enumerate(fetched(graph))})

    def run(self, inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        """One forward pass; see `Runtime.run`."""
        return (self._plain if self.buckets is None else self.buckets.run)(inputs, outputs)

    def _plain(self, inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        """Operation by operation, the rows as they are; what is asked for alone is copied."""
        feeds = dict(zip(self._inputs, inputs, strict=True))
        arrays: list[Array] = self._session.run(list(outputs), feeds, self._options)
        return arrays


class SessionGraphs(CudaStream):
    """Records passes of a session; see `Recorder`.

    Args:
        device: `cuda:N`; the session is given afterwards, for it needs the stream.
        inputs: of the graph, by position.
        outputs: that are recorded.
    """

    def __init__(self, device: str, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        super().__init__(device)
        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        self._session: Any = None
        self._count = 0

    def attach(self, session: Any) -> None:
        """The session, made with `provider_settings`."""
        self._session = session

    @property
    def room(self) -> bool:
        """Whether another id may be used: a session keeps every graph that it captured, used or not."""
        return self._count < KEPT

    def record(self, inputs: Sequence[Tensor]) -> Recording:
        """See `Recorder.record`."""
        self._count += 1
        try:
            given = dict(zip(self._inputs, inputs, strict=True))
            return BoundRun(self._session, given, self._outputs, str(self._count))
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - it raises a private class per status code
            raise NotRecordable(first_line(error)) from None


class BoundRun:
    """A run over fixed inputs and outputs, which CUDA captures when it is made; see `Recording`.

    Args:
        session: loaded.
        inputs: by name, on the session's device.
        names: of the outputs that are wanted.
        graph_id: that no other run has.

    Attributes:
        outputs: by position.
    """

    def __init__(self, session: Any, inputs: Mapping[str, Tensor], names: Sequence[str], graph_id: str) -> None:
        feeds = {name: tensor.cpu().numpy() for name, tensor in inputs.items()}
        found = session.run(list(names), feeds, run_options(SKIPPED))  # tells the outputs' shapes
        device = next(iter(inputs.values())).device
        self._session, self._inputs = session, inputs
        self.outputs = tuple(torch.from_numpy(array).to(device) for array in found)
        self._binding = session.io_binding()
        for name, tensor in inputs.items():
            self._binding.bind_input(name, *_place(tensor))
        for name, tensor in zip(names, self.outputs, strict=True):
            self._binding.bind_output(name, *_place(tensor))
        self._options = run_options(graph_id)
        # The replay is waited for together with the copy that follows it on the same stream.
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        self.replay()

    def replay(self) -> None:
        """See `Recording.replay`."""
        self._session.run_with_iobinding(self._binding, self._options)


def _place(tensor: Tensor) -> tuple[str, int, Any, tuple[int, ...], int]:
    """Where a tensor lies, as a binding wants to be told: device, its number, dtype, shape, address."""
    dtype = torch.empty(0, dtype=tensor.dtype).numpy().dtype
    return tensor.device.type, tensor.device.index or 0, dtype, tuple(tensor.shape), tensor.data_ptr()


def run_options(graph_id: str) -> Any:
    """Options of a run under a graph id."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", graph_id)
    return options

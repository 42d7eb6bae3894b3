"""The network that a bundle was made of, run by PyTorch as it stands: what every graph is measured by."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from polyhead.export.errors import ExportError
from polyhead.export.graphs import FusedGraph
from polyhead.export.source import Source, from_factory, from_run
from polyhead.export.timing.contenders import NetworkPlace
from polyhead.models.arrays import array_specs
from polyhead.serving.bundle import Bundle
from polyhead.serving.golden import Array
from polyhead.serving.runtimes.tensors import as_tensor, exact

__all__ = ["EagerNetwork"]


class EagerNetwork:
    """The eager network behind the bundle's inputs and heads.

    Args:
        place: where it is.
        bundle: that was made of it.
        device: as `base.resolve_device` returned it.
        threads: of one forward pass on the CPU.

    Raises:
        ExportError: it cannot be loaded, or is of another spec.
    """

    def __init__(self, place: NetworkPlace, bundle: Bundle, device: str, threads: int) -> None:
        exact(threads)
        source = _load(place)
        if set(array_specs(source.spec)) != set(array_specs(bundle.spec)) or set(source.spec.heads) != set(
            bundle.spec.heads
        ):
            raise ExportError(
                f"the network given has heads {', '.join(source.spec.heads)}, "
                f"bundle {bundle.title} has {', '.join(bundle.spec.heads)}: give the run that the bundle was made of"
            )
        self._graph = FusedGraph(source.network, source.spec).to(device)
        self._device = torch.device(device)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One forward pass: arrays `[batch, …]` by name in, every head's raw output `[batch, …]` out, on the CPU."""
        with torch.inference_mode():
            tensors = [as_tensor(inputs[name]).to(self._device) for name in self._graph.input_names]
            outputs = self._graph(*tensors)
            heads = self._graph.spec.head_names
            return {head: output.cpu().numpy() for head, output in zip(heads, outputs, strict=True)}


def _load(place: NetworkPlace) -> Source:
    if place.run is not None:
        return from_run(place.run)
    if place.factory is None or place.weights is None or place.spec is None:
        raise ExportError("the eager network needs a run's directory, or a factory with weights and spec")
    return from_factory(place.factory, place.weights, place.spec)

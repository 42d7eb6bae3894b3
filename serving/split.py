"""A trunk graph and one graph per head, run one behind the other: what each head would answer on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from polyhead.models.arrays import array_specs
from polyhead.serving.bundle import Bundle
from polyhead.serving.golden import Array
from polyhead.serving.manifest import Graph
from polyhead.serving.runtimes import base

__all__ = ["SplitRuntime"]


class SplitRuntime:
    """Trunk and heads as one runtime: arrays in, heads out; a head that is not asked for does not run."""

    def __init__(
        self,
        arrays: Sequence[str],
        trunk: tuple[Graph, base.Runtime],
        heads: Mapping[str, tuple[Graph, base.Runtime]],
    ) -> None:
        self._arrays = tuple(arrays)
        self._graph, self._trunk = trunk
        self._heads = dict(heads)
        self.name = self._trunk.name
        self.device = self._trunk.device

    @classmethod
    def load(cls, bundle: Bundle, device: str, threads: int) -> SplitRuntime:
        """Load the trunk and head graphs, which are ONNX graphs.

        Raises:
            KeyError: the bundle has none.
        """
        graphs = [graph for graph in bundle.manifest.graphs if graph.part != "fused"]
        content = {name: bundle.read(name) for name in {file for graph in graphs for file in graph.files}}  # each once
        loaded = {
            g.id: (g, base.load("onnxruntime", g, {name: content[name] for name in g.files}, device, threads))
            for g in graphs
        }
        heads = {str(g.head): loaded[g.id] for g in graphs if g.part == "head"}
        return cls(tuple(array_specs(bundle.spec)), loaded["trunk-onnx"], heads)

    def features(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What the heads take: the trunk's outputs by name, and the arrays themselves."""
        found = self._trunk.run([inputs[name] for name in self._graph.inputs], self._graph.outputs)
        return {**inputs, **dict(zip(self._graph.outputs, found, strict=True))}

    def head(self, name: str, features: Mapping[str, Array]) -> Array:
        """One head's output on features."""
        graph, runtime = self._heads[name]
        (output,) = runtime.run([features[source] for source in graph.inputs], graph.outputs)
        return output

    def run(self, inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        """The trunk once, and each head that is asked for; see `Runtime.run`."""
        features = self.features(dict(zip(self._arrays, inputs, strict=True)))
        return [self.head(name, features) for name in outputs]

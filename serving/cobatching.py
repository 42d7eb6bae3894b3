"""Requests that want different heads, in one batch: the trunk once, a dear head on the rows that asked for it.

Of the verified graphs of trunk and heads, one is composed of the trunk and the heads that everybody gets; it returns
the features that the others take. No weight of the trunk is loaded twice, and nothing of the fused graph is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import onnx

from polyhead.models.arrays import array_specs
from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import RuntimeUnavailable
from polyhead.serving.golden import Array
from polyhead.serving.manifest import Graph
from polyhead.serving.runtimes import base
from polyhead.serving.runtimes.compose import compose, feature_output, head_output

__all__ = ["Cobatching", "require_split"]


class Cobatching:
    """The trunk with its cheap heads, and each dear head by itself, loaded.

    Attributes:
        fused: the graph that it stands for.
        graph: the composed graph, as an entry of a manifest; its outputs have names of the graph.
        base: the composed graph, loaded.
        apart: heads that run on the rows that ask for them.
        head_rows: rows that each head was run on since it was loaded.
    """

    def __init__(
        self,
        fused: Graph,
        composed: tuple[Graph, base.Runtime],
        heads: Mapping[str, tuple[Graph, base.Runtime]],
    ) -> None:
        self.fused = fused
        self.graph, self.base = composed
        self.apart = tuple(heads)
        self.name, self.device = self.base.name, self.base.device
        self.head_rows: Counter[str] = Counter()
        self._heads = dict(heads)
        outputs = set(self.graph.outputs)
        # By head apart, the features that it takes, each with the name of the composed graph's output.
        self._features = {
            head: {name: feature_output(name) for name in graph.inputs if feature_output(name) in outputs}
            for head, (graph, _) in heads.items()
        }
        self._dense = {head: head_output(head) for head in fused.outputs if head_output(head) in outputs}
        self._near = (*(() if self.graph.packed is None else self.graph.packed.columns), *self._dense)

    @classmethod
    def load(cls, bundle: Bundle, fused: Graph, apart: Sequence[str], device: str, threads: int) -> Cobatching:
        """Compose and load.

        Args:
            bundle: with graphs of trunk and heads.
            fused: the fused graph that this stands for; it tells which heads have one output per row.
            apart: heads that run on the rows that ask for them.
            device: as `base.resolve_device` returned it.
            threads: of one forward pass.

        Raises:
            RuntimeUnavailable: the bundle has no graphs of trunk and heads, or ONNX Runtime refuses them.
        """
        require_split(bundle, apart)
        trunk = bundle.manifest.graph("trunk-onnx")
        entries = {head: bundle.manifest.graph(f"head-onnx.{head}") for head in bundle.spec.head_names}
        content = {name: bundle.read(name) for name in {n for g in (trunk, *entries.values()) for n in g.files}}
        made = compose(
            tuple(array_specs(bundle.spec)),
            onnx.load_from_string(content[trunk.file]),
            {head: onnx.load_from_string(content[g.file]) for head, g in entries.items() if head not in apart},
            {} if fused.packed is None else fused.packed.shapes,
            {name for head in apart for name in entries[head].inputs},
        )
        changes = {"id": "composed-onnx", "inputs": made.inputs, "outputs": made.outputs, "packed": made.packed}
        weights = next((g.weights for g in (trunk, *entries.values()) if g.weights is not None), None)
        graph = trunk.model_copy(update={**changes, "weights": weights})
        loaded = base.load("onnxruntime", graph, {**content, trunk.file: made.model}, device, threads)
        heads = {h: (entries[h], base.load("onnxruntime", entries[h], content, device, threads)) for h in apart}
        return cls(fused, (graph, loaded), heads)

    def run(self, inputs: Mapping[str, Array], wanted: Mapping[str, Array | None]) -> dict[str, Array]:
        """One pass of the trunk, and of each head apart one on the rows that want it.

        Args:
            inputs: every array of the model by name, `[batch, …]`, contiguous, of its dtype.
            wanted: by head, the rows that want it, `[rows]` `int64`, ascending; None for all of them. A head that is
                not named, or that no row wants, is not run if it is apart.

        Returns:
            Raw outputs by head. Of a head apart `[wanted rows, …]`, in the order of its rows; of the others
            `[batch, …]`, per-row heads in any case, and of those with one output per token or pixel the wanted ones.
        """
        asked: dict[str, Array | None] = {}
        taken: dict[str, str] = {}
        for head in self.apart:
            if head in wanted and _any(wanted[head]):
                asked[head] = wanted[head]
                taken |= self._features[head]
        dense = {head: output for head, output in self._dense.items() if head in wanted}
        packed = self.graph.packed
        first = () if packed is None else (packed.output,)
        found = self._found(inputs, (*first, *dense.values(), *taken.values()))
        outputs = {} if packed is None else packed.views(found[packed.output])
        for head, output in dense.items():
            outputs[head] = found[output]
        if asked:
            features = {**inputs, **{name: found[output] for name, output in taken.items()}}
            for head, rows in asked.items():
                outputs[head] = self.head(head, features, rows)
        return outputs

    def features(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What the heads apart take of a batch: what the trunk says of it, and the arrays themselves, by name."""
        taken = {name: output for features in self._features.values() for name, output in features.items()}
        found = self._found(inputs, tuple(taken.values()))
        return {**inputs, **{name: found[output] for name, output in taken.items()}}

    def _found(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        """Outputs of one pass of the composed graph; none where none is wanted."""
        if not outputs:
            return {}
        given = [inputs[name] for name in self.graph.inputs]
        for head in self._near:
            self.head_rows[head] += len(given[0])
        return dict(zip(outputs, self.base.run(given, outputs), strict=True))

    def head(self, name: str, features: Mapping[str, Array], rows: Array | None = None) -> Array:
        """One head apart on some rows.

        Args:
            name: the head's.
            features: what the trunk said of the batch, and the arrays of the model, by name, `[batch, …]`.
            rows: `[rows]` `int64`; None for all.

        Returns:
            Its raw output `[rows, …]`.
        """
        graph, runtime = self._heads[name]
        given = [features[source] for source in graph.inputs]
        if rows is not None and len(rows) != len(given[0]):
            given = [_rows(array, rows) for array in given]
        self.head_rows[name] += len(given[0])
        (output,) = runtime.run(given, graph.outputs)
        return output


def require_split(bundle: Bundle, heads: Sequence[str] = ()) -> None:
    """Refuse a bundle without graphs of trunk and heads, and heads that it has not.

    Raises:
        RuntimeUnavailable: naming the head, or why the bundle has no such graphs.
    """
    if bundle.manifest.unsplit is not None:
        raise RuntimeUnavailable(
            f"bundle {bundle.title} has no graphs of trunk and heads ({bundle.manifest.unsplit}), "
            "so that no head can run apart: serve it with apart=none or auto"
        )
    for head in heads:
        if head not in bundle.spec.heads:
            raise RuntimeUnavailable(
                f"head {head!r} is not in model {bundle.title} (heads: {', '.join(bundle.spec.heads)}): check apart"
            )


def _any(rows: Array | None) -> bool:
    return rows is None or len(rows) > 0


def _rows(array: Array, rows: Array) -> Array:
    """Some rows, contiguous: rows side by side as they lie, others copied. Gather in the graph takes as long."""
    first, last = int(rows[0]), int(rows[-1])
    return array[first : last + 1] if last - first + 1 == len(rows) else array.take(rows, axis=0)

"""The engine: one batch in, every head's output out, in one forward pass and one copy off the device."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from polyhead.models.arrays import array_specs, text_arrays
from polyhead.models.tokenizer import Encoding
from polyhead.serving import plan as plans
from polyhead.serving.bundle import Bundle
from polyhead.serving.choosing import Chosen, choose
from polyhead.serving.cobatching import Cobatching
from polyhead.serving.errors import GoldenMismatch, InvalidInstance, RuntimeUnavailable
from polyhead.serving.golden import Array, Golden, Tolerance, difference, fault, one_by_one
from polyhead.serving.manifest import Graph
from polyhead.serving.plan import NONE, Plan
from polyhead.serving.request import Query
from polyhead.serving.runtimes import base
from polyhead.serving.split import SplitRuntime
from polyhead.serving.texts import Texts

__all__ = ["Engine"]


class Engine:
    """A bundle's fused graph, loaded.

    Attributes:
        plan: which heads run on the rows that ask for them alone, and why those; `apart` names them.
        forwards: forward passes run since it was loaded.
        rows: rows answered since it was loaded.
    """

    def __init__(
        self, bundle: Bundle, graph: Graph, runtime: base.Runtime | Cobatching, plan: Plan | None = None
    ) -> None:
        self.bundle = bundle
        self.graph = graph
        self.runtime = runtime
        self.plan = plan or Plan((), "the fused graph was asked for")
        self.apart = self.plan.apart
        packed = () if graph.packed is None else graph.packed.columns
        # Copied where they are wanted: heads of one output per token or pixel, and all heads of split graphs.
        self.single = tuple(name for name in bundle.spec.heads if name not in packed)
        self.forwards = 0
        self.rows = 0

    @classmethod
    def load(
        cls, bundle: Bundle, runtime: str = "auto", device: str = "auto", threads: int = 1, precision: str = "auto"
    ) -> Engine:
        """Load a bundle's graph into a runtime; see `polyhead.serving.choosing`.

        Raises:
            RuntimeUnavailable: the bundle has no graph for this runtime, or it is not installed.
            DeviceUnavailable: the device was asked for by name and is not there.
        """
        device = base.resolve_device(device)
        return cls.of(bundle, choose(bundle, runtime, device, precision), device, threads)

    @classmethod
    def of(cls, bundle: Bundle, chosen: Chosen, device: str, threads: int = 1, apart: str = NONE) -> Engine:
        """Load one graph into one runtime, both chosen already; `device` as `base.resolve_device` returned it.

        Args:
            apart: heads that run on the rows that ask for them alone: `none`, `auto`, or names; see `serving.plan`.
        """
        plan, runtime = plans.load(bundle, chosen, device, threads, apart)
        return cls(bundle, chosen.graph, runtime, plan)

    @classmethod
    def split(cls, bundle: Bundle, device: str, threads: int = 1) -> Engine:
        """Load the graphs of trunk and heads; `device` as `base.resolve_device` returned it.

        Raises:
            RuntimeUnavailable: the bundle has none.
        """
        if bundle.manifest.unsplit is not None:
            raise RuntimeUnavailable(
                f"bundle {bundle.title} has no graphs of trunk and heads: {bundle.manifest.unsplit}"
            )
        arrays, heads = tuple(array_specs(bundle.spec)), bundle.spec.head_names
        trunk = bundle.manifest.graph("trunk-onnx").model_copy(update={"inputs": arrays, "outputs": heads})
        return cls(bundle, trunk, SplitRuntime.load(bundle, device, threads))

    def run(
        self,
        inputs: Mapping[str, Array],
        heads: Collection[str] | None = None,
        rows: Mapping[str, Array] | None = None,
    ) -> dict[str, Array]:
        """One forward pass.

        Args:
            inputs: every array of the graph by name, `[batch, …]`, contiguous, of its dtype.
            heads: the heads wanted; all where None. Per-row heads that do not run apart come anyway.
            rows: of wanted heads that run apart, the rows that want them, `[rows]` `int64`, ascending; all rows want
                those that are not named.

        Returns:
            Raw outputs by head, `[batch, …]` `float32`: per-row heads as views of one packed array, and of the heads
            with one output per token or pixel those that are wanted. Of a head apart, its rows alone.
        """
        ordered = [inputs[name] for name in self.graph.inputs]
        self.forwards += 1
        self.rows += len(ordered[0])
        if isinstance(self.runtime, Cobatching):
            wanted = self.bundle.spec.heads if heads is None else heads
            return self.runtime.run(inputs, {head: (rows or {}).get(head) for head in wanted})
        packed = self.graph.packed
        single = [name for name in self.single if heads is None or name in heads]
        names = [*(() if packed is None else (packed.output,)), *single]
        outputs = dict(zip(names, self.runtime.run(ordered, names), strict=True))
        views = {} if packed is None else packed.views(outputs.pop(packed.output))
        return {**views, **outputs}

    def reset_counts(self) -> None:
        """Count from now on: what was run while loading is nobody's request."""
        self.forwards = self.rows = 0
        if isinstance(self.runtime, Cobatching):
            self.runtime.head_rows.clear()

    @property
    def head_rows(self) -> dict[str, int]:
        """Rows that each head was run on since it was loaded."""
        if isinstance(self.runtime, Cobatching):
            return dict(self.runtime.head_rows)
        return dict.fromkeys(self.bundle.spec.heads, self.rows)

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Run golden rows at these batch sizes three times, so that no request pays for a first time."""
        golden = self.bundle.golden()
        for size in batch_sizes:
            index = np.arange(size) % golden.rows
            for _ in range(3):
                self.run({name: np.ascontiguousarray(array[index]) for name, array in golden.inputs.items()})

    def replay_golden(self) -> dict[str, float]:
        """Answer the golden samples through this very runtime and device, all at once and one by one.

        Returns:
            The largest absolute difference by head.

        Raises:
            GoldenMismatch: naming graph, runtime, device, head and error.
        """
        golden = self.bundle.golden()
        self._require_tokens(golden)
        try:
            outputs = self.run(golden.inputs)
            alone = one_by_one(self.run, golden.inputs, array_specs(self.bundle.spec), outputs)
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]  # of TorchScript's, the last says what
            raise GoldenMismatch(
                f"bundle {self.bundle.title}: {self.graph.file} does not run on the golden samples "
                f"({self.runtime.name} on {self.runtime.device}): {lines[-1]}; export the bundle again"
            ) from error
        for candidate, how in ((outputs, "together"), (alone, "one by one")):
            self._require_golden(candidate, golden, how)
        return {head: difference(outputs[head], golden.outputs[head]) for head in outputs}

    def _require_tokens(self, golden: Golden) -> None:
        """The bundle's tokenizers, as installed here, must make of the golden texts the tokens they made at export."""
        texts = Texts.of(self.bundle)
        try:
            found = texts.encode(Query(golden.rows, golden.texts, ())).inputs
        except InvalidInstance as error:  # more tokens than there can have been at export
            _, row, name = error.loc
            raise self._other_tokens(name, row) from None
        for name in texts.tokenizers:
            ids, mask = (golden.inputs[array] for array in text_arrays(self.bundle.spec, name))
            encodings: Sequence[Encoding] = found[name]  # type: ignore[assignment]
            for row, encoding in enumerate(encodings):
                length = len(encoding.ids)
                if int(mask[row].sum()) != length or not np.array_equal(ids[row, :length], encoding.ids):
                    raise self._other_tokens(name, row)

    def _other_tokens(self, name: str | int, row: str | int) -> GoldenMismatch:
        return GoldenMismatch(
            f"bundle {self.bundle.title}: the tokenizer of {name!r} makes other tokens of golden text "
            f"{row} than at export: install the tokenizers version that the manifest names"
        )

    def _require_golden(self, outputs: Mapping[str, Array], golden: Golden, how: str) -> None:
        tolerance: Tolerance = self.graph.tolerance.on(self.runtime.device)
        for head, spec in self.bundle.spec.heads.items():
            # The share of decisions was counted on many rows at export; of these few, values alone prove something.
            agreement = 1.0 if self.graph.agreement == 1.0 else 0.0
            wrong = fault(spec, outputs[head], golden.outputs[head], tolerance, agreement)
            if wrong is not None:
                raise GoldenMismatch(
                    f"bundle {self.bundle.title}: head {head!r} of {self.graph.file} does not reproduce "
                    "the golden samples "
                    f"({how}, {self.runtime.name} on {self.runtime.device}): {wrong}; export the bundle again"
                )

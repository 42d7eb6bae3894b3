"""The content of a bundle's `manifest.json`: its graphs, what they take and return, and how far they were proven.

Pydantic only, no torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictInt, StrictStr

from polyhead.models.spec import ModelSpec, Strict
from polyhead.serving.golden import Array, Tolerance

__all__ = [
    "Device",
    "FileEntry",
    "Format",
    "Graph",
    "Manifest",
    "Packed",
    "Part",
    "Precision",
    "Proof",
    "RelativePath",
]

Format = Literal["onnx", "torchscript", "program"]  # program: torch.export's .pt2
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Device = Literal["cpu", "cuda"]

# A file inside the bundle: forward slashes, no "..", no leading slash, no hidden names.
RelativePath = Annotated[StrictStr, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*$")]
Digest = Annotated[StrictStr, Field(pattern=r"^[0-9a-f]{64}$")]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Count = Annotated[StrictInt, Field(ge=0)]


class FileEntry(Strict):
    """One file's hash and size in bytes."""

    sha256: Digest
    size: Count


class Packed(Strict):
    """One output that holds every per-row head side by side, so that one copy brings them all off the device.

    A head of one number per token or pixel is not in it: it is large, and copied only where it is wanted.

    `columns` maps a head to its columns `[start, stop)` of the output `[batch, total]`, `shapes` to one row's shape.
    """

    output: StrictStr
    columns: dict[str, tuple[StrictInt, StrictInt]]
    shapes: dict[str, tuple[StrictInt, ...]]

    def views(self, values: Array) -> dict[str, Array]:
        """Every per-row head as a view `[batch, …]` of the packed output `[batch, total]`."""
        return {
            head: values[:, start:stop].reshape(len(values), *self.shapes[head])
            for head, (start, stop) in self.columns.items()
        }


class Graph(Strict):
    """One computation in one format and precision.

    Attributes:
        id: its name in the bundle: `fused-onnx`, `fused-onnx-fp16`, `trunk-onnx`, `head-onnx.intent`.
        part: `fused` holds trunk and all heads. `trunk` returns what the heads share, and of a `head` graph these are
            the inputs.
        head: of a graph of part `head`, the head.
        weights: the file that holds an ONNX graph's large tensors, which other graphs share; None where it holds them
            itself.
        precision: of its arithmetic; what it takes and returns has the same types in each.
        kept: heads whose own layers stay in fp32.
        meant: devices that it was made for. A graph may have been proven on others.
        inputs, outputs: names by position. Of a fused graph's outputs: the heads sorted by name, then the packed output
            where there is one.
        tolerance: of values, on the CPU.
        agreement: the least share of clear decisions that must be eager's.
    """

    id: StrictStr
    part: Literal["fused", "trunk", "head"] = "fused"
    head: StrictStr | None = None
    file: RelativePath
    weights: RelativePath | None = None
    format: Format
    precision: Precision = "fp32"
    kept: tuple[StrictStr, ...] = ()
    meant: tuple[Device, ...] = ("cpu", "cuda")
    inputs: tuple[StrictStr, ...]
    outputs: tuple[StrictStr, ...]
    packed: Packed | None = None
    tolerance: Tolerance
    agreement: Share = 1.0

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that it needs."""
        return (self.file,) if self.weights is None else (self.file, self.weights)


class Proof(Strict):
    """What the gate saw of one graph, over all devices that it ran on; `parity.json` holds every figure.

    Attributes:
        largest: absolute difference to eager, over all heads and cases.
        agreement: the share of clear decisions that are eager's.
        devices: where it was proven.
    """

    largest: float
    agreement: Share
    devices: tuple[Device, ...]


class Part(Strict):
    """The trunk, or one head.

    Attributes:
        parameters: numbers that training set; those of a head are the ones no other head uses.
        flops: floating-point operations of one row of the golden samples' size, a multiplication and an addition
            counted as two; None where they could not be counted.
    """

    parameters: Count
    flops: Count | None


class Manifest(Strict):
    """The content of `manifest.json`.

    Attributes:
        parity: by graph. The head graphs are proven behind their trunk graph, and the trunk graph by them.
        parts: `trunk` and `heads/<head>`; empty where a network cannot be told apart.
        unsplit: why there are no trunk and head graphs, where there are none.
        metrics: on held-out rows, by head, where training is known.
    """

    format: Literal[2] = 2
    spec: ModelSpec
    graphs: tuple[Graph, ...] = Field(min_length=1)
    files: dict[RelativePath, FileEntry]
    parity: dict[str, Proof]
    parts: dict[str, Part] = Field(default_factory=dict)
    unsplit: StrictStr | None = None
    versions: dict[str, str]
    metrics: dict[str, dict[str, float]] = Field(default_factory=dict)

    def graph(self, name: str) -> Graph:
        """A graph by its id.

        Raises:
            KeyError: there is none.
        """
        return {graph.id: graph for graph in self.graphs}[name]

    @property
    def graph_ids(self) -> tuple[str, ...]:
        """Of all graphs, in their order."""
        return tuple(graph.id for graph in self.graphs)

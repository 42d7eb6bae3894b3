"""What is scored: a model, and a table of any length, seeded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.peers.workloads import minilm, mlp
from polyhead.export import assemble
from polyhead.export.source import Source
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.spec import ModelSpec
from polyhead.models.tokenizer import Tokenizer
from polyhead.models.trunks.text import pretrained
from polyhead.models.zoo import smarthome
from polyhead.models.zoo.data.smarthome import rows as utterances

__all__ = ["WIDTH", "WORKLOADS", "Workload", "copy_as_arrow", "make_bundle", "write_table"]

WIDTH = 768  # numbers of a row of `mlp`
SAMPLES = 16  # rows for the export's own gate
PIECE = 25_000  # rows that are made at once
GROUP = 50_000  # rows of a row group: about 150 MB of `mlp`, as Spark writes them
DISTINCT = 20_000  # utterances, which a longer table says again in another order: grammars end


@dataclass(frozen=True)
class Workload:
    """A model and its table.

    Attributes:
        name: on the command line and in the report.
        about: one line.
        build: the spec and the network, seeded.
        column: of the table, and the model's input.
        values: `count` values of the column, seeded by `start`.
        rows: of the table, and `quick` those of a short run.
        unit_rows: of a work unit of Polyhead's; several for each process, so that none waits long for the last.
        batch_rows, batch_tokens: of a forward pass, of every contender where it can be said.
        text: the column holds texts.
        arrow: the table lies there as an Arrow file too.
    """

    name: str
    about: str
    build: Callable[[], tuple[ModelSpec, MultiTaskNetwork]]
    column: str
    values: Callable[[int, int], pa.Array]
    rows: int
    quick: int
    unit_rows: int
    text: bool = False
    arrow: bool = False
    batch_rows: int = 1024
    batch_tokens: int = 1024


def numbers(start: int, count: int) -> pa.Array:
    """Rows of floats, a list each, as other programs write embeddings and features."""
    drawn = np.random.default_rng([1, start]).standard_normal(count * WIDTH, dtype=np.float32)
    return pa.ListArray.from_arrays(np.arange(0, (count + 1) * WIDTH, WIDTH, dtype=np.int32), pa.array(drawn))


_said: list[Any] = []


def said(start: int, count: int) -> pa.Array:
    """Utterances to a smart home."""
    if not _said:
        _said.append(np.asarray(utterances("train", 0, DISTINCT).text))
    return pa.array(np.random.default_rng([2, start]).choice(_said[0], count), pa.string())


def skewed(start: int, count: int) -> pa.Array:
    """Texts of skewed lengths: half have fewer than eight words, few have forty."""
    generator = np.random.default_rng([3, start])
    words = "turn on the light in my kitchen and tell me how warm it was there when we left".split()  # noqa: SIM905
    lengths = np.clip(np.exp(generator.normal(2.0, 0.8, count)).astype(int), 2, 40)
    return pa.array([" ".join(generator.choice(words, size=length)) for length in lengths], pa.string())


def home() -> tuple[ModelSpec, MultiTaskNetwork]:
    """The zoo's network of five heads, before it is fine-tuned: it takes as long."""
    torch.manual_seed(0)
    return smarthome.SPEC, smarthome.network().eval()


WORKLOADS: Mapping[str, Workload] = {
    one.name: one
    for one in (
        Workload(
            "mlp",
            "MLP 768-256-256, 3 heads, rows of 768 float32",
            mlp,
            "features",
            numbers,
            rows=1_000_000,
            quick=200_000,
            unit_rows=100_000,
            arrow=True,
        ),
        Workload(
            "smarthome",
            "MiniLM, 5 heads, utterances",
            home,
            "text",
            said,
            rows=100_000,
            quick=4_000,
            unit_rows=2_500,
            text=True,
        ),
        Workload(
            "skewed",
            "MiniLM, 3 heads, texts of skewed lengths",
            minilm,
            "text",
            skewed,
            rows=20_000,
            quick=4_000,
            unit_rows=2_500,
            text=True,
        ),
    )
}


def make_bundle(workload: Workload, folder: Path) -> Path:
    """Export the network; beside the bundle lies `task.json`, all that a contender without Polyhead knows."""
    torch.set_num_threads(1)  # rows run one by one, which threads only slow down
    spec, network = workload.build()
    tokenizers = {"text": Tokenizer.load(pretrained() / "tokenizer.json", spec.inputs["text"])} if workload.text else {}
    values = workload.values(0, SAMPLES).to_pylist()
    samples = {workload.column: values if workload.text else np.asarray(values, np.float32)}
    source = Source(network, spec, samples, tokenizers=tokenizers)
    bundle, _ = assemble.export(source, folder / "bundle", ["onnx"], say=lambda _: None)
    graph = bundle.manifest.graph("fused-onnx")
    task = {
        "column": workload.column,
        "text": workload.text,
        "graph": graph.file,
        "arrays": list(graph.inputs),
        "heads": {name: head.model_dump(mode="json") for name, head in spec.heads.items()},
        "batch_rows": workload.batch_rows,
        "batch_tokens": workload.batch_tokens,
        "max_length": getattr(spec.inputs[workload.column], "max_length", None),
        "tokenizer": getattr(bundle.spec.inputs[workload.column], "tokenizer", None),
    }
    (folder / "task.json").write_text(json.dumps(task, indent=2), encoding="utf-8")
    return bundle.folder


def write_table(workload: Workload, rows: int, path: Path) -> Path:
    """One Parquet file: `id`, which counts the rows, and the column. A longer table begins with the shorter one."""
    schema = pa.schema({"id": pa.int64(), workload.column: pa.string() if workload.text else pa.list_(pa.float32())})
    with pq.ParquetWriter(path, schema, use_dictionary=False) as writer:
        for batch in _batches(workload, rows, schema):
            writer.write_table(batch, row_group_size=GROUP)
    return path


def copy_as_arrow(path: Path) -> None:
    """The same rows as an Arrow file beside it."""
    parquet = pq.ParquetFile(path)
    with pa.ipc.new_file(path.with_suffix(".arrow"), parquet.schema_arrow) as writer:
        for batch in parquet.iter_batches(GROUP // 10):
            writer.write_batch(batch)


def _batches(workload: Workload, rows: int, schema: pa.Schema) -> Iterator[pa.Table]:
    """A row group's worth of rows at a time."""
    for group in range(0, rows, GROUP):
        end = min(rows, group + GROUP)
        pieces = [workload.values(start, min(PIECE, end - start)) for start in range(group, end, PIECE)]
        ids = pa.array(np.arange(group, end))
        yield pa.table([ids, pa.chunked_array(pieces, schema.field(1).type)], schema=schema)

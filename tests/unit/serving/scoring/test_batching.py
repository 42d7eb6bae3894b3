"""Which rows are run together: by their shapes and lengths alone, within bounds, each row once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from polyhead.export.assemble import export
from polyhead.export.source import Source, random_samples
from polyhead.models.spec import ModelSpec
from polyhead.models.tokenizer import Encoding
from polyhead.serving.engine import Engine
from polyhead.serving.golden import Array
from polyhead.serving.scoring import batching
from polyhead.serving.scoring.batching import Batching, Window, chunk_rows
from polyhead.serving.scoring.scorer import Scorer
from polyhead.serving.scoring.settings import ScoreSettings
from tests.unit.serving.scoring.tables import Memory, scored

FREE = {
    "name": "free",
    "version": "1.0",
    "inputs": {
        "exact": {"kind": "tensor", "shape": ["n", 2]},
        "filled": {"kind": "tensor", "shape": ["m", 2], "pad": 0},
    },
    "heads": {"mean": {"kind": "regression", "dim": 2}, "sum": {"kind": "regression", "dim": 2}},
}


class Free(nn.Module):
    """The mean of the one, which padding would change; the sum of the other, which it does not."""

    def forward(self, exact: Tensor, filled: Tensor) -> dict[str, Tensor]:
        return {"mean": exact.mean(1), "sum": filled.sum(1)}


@pytest.fixture(scope="module")
def free(tmp_path_factory) -> Engine:
    torch.manual_seed(3)
    spec = ModelSpec.parse(FREE)
    bundle, _ = export(Source(Free().eval(), spec, random_samples(spec)), tmp_path_factory.mktemp("free") / "free")
    return Engine.load(bundle, "onnxruntime", "cpu")


def window(texts: list[int]) -> Window:
    """Texts of so many tokens."""
    none = np.empty(0, np.int64)
    ids = [np.arange(1, count + 1, dtype=np.int64) for count in texts]
    inputs = {"text": [Encoding("", row, none, none.reshape(0, 2)) for row in ids]}
    return Window(len(texts), np.arange(len(texts)), inputs, pa.table({"id": list(range(len(texts)))}))


def settings_of(**changes: Any) -> ScoreSettings:
    return ScoreSettings(device="cpu", **changes)


@pytest.mark.parametrize("sort", [True, False])
@pytest.mark.parametrize(("rows", "tokens"), [(7, 10_000), (1000, 96), (4, 40), (1, 1)])
def test_every_row_is_in_one_batch_within_bounds(lexicon, sort, rows, tokens):
    lengths = np.random.default_rng(2).integers(1, 24, 100).tolist()
    cut = Batching(lexicon.engine(), ("words",), settings_of(sort=sort, batch_rows=rows, batch_tokens=tokens))
    batches = cut.batches(window(lengths))
    assert sorted(np.concatenate(batches).tolist()) == list(range(100))
    if not sort:
        assert np.concatenate(batches).tolist() == list(range(100))
    for batch in batches:
        padded = -(-max(lengths[place] for place in batch.tolist()) // 8) * 8
        assert len(batch) <= rows
        assert len(batch) * padded <= tokens or len(batch) == 1


def test_batches_are_as_full_as_they_may_be(lexicon):
    cut = Batching(lexicon.engine(), ("words",), settings_of(batch_rows=10, batch_tokens=64))
    assert [len(batch) for batch in cut.batches(window([3] * 16 + [10] * 9))] == [8, 8, 4, 4, 1]


def test_a_core_gets_fewer_tokens_at_a_time_than_a_gpu(lexicon, monkeypatch):
    engine = lexicon.engine()
    rows = window([8] * 600)
    assert [len(batch) for batch in Batching(engine, ("words",), settings_of()).batches(rows)] == [128] * 4 + [88]
    monkeypatch.setattr(engine.runtime, "device", "cuda:0")
    assert [len(batch) for batch in Batching(engine, ("words",), settings_of()).batches(rows)] == [600]


def test_equal_lengths_stay_in_their_order(lexicon):
    cut = Batching(lexicon.engine(), ("words",), settings_of())
    (batch,) = cut.batches(window([5, 3, 5, 3, 5]))
    assert batch.tolist() == [1, 3, 0, 2, 4]


def test_texts_are_filled_up_to_whole_steps(lexicon):
    cut = Batching(lexicon.engine(), ("words",), settings_of())
    texts = window([3, 9])
    made = cut.stack(texts, np.array([0, 1]))
    assert made["input_ids"].tolist() == [[1, 2, 3, *[0] * 13], [*range(1, 10), *[0] * 7]]
    assert made["attention_mask"].sum(axis=1).tolist() == [3, 9]
    assert {array.dtype for array in made.values()} == {np.dtype(np.int64)}


def test_windows_end_with_the_chunk_that_fills_them(lexicon, monkeypatch):
    monkeypatch.setattr(batching, "WINDOW_ROWS", 5)
    cut = Batching(lexicon.engine(), ("words",), settings_of())
    made = list(cut.windows([window([1] * rows) for rows in (3, 1, 4, 5, 2)]))
    assert [one.total for one in made] == [8, 5, 2]
    assert [len(one.inputs["text"]) for one in made] == [8, 5, 2]


def test_rows_of_fixed_shape_are_not_copied(mlp):
    cut = Batching(mlp.engine(), ("level",), settings_of(batch_rows=4))
    x = np.random.default_rng(0).standard_normal((10, 6)).astype(np.float32)
    rows = Window(10, np.arange(10), {"x": x}, pa.table({"id": list(range(10))}))
    batches = cut.batches(rows)
    assert [batch.tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert np.shares_memory(cut.stack(rows, batches[1])["x"], x)


@pytest.mark.parametrize("batch_rows", [3, 1024])
def test_free_dimensions_are_filled_or_grouped(free, batch_rows):
    generator = np.random.default_rng(4)
    exact = [generator.standard_normal((n, 2)).round(2).tolist() for n in generator.integers(1, 4, 40)]
    filled = [generator.standard_normal((m, 2)).round(2).tolist() for m in generator.integers(1, 9, 40)]
    source = Memory({"exact": pa.array(exact), "filled": pa.array(filled)}, chunk=15)
    shapes: list[tuple[int, ...]] = []
    ran = free.run

    def run(inputs: dict[str, Array], *more: Any) -> Any:
        shapes.append(inputs["exact"].shape)
        return ran(inputs, *more)

    engine = SimpleNamespace(**{name: getattr(free, name) for name in ("bundle", "runtime")}, run=run)
    table, faults = scored(Scorer(engine, settings_of(batch_rows=batch_rows)), source)  # type: ignore[arg-type]
    assert not faults
    for row, one, other in zip(table.to_pylist(), exact, filled, strict=True):
        assert row["mean"]["value"] == pytest.approx(np.mean(one, axis=0).tolist(), abs=1e-5)
        assert row["sum"]["value"] == pytest.approx(np.sum(other, axis=0).tolist(), abs=1e-5)
    assert len({shape[1] for shape in shapes}) == 3
    assert max(shape[0] for shape in shapes) <= batch_rows
    assert len(shapes) == (3 if batch_rows > 40 else len(shapes))


def test_a_chunk_is_whole_batches_of_rows_that_fit(mlp, picture):
    assert chunk_rows(mlp.engine(), settings_of()) == 4096
    assert chunk_rows(mlp.engine(), settings_of(batch_rows=1000)) == 4000
    assert chunk_rows(mlp.engine(), settings_of(batch_rows=10_000)) == 10_000
    assert chunk_rows(picture.engine(), settings_of()) == 4096


def test_large_rows_make_small_batches(picture, monkeypatch):
    monkeypatch.setattr(batching, "BATCH_BYTES", 640)
    cut = Batching(picture.engine(), ("ink",), settings_of())
    images = np.zeros((25, 8, 8, 1), np.uint8)
    rows = Window(25, np.arange(25), {"image": images}, pa.table({"id": list(range(25))}))
    assert [len(batch) for batch in cut.batches(rows)] == [10, 10, 5]


def test_masks_make_small_batches(field, monkeypatch):
    monkeypatch.setattr(batching, "DENSE_BYTES", 3 * 6 * 10 * 4 * 4)  # of four rows
    images = np.zeros((10, 6, 10, 3), np.uint8)
    rows = Window(10, np.arange(10), {"image": images}, pa.table({"id": list(range(10))}))
    assert [len(b) for b in Batching(field.engine(), ("ground",), settings_of()).batches(rows)] == [4, 4, 2]
    assert [len(b) for b in Batching(field.engine(), ("wet",), settings_of()).batches(rows)] == [10]

"""A table's answers: HTTP's, in order, whatever fails beside them and however they are batched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest

from polyhead.serving.cores import available_cores
from polyhead.serving.engine import Engine
from polyhead.serving.golden import Array
from polyhead.serving.request import HttpRequest
from polyhead.serving.responder import Responder
from polyhead.serving.scoring.errors import UnitFailed
from polyhead.serving.scoring.faults import Fault
from polyhead.serving.scoring.journal import Journal, Step
from polyhead.serving.scoring.scorer import Scorer
from polyhead.serving.scoring.settings import ScoreSettings
from polyhead.serving.settings import Settings
from tests.unit.serving.scoring.tables import Memory, column_of, rows_of, scored
from tests.unit.serving.test_protocol_arrowanswers import close, plain

TEXTS = ["", "Turn on the kitchen room light", "hello there", "set bath to 2.5", "Zoë’s café 灯 room", "off"]
EVERYTHING = {"top_k": 2, "scores": True, "raw": True}


def settings_of(**changes: Any) -> ScoreSettings:
    return ScoreSettings(device="cpu", runtime="onnxruntime", **changes)


def scorer_of(example: Any, **changes: Any) -> Scorer:
    return Scorer(example.engine(), settings_of(**changes))


def inputs_of(example: Any, rows: int) -> dict[str, Any]:
    spec = example.bundle.spec
    made = {}
    for name, value in spec.inputs.items():
        if value.kind == "text":
            made[name] = [TEXTS[row % len(TEXTS)] for row in range(rows)]
        else:
            made[name] = np.stack([example.samples[name][row % len(example.samples[name])] for row in range(rows)])
    return made


def memory_of(example: Any, rows: int, chunk: int | None = None) -> Memory:
    return Memory({name: column_of(values) for name, values in inputs_of(example, rows).items()}, chunk)


class Bounded:
    """A runtime that has memory for so many rows; it really runs the graph on those."""

    def __init__(self, engine: Engine, most: int) -> None:
        self.runtime, self.most = engine.runtime, most
        self.name, self.device = engine.runtime.name, engine.runtime.device
        self.asked: list[int] = []
        engine.runtime = self

    def run(self, inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        self.asked.append(len(inputs[0]))
        if len(inputs[0]) > self.most:
            raise MemoryError
        return self.runtime.run(inputs, outputs)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, EVERYTHING, {"mask": "png"}], ids=["plain", "all", "png"])
@pytest.mark.parametrize("name", ["mlp", "picture", "field", "lexicon", "reader", "pair"])
def test_the_table_says_what_http_says(name, options, request):
    example = request.getfixturevalue(name)
    spec = example.bundle.spec
    inputs = inputs_of(example, 7)
    values = {key: column if isinstance(column, list) else column.tolist() for key, column in inputs.items()}
    instances = [{key: column[row] for key, column in values.items()} for row in range(7)]
    heads = tuple(spec.heads)[::-1]
    body = orjson.dumps({"instances": instances, "options": options, "heads": heads})
    (response,) = Responder(example.engine(), Settings()).respond([HttpRequest(body, "application/json")])
    assert response.status == 200, response.body
    told = orjson.loads(response.body)["predictions"]

    table, faults = scored(scorer_of(example, heads=heads, **options), memory_of(example, 7))

    assert not faults
    assert table.column_names == ["id", *heads]
    for row, answer in zip(table.to_pylist(), told, strict=True):
        for head in heads:
            said = {key: [] if value == {} else value for key, value in answer[head].items()}  # nobody enrolled
            assert close(row[head], plain(head, spec, said)), (head, row[head], said)


def test_numbers_are_http_s_to_the_bit(mlp):
    """JSON has the shortest text of a float32, so that nothing is lost on the way."""
    body = orjson.dumps({"instances": mlp.samples["x"].tolist()})
    (response,) = Responder(mlp.engine(), Settings()).respond([HttpRequest(body, "application/json")])
    told = orjson.loads(response.body)["predictions"]
    table, _ = scored(scorer_of(mlp), Memory({"x": column_of(mlp.samples["x"])}))
    for head, field in (("level", "value"), ("position", "value"), ("vector", "vector"), ("color", "score")):
        found = np.array([row[field] for row in table.column(head).to_pylist()], np.float32)
        assert np.array_equal(found, np.array([row[head][field] for row in told], np.float32)), head


@pytest.mark.parametrize("name", ["mlp", "reader", "pair"])
def test_a_chunk_may_be_cut_anywhere(name, request):
    """Other chunks are other batches: the numbers are close, the order is the same."""
    example = request.getfixturevalue(name)
    whole, _ = scored(scorer_of(example), memory_of(example, 23))
    cut, _ = scored(scorer_of(example, batch_rows=4), memory_of(example, 23, chunk=5))
    assert all(map(close, cut.to_pylist(), whole.to_pylist()))


def test_texts_are_sorted_and_come_back_in_order(lexicon):
    engine = lexicon.engine()
    widths: list[tuple[int, int]] = []
    runtime = Bounded(engine, 1000)
    ran = runtime.run

    def run(inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        widths.append(inputs[0].shape)
        return ran(inputs, outputs)

    runtime.run = run
    texts = ["a", "turn on the kitchen room light in the living room"] * 20
    table, _ = scored(Scorer(engine, settings_of(batch_rows=20)), Memory({"text": pa.array(texts)}))
    assert widths == [(20, 8), (20, 16)]
    counts = [row["value"] for row in table.column("words").to_pylist()]
    assert counts == [3.0, counts[1]] * 20
    assert counts[1] > 8
    widths.clear()
    unsorted, _ = scored(Scorer(engine, settings_of(batch_rows=20, sort=False)), Memory({"text": pa.array(texts)}))
    assert widths == [(20, 16), (20, 16)]
    assert unsorted.equals(table)


def test_a_batch_has_no_more_tokens_than_allowed(lexicon):
    engine = lexicon.engine()
    runtime = Bounded(engine, 1000)
    texts = ["turn on"] * 30 + ["turn on the kitchen room light in the living room"] * 3
    scored(Scorer(engine, settings_of(batch_tokens=64)), Memory({"text": pa.array(texts)}))
    assert sorted(runtime.asked) == [1, 2, 4, 4, 6, 8, 8] or sum(runtime.asked) == 33
    assert max(runtime.asked) == 8


@pytest.mark.parametrize("rows", [1, 3, 5])
def test_out_of_memory_halves_the_batch(lookup, rows):
    index = np.arange(40, dtype=np.int64).reshape(-1, 1) % 8
    quiet, _ = scored(scorer_of(lookup), Memory({"index": column_of(index)}))
    engine = lookup.engine()
    runtime = Bounded(engine, rows)
    table, faults = scored(Scorer(engine, settings_of(batch_rows=16)), Memory({"index": column_of(index)}))
    assert not faults
    assert table.equals(quiet)
    assert set(runtime.asked) >= {16, 8}
    assert sum(asked for asked in runtime.asked if asked <= rows) == 40


def test_a_row_on_which_the_runtime_raises_fails_alone(lookup):
    index = np.arange(400, dtype=np.int64).reshape(-1, 1) % 8
    bad = [0, 17, 18, 399]
    wrong = index.copy()
    wrong[bad] = 99
    quiet, _ = scored(scorer_of(lookup, batch_rows=64), Memory({"index": column_of(index)}))
    table, faults = scored(scorer_of(lookup, batch_rows=64), Memory({"index": column_of(wrong)}))
    assert sorted(faults) == bad
    assert {(fault.stage, fault.type) for fault in faults.values()} == {("forward", "internal_error")}
    assert "99" in faults[17].message
    assert table.equals(rows_of(quiet, [row for row in range(400) if row not in bad]))


def test_the_others_of_a_batch_that_raised_are_answered_together(lookup):
    """As if the bad row had not been there: in one pass, whose batch is one row smaller."""
    engine = lookup.engine()
    runtime = Bounded(engine, 1000)
    index = np.zeros((32, 1), np.int64)
    index[5] = 99
    scored(Scorer(engine, settings_of()), Memory({"index": column_of(index)}))
    assert runtime.asked[-2:] == [31, 1]  # the last is the golden sample that proves the engine sound
    assert len(runtime.asked) < 32


def test_an_answer_that_is_not_finite_is_that_row_s_alone(logarithm):
    x = np.abs(np.random.default_rng(5).standard_normal((50, 2)).astype(np.float32)) + 1
    wrong = x.copy()
    wrong[[3, 40], 1] = 0
    quiet, _ = scored(scorer_of(logarithm), Memory({"x": column_of(x)}))
    table, faults = scored(scorer_of(logarithm), Memory({"x": column_of(wrong)}))
    assert {row: (fault.stage, fault.type) for row, fault in faults.items()} == dict.fromkeys(
        [3, 40], ("answer", "answer_not_finite")
    )
    assert faults[3].message.startswith("head 'log' answered NaN or infinity for this row")
    assert table.equals(rows_of(quiet, [row for row in range(50) if row not in (3, 40)]))
    half, none = scored(scorer_of(logarithm, heads=("half",)), Memory({"x": column_of(wrong)}))
    assert not none
    assert half.num_rows == 50


def told_by(journal_of: list[tuple[Step, int | None]]) -> Journal:
    return Journal(lambda step, row: journal_of.append((step, row)))


@pytest.mark.parametrize("threads", [0, 1])
def test_every_step_is_told_in_its_order(reader, threads):
    told: list[tuple[Step, int | None]] = []
    scored(scorer_of(reader, batch_rows=4, decode_threads=threads), memory_of(reader, 12, chunk=6), told_by(told))
    for stage, count in (("read", 3), ("decode", 2), ("forward", 3)):
        assert [step.number for step, _ in told if step.stage == stage] == list(range(count))


class Lost(Bounded):
    """A device that is lost at the first batch that is too large, as a GPU after an illegal access."""

    def run(self, inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        if len(inputs[0]) > self.most:
            self.most = -1
            raise RuntimeError("an illegal memory access was encountered")
        return self.runtime.run(inputs, outputs)  # type: ignore[arg-type]


def test_an_engine_that_is_lost_quarantines_nothing(lookup):
    engine = lookup.engine()
    index = np.zeros((40, 1), np.int64)
    index[39] = 7
    scorer = Scorer(engine, settings_of(batch_rows=30))
    Lost(engine, 29)
    with pytest.raises(UnitFailed, match=r"golden samples since a batch failed .*illegal memory access.*: restart"):
        scored(scorer, Memory({"index": column_of(index)}))


@pytest.mark.parametrize("name", ["mlp", "reader", "picture"])
def test_rows_decoded_alone_are_the_rows_decoded_together(name, request):
    example = request.getfixturevalue(name)
    source = memory_of(example, 12)
    (given,) = source.inputs
    column = source.inputs[given]
    source.inputs = {given: pa.concat_arrays([column[:5], pa.nulls(1, column.type), column[6:]])}
    quiet, faults = scored(scorer_of(example), source)
    journal = Journal(care={Step("decode", 0): "alone"})
    table, same = scored(scorer_of(example), source, journal)
    assert table.equals(quiet)
    assert same == faults
    assert list(faults) == [5]


@pytest.mark.parametrize("name", ["mlp", "reader"])
@pytest.mark.parametrize("stage", ["decode", "forward"])
def test_care_changes_no_answer(name, stage, request):
    example = request.getfixturevalue(name)
    quiet, _ = scored(scorer_of(example, batch_rows=8), memory_of(example, 20))
    told: list[tuple[Step, int | None]] = []
    journal = told_by(told)
    journal.care = {Step(stage, 0): "first"}
    table, faults = scored(scorer_of(example, batch_rows=8), memory_of(example, 20), journal)
    assert not faults
    assert table.equals(quiet)
    rows = [row for step, row in told if step == Step(stage, 0)]
    alone = [row for row in rows if row is not None]
    assert len(alone) == (20 if stage == "decode" else 8)
    assert rows[-1] is None  # together again


def test_alone_each_row_is_told_and_its_own_answer_counts(lookup):
    index = np.arange(20, dtype=np.int64).reshape(-1, 1) % 8
    quiet, _ = scored(scorer_of(lookup, batch_rows=8), Memory({"index": column_of(index)}))
    engine = lookup.engine()
    runtime = Bounded(engine, 1000)
    told: list[tuple[Step, int | None]] = []
    journal = told_by(told)
    journal.care = {Step("forward", 1): "alone"}
    table, faults = scored(Scorer(engine, settings_of(batch_rows=8)), Memory({"index": column_of(index)}), journal)
    assert not faults
    assert table.equals(quiet)
    assert runtime.asked == [8, *[1] * 8, 4]
    assert [row for step, row in told if step == Step("forward", 1)] == [None, *range(8, 16)]


@pytest.mark.parametrize("stage", ["decode", "forward"])
def test_a_killer_is_quarantined_and_the_batches_are_what_they_were(lookup, stage):
    index = np.arange(20, dtype=np.int64).reshape(-1, 1) % 8
    quiet, _ = scored(scorer_of(lookup, batch_rows=8), Memory({"index": column_of(index)}))
    engine = lookup.engine()
    runtime = Bounded(engine, 1000)
    killer = Fault(9, stage, "crashed", "the worker died of SIGSEGV on it", 3)
    source = Memory({"index": column_of(index)})
    table, faults = scored(Scorer(engine, settings_of(batch_rows=8)), source, Journal(killers={9: killer}))
    assert faults == {9: killer}
    assert table.equals(rows_of(quiet, [row for row in range(20) if row != 9]))
    assert runtime.asked == ([8, 7, 4] if stage == "forward" else [8, 8, 3])


@pytest.mark.parametrize("name", ["mlp", "reader"])
def test_threads_change_no_answer(name, request):
    example = request.getfixturevalue(name)
    inline, beside = scorer_of(example), scorer_of(example, decode_threads=1)
    inline.ahead = False
    assert beside.ahead
    source = memory_of(example, 40, chunk=7)
    table, faults = scored(beside, source)
    assert (table, faults) == scored(inline, source)


@pytest.mark.parametrize(
    ("options", "local", "ahead"),
    [
        ({}, True, False),
        ({"decode_threads": 1}, True, True),
        ({}, False, True),
        ({"workers": 1, "threads": 1}, True, None),
    ],
)
def test_threads_read_ahead_where_they_gain_something(mlp, options, local, ahead):
    """None is said of a machine: whether it has a core beside that of one worker."""
    scorer = Scorer(mlp.engine(), settings_of(**options), local=local)
    assert scorer.ahead is (available_cores() > 1 if ahead is None else ahead)


@pytest.mark.parametrize("threads", [0, 1])
def test_a_source_that_fails_fails_in_its_place(mlp, threads):
    def chunks():
        yield from list(memory_of(mlp, 8, chunk=4).read(None, chunk_rows=4, chunk_bytes=1))
        raise OSError("the file is gone")

    found = scorer_of(mlp, decode_threads=threads).score(chunks())
    assert [next(found).total, next(found).total] == [4, 4]
    with pytest.raises(OSError, match="the file is gone"):
        next(found)


def test_whoever_stops_early_leaves_no_thread(mlp):
    import threading

    before = threading.active_count()
    scorer = scorer_of(mlp, decode_threads=1)
    found = scorer.score(memory_of(mlp, 400, chunk=4).read(None, chunk_rows=4, chunk_bytes=1))
    next(found)
    assert threading.active_count() > before
    found.close()
    assert threading.active_count() == before

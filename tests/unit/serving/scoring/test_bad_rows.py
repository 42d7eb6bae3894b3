"""Rows that are no input of the model: each fails alone, with HTTP's word for it, and changes no other row's answer."""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from PIL import Image

from polyhead.serving.request import HttpRequest
from polyhead.serving.responder import Responder
from polyhead.serving.scoring.cells import numbers_in_texts
from polyhead.serving.scoring.scorer import Scorer
from polyhead.serving.scoring.settings import ScoreSettings
from polyhead.serving.scoring.sources.cells import numbers
from polyhead.serving.settings import Settings
from tests.unit.serving.scoring.tables import Memory, column_of, scored

ROWS = 60
BAD = (0, 23, 24, 59)
SIX = pa.list_(pa.float32())
NO_TEXT = b"\xff\xfe not UTF-8"


def scorer_of(example: Any, **changes: Any) -> Scorer:
    return Scorer(example.engine(), ScoreSettings(device="cpu", runtime="onnxruntime", **changes))


def vectors(example: Any) -> list[Any]:
    samples = example.samples["x"]
    return [samples[row % len(samples)].tolist() for row in range(ROWS)]


def files(example: Any) -> list[Any]:
    spec, samples = example.bundle.spec.inputs["image"], example.samples["image"]
    found = []
    for row in range(ROWS):
        buffer = io.BytesIO()
        Image.fromarray(np.squeeze(samples[row % len(samples)]), spec_mode(spec)).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


def spec_mode(spec: Any) -> str:
    return "L" if spec.depth == 1 else "RGB"


def bomb() -> bytes:
    """A kilobyte that says it is an image of 10 000 x 10 000 pixels."""
    header = struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + b"\0\0\1\0IDAT"
        + bytes(1000)
    )


def texts(_example: Any) -> list[Any]:
    return [("turn on the light", "hello", "", "set bath to 2.5")[row % 4] for row in range(ROWS)]


def spoiled(good: list[Any], bad: Any) -> list[Any]:
    return [bad if row in BAD else value for row, value in enumerate(good)]


def strings(values: list[Any]) -> pa.Array:
    """Strings as a Parquet file holds them, which nobody has looked at."""
    data = pa.array([value.encode() if isinstance(value, str) else value for value in values], pa.binary())
    return pa.StringArray.from_buffers(len(data), data.buffers()[1], data.buffers()[2])


def objects(values: list[Any]) -> Any:
    """As JSON Lines have them."""
    return list(values)


def floats(values: list[Any]) -> pa.Array:
    return pa.array(values, SIX)


# By name: example, good rows, how a column is made of them, what is wrong, and what is said of it.
CASES: dict[str, tuple[str, Any, Any, Any, str, str]] = {
    "null": ("mlp", vectors, floats, None, "invalid_instance", "a null"),
    "null within": ("mlp", vectors, floats, [1.0, None, 1.0, 1.0, 1.0, 1.0], "invalid_instance", "a null"),
    "wrong shape": ("mlp", vectors, floats, [1.0, 2.0], "invalid_instance", r"shape \[.*2\], wanted \[.*6\]"),
    "empty": ("mlp", vectors, floats, [], "invalid_instance", "shape"),
    "NaN": ("mlp", vectors, floats, [math.nan, 1, 2, 3, 4, 5], "input_not_finite", "1 of 6 values are NaN"),
    "infinity": ("mlp", vectors, floats, [math.inf] * 6, "input_not_finite", "6 of 6 values are NaN or infinite"),
    "overflow": (
        "mlp",
        vectors,
        lambda values: pa.array(values, pa.list_(pa.float64())),
        [1e300] * 6,
        "input_not_finite",
        "6 of 6",
    ),
    "JSON: wrong type": ("mlp", vectors, objects, "six numbers", "invalid_instance", "wanted float32 numbers"),
    "JSON: null": ("mlp", vectors, objects, None, "invalid_instance", "got null"),
    "JSON: wrong type within": ("mlp", vectors, objects, [1, 2, True, 4, 5, 6], "invalid_instance", "true or false"),
    "JSON: wrong shape": ("mlp", vectors, objects, [1, 2, 3], "invalid_instance", "wanted shape|wanted"),
    "JSON: ragged": ("mlp", vectors, objects, [1, [2], 3, 4, 5, 6], "invalid_instance", "different lengths"),
    "CSV: no number": (
        "mlp",
        vectors,
        lambda values: pa.array([v if isinstance(v, str) else str(v) for v in values]),
        "[1, 2, 3, ?, 5, 6]",
        "invalid_instance",
        "wanted a number or a JSON list of numbers, got '\\[1, 2",
    ),
    "out of range": (
        "lookup",
        lambda _example: [row % 8 for row in range(ROWS)],
        lambda values: pa.array(values, pa.uint64()),
        2**63,
        "invalid_instance",
        "values outside",
    ),
    "whole numbers wanted": (
        "lookup",
        lambda _example: [[row % 8] for row in range(ROWS)],
        objects,
        [0.5],
        "invalid_instance",
        "wanted int64 numbers",
    ),
    "text: null": ("lexicon", texts, pa.array, None, "invalid_instance", "a null, wanted a value in every row"),
    "text: too long": (
        "lexicon",
        texts,
        pa.array,
        "hello " * 30,
        "invalid_instance",
        "has 32 tokens, the model takes 24",
    ),
    "text: far too long": ("lexicon", texts, pa.array, "a" * 20_000, "invalid_instance", "has 20000 characters"),
    "text: no UTF-8": ("lexicon", texts, strings, NO_TEXT, "malformed_body", r"not UTF-8 \(byte 0\)"),
    "text: no UTF-8, CSV": (
        "lexicon",
        texts,
        lambda values: pa.array([v.encode() if isinstance(v, str) else v for v in values], pa.binary()),
        NO_TEXT,
        "malformed_body",
        r"not UTF-8 \(byte 0\)",
    ),
    "text: JSON, a number": ("lexicon", texts, objects, 7, "invalid_instance", "wanted a string, got 7"),
    "text: JSON, half a character": ("lexicon", texts, objects, "\ud83d", "invalid_instance", "cannot be tokenised"),
    "image: corrupt": ("picture", files, pa.array, b"\x89PNG no image", "malformed_body", "no whole PNG or JPEG"),
    "image: null": ("picture", files, pa.array, None, "invalid_instance", "a null"),
    "image: bomb": ("picture", files, pa.array, bomb(), "payload_too_large", "10000 x 10000 pixels"),
    "image: JSON": ("picture", lambda e: e.samples["image"][:8].tolist() * 8, objects, {}, "invalid_instance", "image"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_row_fails_alone(case, request):
    name, good, column, bad, kind, message = CASES[case]
    example = request.getfixturevalue(name)
    (given,) = example.bundle.spec.inputs
    values = good(example)[:ROWS]
    quiet, none = scored(scorer_of(example, batch_rows=16), Memory({given: column(values)}, hidden=BAD))
    assert not none
    table, faults = scored(scorer_of(example, batch_rows=16), Memory({given: column(spoiled(values, bad))}))
    assert sorted(faults) == list(BAD)
    for fault in faults.values():
        assert (fault.stage, fault.type) == ("decode", kind)
        assert fault.message.startswith(f"input {given!r}: ") or name == "picture"
        assert "\n" not in fault.message
        assert re.search(message, fault.message), fault.message
    assert table.equals(quiet)


@pytest.mark.parametrize("case", [name for name in CASES if name.startswith("JSON")])
def test_http_says_the_same(case, mlp):
    bad, kind = CASES[case][3:5]
    body = orjson.dumps({"instances": [{"x": bad}]})
    (response,) = Responder(mlp.engine(), Settings()).respond([HttpRequest(body, "application/json")])
    _, faults = scored(scorer_of(mlp), Memory({"x": [bad]}))
    said = orjson.loads(response.body)
    assert (said["type"], said["error"]) == (kind, faults[0].message)


def test_all_rows_may_be_bad(mlp):
    table, faults = scored(scorer_of(mlp), Memory({"x": pa.array([None] * ROWS, SIX)}))
    assert table.num_rows == 0
    assert table.schema.field("color").type.field("label").type == pa.string()
    assert len(faults) == ROWS


def test_a_column_of_another_type_fails_row_by_row(mlp, lexicon):
    for example, name, column in ((mlp, "x", pa.array(["a"] * 3)), (lexicon, "text", pa.array([1, 2, 3]))):
        table, faults = scored(scorer_of(example), Memory({name: column}))
        assert table.num_rows == 0
        assert {fault.type for fault in faults.values()} == {"invalid_instance"}


def test_of_a_row_that_is_wrong_twice_the_first_input_is_named(pair):
    inputs = {
        "question": pa.array(["on", None, "on"]),
        "weight": column_of(np.array([[1, 2], [np.nan, 1], [1, np.nan]], np.float32)),
        "my-passage": pa.array(["off", "off", "off"]),
    }
    table, faults = scored(scorer_of(pair), Memory(inputs))
    assert table.num_rows == 1
    assert {row: fault.type for row, fault in faults.items()} == {1: "invalid_instance", 2: "input_not_finite"}
    assert "'question'" in faults[1].message


def test_unreadable_and_filtered_rows_are_counted(mlp):
    source = Memory({"x": column_of(mlp.samples["x"][:20])}, chunk=6, unreadable=[2, 19], hidden=[0, 7])
    table, faults = scored(scorer_of(mlp), source)
    assert table.num_rows == 16
    assert {fault.stage for fault in faults.values()} == {"read"}


@pytest.mark.parametrize(
    "column",
    [
        lambda rows: pa.array(rows, pa.list_(pa.float64())),
        lambda rows: pa.array(rows, pa.large_list(pa.float32())),
        lambda rows: pa.array([str(row) for row in rows]),
        lambda rows: pa.array([[str(value) for value in row] for row in rows], pa.list_(pa.string())),
        lambda rows: rows,
    ],
    ids=["doubles", "large lists", "JSON in a text", "texts", "objects"],
)
def test_numbers_come_in_many_forms(mlp, column):
    rows = np.round(mlp.samples["x"][:9], 3).astype(np.float32)
    quiet, _ = scored(scorer_of(mlp), Memory({"x": column_of(rows)}))
    table, faults = scored(scorer_of(mlp), Memory({"x": column([[float(str(v)) for v in row] for row in rows])}))
    assert not faults
    assert table.equals(quiet)


def test_a_number_among_lists_is_a_row_of_one(lookup):
    quiet, _ = scored(scorer_of(lookup), Memory({"index": column_of(np.array([[1], [2], [7]]))}))
    found, bad = numbers(pa.array([b"1", b"[2]", b" 007", b"["]), "i", listed=True)
    assert list(bad) == [3]
    table, faults = scored(scorer_of(lookup), Memory({"index": found[:3]}))
    assert not faults
    assert table.equals(quiet)


def test_true_in_a_text_is_as_json_has_it():
    assert numbers_in_texts("x", pa.array(["true", "[false, true]", "false"])) == [True, [False, True], False]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, 2, 7]).dictionary_encode(),
        pa.array(["1", "2", "7"]),
        pa.array([b"1", b" 2", b"7"]),
        pa.array([1, 2, 7], pa.uint8()),
    ],
    ids=["dictionary", "texts", "bytes", "bytes of numbers"],
)
def test_plain_columns_of_numbers(lookup, column):
    quiet, _ = scored(scorer_of(lookup), Memory({"index": column_of(np.array([[1], [2], [7]]))}))
    table, faults = scored(scorer_of(lookup), Memory({"index": column}))
    assert not faults
    assert table.equals(quiet)


def test_texts_may_be_a_dictionary_or_a_view(lexicon):
    texts = ["turn on", "off", "turn on"]
    quiet, _ = scored(scorer_of(lexicon), Memory({"text": pa.array(texts)}))
    for column in (
        pa.array(texts).dictionary_encode(),
        pa.array(texts, pa.string_view()),
        pa.array(texts, pa.large_string()),
    ):
        assert scored(scorer_of(lexicon), Memory({"text": column}))[0].equals(quiet)


def test_images_are_decoded_in_threads_to_the_same_answers(picture):
    values = spoiled(files(picture), b"no image")
    alone, _ = scored(scorer_of(picture, decode_threads=1), Memory({"image": pa.array(values)}))
    together, faults = scored(scorer_of(picture, decode_threads=4), Memory({"image": pa.array(values)}))
    assert together.equals(alone)
    assert sorted(faults) == list(BAD)

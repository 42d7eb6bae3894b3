"""Rows to try a network on: read and held against the spec, or random."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file as save_arrays
from torch import nn

from polyhead.export.errors import ExportError
from polyhead.export.samples import load_samples, random_samples
from polyhead.export.source import Source
from polyhead.models.spec import ModelSpec, TextInput
from polyhead.models.textarray import texts_to_array
from polyhead.models.tokenizer import Tokenizer
from tests.unit.serving.wordpiece import tokenizer_json

SPEC = ModelSpec.parse(
    {
        "name": "m",
        "version": "1",
        "inputs": {"x": {"kind": "tensor", "shape": [2]}, "i": {"kind": "image", "size": [4, 5], "channels": "gray"}},
        "heads": {"y": {"kind": "regression"}},
    }
)


def test_random_samples_are_seeded_and_of_the_specs_shapes():
    samples = random_samples(SPEC)
    assert samples["x"].shape == (64, 2)
    assert samples["x"].dtype == np.float32
    assert samples["i"].shape == (64, 4, 5, 1)
    assert samples["i"].dtype == np.uint8
    assert samples["i"].max() > 200
    np.testing.assert_array_equal(samples["x"], random_samples(SPEC)["x"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((4, 2), np.float32)}, "the spec's inputs are"),
        ({"x": np.zeros((4, 3), np.float32), "i": np.zeros((4, 4, 5, 1), np.uint8)}, r"wanted float32\[rows, 2\]"),
        ({"x": np.zeros((4, 2), np.float64), "i": np.zeros((4, 4, 5, 1), np.uint8)}, "is float64"),
        ({"x": np.zeros((1, 2), np.float32), "i": np.zeros((1, 4, 5, 1), np.uint8)}, "two rows or more"),
    ],
)
def test_samples_that_do_not_fit_are_explained(tmp_path, arrays, message):
    save_arrays(arrays, tmp_path / "s.safetensors")
    with pytest.raises(ExportError, match=message):
        load_samples(tmp_path / "s.safetensors", SPEC)


# --- texts ----------------------------------------------------------------------------------------------------------

TEXT = ModelSpec.parse(
    {
        "name": "m",
        "version": "1",
        "inputs": {
            "text": {"kind": "text", "tokenizer": "parts/tokenizer.json", "max_length": 12},
            "x": {"kind": "tensor", "shape": [2]},
        },
        "heads": {"y": {"kind": "regression"}, "who": {"kind": "oneshot", "dim": 2, "labels": ["a", "b", "c"]}},
    }
)
TEXTS = ["turn on", "", "Zoë’s café 👩‍👩‍👧"]


def tokenizers(special: bool = True, **spec: object) -> dict[str, Tokenizer]:
    declared = TEXT.inputs["text"].model_copy(update=spec)
    assert isinstance(declared, TextInput)
    return {"text": Tokenizer(tokenizer_json(special=special), declared)}


def test_texts_are_read_from_safetensors(tmp_path):
    numbers = np.arange(6, dtype=np.float32).reshape(3, 2)
    save_arrays({"text": texts_to_array(TEXTS), "x": numbers}, tmp_path / "s.safetensors")
    samples = load_samples(tmp_path / "s.safetensors", TEXT)
    assert samples["text"] == TEXTS
    np.testing.assert_array_equal(samples["x"], numbers)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (texts_to_array(TEXTS[:1]), "input 'text' has 1 texts, wanted two or more"),
        (texts_to_array([]), "input 'text' has 0 texts, wanted two or more"),
        (texts_to_array(TEXTS[:2]), r"one number of rows for every input is wanted, got \{'text': 2, 'x': 3\}"),
        (np.zeros((3, 2), np.int64), r"input 'text': texts are uint8 \[bytes\], got int64 \[3, 2\]"),
        (np.frombuffer(b'{"a": 1}', np.uint8), "input 'text': not a list of texts"),
        (np.frombuffer(b"[1, 2, 3]", np.uint8), "input 'text': not a list of texts"),
        (np.frombuffer(b"turn on", np.uint8), "input 'text': Expecting value"),
        (np.frombuffer(b"[" * 100_000, np.uint8), "input 'text': maximum recursion depth"),
    ],
)
def test_texts_that_do_not_fit_are_explained(tmp_path, text, message):
    save_arrays({"text": text, "x": np.zeros((3, 2), np.float32)}, tmp_path / "s.safetensors")
    with pytest.raises(ExportError, match=message):
        load_samples(tmp_path / "s.safetensors", TEXT)


@pytest.mark.parametrize("wrap", [lambda rows: rows, lambda rows: {"instances": rows}], ids=["a list", "a request"])
def test_samples_may_be_what_a_client_would_send(tmp_path, wrap):
    rows = [{"text": text, "x": [i, 0.5]} for i, text in enumerate(TEXTS)]
    path = tmp_path / "s.json"
    path.write_text(json.dumps(wrap(rows), ensure_ascii=False), encoding="utf-8")
    samples = load_samples(path, TEXT)
    assert samples["text"] == TEXTS
    np.testing.assert_array_equal(samples["x"], np.array([[0, 0.5], [1, 0.5], [2, 0.5]], np.float32))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"text": "a", "x": [1, 2]}]', "one row, wanted two or more"),
        ("[]", r'"instances" must be a list of one row or more \(at instances\)'),
        ("[", "the body is not JSON"),
        ('[{"text": "a", "x": [1, 2]}, {"text": 3, "x": [1, 2]}]', r"wanted a string, got 3 \(at instances.1.text\)"),
        ('[{"text": "a", "x": [1, 2]}, {"text": "b"}]', r"input 'x' is missing \(at instances.1.x\)"),
        (None, "No such file"),
    ],
)
def test_instances_that_do_not_fit_are_explained(tmp_path, content, message):
    path = tmp_path / "s.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ExportError, match=message) as caught:
        load_samples(path, TEXT)
    assert str(caught.value).startswith("samples ")
    assert str(path) in str(caught.value)


def test_random_texts_are_seeded_and_fit(tmp_path):
    found = tokenizers()
    samples = random_samples(TEXT, tokenizers=found)
    assert len(samples["text"]) == len(samples["x"]) == 64
    assert len(set(samples["text"])) > 20
    assert samples["text"] == random_samples(TEXT, tokenizers=found)["text"]
    assert samples["text"] != random_samples(TEXT, tokenizers=found, seed=1)["text"]
    lengths = [len(encoding.ids) for encoding in found["text"].encode(samples["text"])]
    assert min(lengths) >= 3  # a word and two special tokens
    assert max(lengths) <= 12


@pytest.mark.parametrize("max_length", [3, 4, 5, 64])
def test_random_texts_fit_any_length(max_length):
    found = tokenizers(max_length=max_length)
    spec = TEXT.model_copy(update={"inputs": {"text": found["text"].spec}})
    for seed in range(5):
        found["text"].encode(random_samples(spec, tokenizers=found, seed=seed)["text"])


# --- free dimensions ------------------------------------------------------------------------------------------------


def free(**inputs: Any) -> ModelSpec:
    heads = {"y": {"kind": "regression"}}
    return ModelSpec.parse({"name": "m", "version": "1", "inputs": inputs, "heads": heads})


def batches(spec: ModelSpec, rows: Any) -> list[dict[str, tuple[int, ...]]]:
    """The shapes of what the samples become."""
    groups = Source(nn.Linear(1, 1), spec, rows).batches()
    return [{name: array.shape for name, array in group.items()} for group in groups]


STEPS = {"kind": "tensor", "shape": ["steps", 2], "lengths": {"steps": [3, 40]}}
PICTURE = {"kind": "tensor", "dtype": "uint8", "shape": [3, "height", "width"]}
MASK = {"kind": "tensor", "dtype": "bool", "shape": ["steps"], "pad": 0}


def test_random_rows_of_free_shape_come_in_a_few_shapes_within_bounds():
    spec = free(x=STEPS)
    rows = random_samples(spec)["x"]
    assert len(rows) == 64
    assert all(row.dtype == np.float32 and row.shape[1] == 2 for row in rows)
    lengths = [len(row) for row in rows]
    assert 3 <= min(lengths) < max(lengths) <= 19
    groups = batches(spec, {"x": rows})
    assert len(groups) >= 3
    assert groups[0]["x"][0] >= 32
    assert [group["x"][0] for group in groups] == sorted((group["x"][0] for group in groups), reverse=True)
    again = random_samples(spec)["x"]
    assert all(np.array_equal(one, other) for one, other in zip(rows, again, strict=True))
    assert any(one.shape != other.shape for one, other in zip(rows, random_samples(spec, seed=1)["x"], strict=True))


@pytest.mark.parametrize("seed", range(4))
def test_random_rows_have_the_lengths_that_they_share_and_no_two_dimensions_alike(seed: int):
    spec = free(
        x=PICTURE, depth={"kind": "tensor", "shape": ["height", "width", 1]}, size={"kind": "tensor", "shape": []}
    )
    samples = random_samples(spec, seed=seed)
    for pixels, depth in zip(samples["x"], samples["depth"], strict=True):
        assert pixels.shape[1:] == depth.shape[:2]
    first = batches(spec, samples)[0]
    assert first["x"][0] == first["depth"][0] == first["size"][0] >= 16
    assert first["x"][2] != first["x"][3]
    assert min(first["x"][2:]) > 1


def test_random_rows_that_are_filled_up_are_one_batch_of_many_lengths():
    spec = free(x={**STEPS, "pad": 0}, mask=MASK, z={"kind": "tensor", "shape": ["n"], "pad": -1})
    samples = random_samples(spec)
    lengths = [len(row) for row in samples["x"]]
    assert lengths == [len(row) for row in samples["mask"]]
    assert len(set(lengths)) >= 8
    assert all(row[0] for row in samples["mask"])  # a mask of none is no row
    (shapes,) = batches(spec, samples)
    assert shapes["x"] == (64, max(lengths), 2)
    assert shapes["mask"] == (64, max(lengths))
    assert shapes["z"][1] != max(lengths)


@pytest.mark.parametrize(("bounds", "expected"), [([1, 2], {1, 2}), ([5, 7], {5, 6, 7}), ([300, 1024], None)])
def test_random_rows_keep_to_narrow_and_to_high_bounds(bounds: list[int], expected: set[int] | None):
    spec = free(x={**STEPS, "lengths": {"steps": bounds}})
    lengths = {len(row) for row in random_samples(spec)["x"]}
    assert lengths == expected or (expected is None and 300 <= min(lengths) < max(lengths) <= 316)


@pytest.mark.parametrize("steps", [3, 17, 40])
def test_arrays_of_any_length_in_bounds_are_read(tmp_path, steps: int):
    array = np.arange(4 * steps * 2, dtype=np.float32).reshape(4, steps, 2)
    save_arrays({"x": array}, tmp_path / "s.safetensors")
    samples = load_samples(tmp_path / "s.safetensors", free(x=STEPS))
    np.testing.assert_array_equal(np.stack(samples["x"]), array)
    assert batches(free(x=STEPS), samples) == [{"x": (4, steps, 2)}]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((4, 2, 2), np.float32)}, r"row 0: input 'x': steps is 2, the model takes 3 to 40"),
        ({"x": np.zeros((4, 41, 2), np.float32)}, r"row 0: input 'x': steps is 41, the model takes 3 to 40"),
        ({"x": np.zeros((4, 8), np.float32)}, r"is float32\[4, 8\], wanted float32\[rows, steps, 2\] with two rows"),
        ({"x": np.zeros((4, 8, 3), np.float32)}, r"is float32\[4, 8, 3\], wanted float32\[rows, steps, 2\]"),
        ({"x": np.zeros((1, 8, 2), np.float32)}, "two rows or more"),
    ],
)
def test_arrays_of_another_shape_are_explained(tmp_path, arrays, message):
    save_arrays(arrays, tmp_path / "s.safetensors")
    with pytest.raises(ExportError, match=message):
        load_samples(tmp_path / "s.safetensors", free(x=STEPS))


def test_arrays_that_do_not_share_their_length_are_explained(tmp_path):
    spec = free(x={**STEPS, "pad": 0}, mask=MASK)
    save_arrays({"x": np.zeros((2, 5, 2), np.float32), "mask": np.ones((2, 4), bool)}, tmp_path / "s.safetensors")
    with pytest.raises(ExportError, match=r"s\.safetensors: row 0: input 'mask': steps is 4, and 5 in input 'x'"):
        load_samples(tmp_path / "s.safetensors", spec)


def test_rows_of_differing_lengths_are_read_from_json_in_groups_the_largest_first(tmp_path):
    rows = [[[row, step] for step in range(steps)] for row, steps in enumerate([3, 5, 4, 5])]
    (tmp_path / "s.json").write_text(json.dumps(rows))
    made = Source(nn.Linear(1, 1), free(x=STEPS), load_samples(tmp_path / "s.json", free(x=STEPS)))
    assert [group["x"][:, 0, 0].tolist() for group in made.batches()] == [[1, 3], [0], [2]]
    np.testing.assert_array_equal(made.arrays()["x"], [rows[1], rows[3]])


def test_rows_of_differing_lengths_alone_are_refused(tmp_path):
    (tmp_path / "s.json").write_text(json.dumps([[[1, 2]] * steps for steps in (3, 4, 5)]))
    samples = load_samples(tmp_path / "s.json", free(x=STEPS))
    with pytest.raises(ExportError, match="samples: 3 rows, and no two are of one shape: give two of equal lengths"):
        Source(nn.Linear(1, 1), free(x=STEPS), samples).arrays()
    assert batches(free(x={**STEPS, "pad": 0}), samples) == [{"x": (3, 5, 2)}]


def test_texts_are_those_of_the_rows_that_are_taken():
    spec = TEXT.model_copy(update={"inputs": {**TEXT.inputs, "x": free(x=STEPS).inputs["x"]}})
    numbers = [np.full((steps, 2), row, np.float32) for row, steps in enumerate([3, 5, 5])]
    made = Source(nn.Linear(1, 1), spec, {"text": TEXTS, "x": numbers}, tokenizers=tokenizers())
    assert made.texts == {"text": TEXTS[1:]}
    assert made.arrays()["x"][:, 0, 0].tolist() == [1, 2]
    np.testing.assert_array_equal(made.arrays()["attention_mask"].sum(axis=1), [2, 7])

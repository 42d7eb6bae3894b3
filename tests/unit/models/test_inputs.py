"""Free dimensions of tensors: their bounds, what fills them up, and what several inputs share."""

from __future__ import annotations

from typing import Any

import pytest

from polyhead.models.inputs import LENGTHS, dimensions
from polyhead.models.spec import ModelSpec, SpecError

REGRESSION = {"kind": "regression"}
MASK = {"kind": "segmentation", "labels": ["no", "yes"]}
TEXT = {"kind": "text", "tokenizer": "t.json"}
IMAGE = {"kind": "image", "size": [4, 4]}


def tensor(*shape: int | str, **more: Any) -> dict[str, Any]:
    return {"kind": "tensor", "shape": list(shape), **more}


def parsed(head: dict[str, Any] = REGRESSION, **inputs: Any) -> ModelSpec:
    return ModelSpec.parse({"name": "m", "version": "1", "inputs": inputs, "heads": {"y": head}})


def fault_of(head: dict[str, Any] = REGRESSION, **inputs: Any) -> str:
    with pytest.raises(SpecError) as caught:
        parsed(head, **inputs)
    return str(caught.value).removeprefix("spec: ")


def test_lengths_are_read_and_written(tmp_path):
    spec = parsed(x=tensor("steps", 6, lengths={"steps": [2, 512]}))
    assert spec.inputs["x"].lengths == {"steps": (2, 512)}
    spec.dump(tmp_path / "spec.yaml")
    assert ModelSpec.load(tmp_path / "spec.yaml") == spec
    assert "lengths" not in parsed(x=tensor("steps")).model_dump(exclude_defaults=True)["inputs"]["x"]


def test_every_free_dimension_is_bounded():
    spec = parsed(x=tensor("steps", 6, lengths={"steps": [2, 512]}), y_=tensor(3, "height", "width"), z=tensor(4))
    assert dimensions(spec.inputs) == {"steps": (2, 512), "height": LENGTHS, "width": LENGTHS}


def test_a_length_that_one_input_bounds_is_bounded_in_the_others():
    spec = parsed(a=tensor("n"), b=tensor("n", "n", lengths={"n": [1, 9]}), c=tensor("n", lengths={"n": [1, 9]}))
    assert dimensions(spec.inputs) == {"n": (1, 9)}


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        (
            {"step": [1, 4]},
            "inputs.x: lengths has 'step', which is no free dimension of shape (free: steps): check the ",
        ),
        ({"steps": [4, 4]}, "inputs.x: lengths of 'steps' go from 4 to 4: give the least, then a greater one; "),
        ({"steps": [5, 4]}, "inputs.x: lengths of 'steps' go from 5 to 4: give the least, then a greater one; "),
        ({"steps": [0, 4]}, "inputs.x.lengths.steps.0: Input should be greater than or equal to 1, got 0"),
        ({"steps": [1, 70000]}, "inputs.x.lengths.steps.1: Input should be less than or equal to 65536, got 70000"),
        ({"steps": 4}, "inputs.x.lengths.steps: Input should be a valid tuple, got 4"),
        ({"steps": [1, 2, 3]}, "inputs.x.lengths.steps: Tuple should have at most 2 items"),
        ({"steps": ["1", 2]}, "inputs.x.lengths.steps.0: Input should be a valid integer, got '1'"),
    ],
)
def test_lengths_that_say_nothing_are_refused(lengths: Any, message: str):
    assert fault_of(x=tensor("steps", 6, lengths=lengths)).startswith(message)


def test_lengths_of_a_fixed_shape_are_refused():
    assert "no free dimension of shape (free: none)" in fault_of(x=tensor(6, lengths={"steps": [1, 4]}))


@pytest.mark.parametrize(
    ("dtype", "pad"),
    [
        ("float32", -0.5),
        ("float16", 65504),
        ("float64", 1e300),
        ("int8", -128),
        ("uint8", 255),
        ("int32", 2**31 - 1),
        ("int64", -(2**63)),
        ("bool", 1),
    ],
)
def test_a_pad_that_the_dtype_holds_is_taken(dtype: str, pad: float):
    assert parsed(x=tensor("n", dtype=dtype, pad=pad)).inputs["x"].pad == pad


@pytest.mark.parametrize(
    ("dtype", "pad", "shown"),
    [
        ("float16", 65505, "65505"),
        ("float32", 1e39, "1e+39"),
        ("int8", 128, "128"),
        ("int8", 0.5, "0.5"),
        ("uint8", -1, "-1"),
        ("int64", 2**63, "9.22337e+18"),
        ("bool", 2, "2"),
    ],
)
def test_a_pad_that_the_dtype_does_not_hold_is_refused(dtype: str, pad: float, shown: str):
    message = f"inputs.x: pad {shown} is no {dtype}: give a number that the dtype holds"
    assert fault_of(x=tensor("n", dtype=dtype, pad=pad)) == message


def test_a_pad_without_a_free_dimension_is_refused():
    assert fault_of(x=tensor(3, pad=0)) == (
        "inputs.x: pad 0 has nothing to fill, for shape has no free dimension: leave it out"
    )


def test_inputs_that_share_a_dimension_agree_on_its_lengths():
    one, other = tensor("n", lengths={"n": [1, 9]}), tensor(2, "n", lengths={"n": [1, 8]})
    assert "dimension 'n' has lengths [1, 9] in input 'a' and [1, 8] in 'b': they share its length" in fault_of(
        a=one, b=other
    )


@pytest.mark.parametrize("swap", [False, True])
def test_inputs_that_share_a_dimension_are_both_filled_up_or_neither(swap: bool):
    filled, left = tensor("n", pad=0), tensor("n", 2)
    inputs = {"b": left, "a": filled} if swap else {"a": filled, "b": left}
    assert "dimension 'n' is filled up in input 'a', and not in 'b': they share its length, so give both a pad" in (
        fault_of(**inputs)
    )
    assert parsed(a=filled, b=tensor("n", 2, pad=-1), c=tensor("m"))


@pytest.mark.parametrize(
    ("dimension", "counts"), [("batch", "the rows of a batch"), ("text_tokens", "the tokens of a text")]
)
def test_a_dimension_that_means_something_else_is_refused(dimension: str, counts: str):
    message = f"input 'x' has a dimension '{dimension}', which counts {counts}: rename it"
    assert message in fault_of(x=tensor(dimension), text=TEXT)


def test_a_mask_of_a_tensor_that_is_filled_up_is_refused():
    message = "head 'y' labels every pixel and cannot tell those that pad fills up in input 'x': leave pad out"
    assert message in fault_of(MASK, x=tensor(3, "height", "width", pad=0))
    parsed(MASK, x=tensor(3, "height", "width"))
    parsed(MASK, photo=IMAGE, x=tensor("steps", 6, pad=0))  # the mask is the photo's

from __future__ import annotations

import pytest

from polyhead.models.spec import ModelSpec
from polyhead.serving.errors import InvalidInstance, UnknownHead, UnknownOption
from polyhead.serving.request import Options, choose_heads, parse_options

SPEC = ModelSpec.parse(
    {
        "name": "house",
        "version": "1.0",
        "inputs": {"x": {"kind": "tensor", "shape": [2]}},
        "heads": {
            "warm": {"kind": "regression"},
            "alarm": {"kind": "regression"},
            "mood": {"kind": "regression"},
        },
    }
)


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (None, ("warm", "alarm", "mood")),
        (["mood"], ("mood",)),
        (["mood", "warm"], ("mood", "warm")),
        (["alarm", "mood", "warm"], ("alarm", "mood", "warm")),
        (["mood", "warm", "mood", "mood"], ("mood", "warm")),
    ],
)
def test_heads_are_chosen_in_the_order_wanted_each_once(wanted: object, chosen: tuple[str, ...]):
    assert choose_heads(SPEC, wanted) == chosen


@pytest.mark.parametrize(
    "wanted", ["mood", [], {}, {"mood": True}, 3, True, "", ["mood", 1], [None], [["mood"]], ("mood",)]
)
def test_heads_that_are_no_list_of_names_are_refused(wanted: object):
    with pytest.raises(InvalidInstance) as caught:
        choose_heads(SPEC, wanted)
    assert caught.value.message == '"heads" must be a list of head names (heads: warm, alarm, mood)'
    assert caught.value.loc == ("heads",)
    assert caught.value.type == "invalid_instance"


@pytest.mark.parametrize(("wanted", "index"), [(["moood"], 0), (["mood", "warm", "moood", "other"], 2)])
def test_an_unknown_head_is_named_with_its_place_and_the_heads_there_are(wanted: list[str], index: int):
    with pytest.raises(UnknownHead) as caught:
        choose_heads(SPEC, wanted)
    assert caught.value.message == (
        "head 'moood' is not in model house 1.0 (heads: warm, alarm, mood): check \"heads\""
    )
    assert caught.value.loc == ("heads", index)


@pytest.mark.parametrize("name", ["Mood", "mood ", "", "mood\0", "polyhead_packed"])
def test_head_names_are_compared_exactly(name: str):
    with pytest.raises(UnknownHead):
        choose_heads(SPEC, [name])


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (None, Options(top_k=0, scores=False, raw=False)),
        ({}, Options()),
        ({"top_k": 1}, Options(top_k=1)),
        ({"top_k": 2**63}, Options(top_k=2**63)),
        ({"scores": True}, Options(scores=True)),
        ({"raw": True, "scores": False, "top_k": 3}, Options(top_k=3, raw=True)),
        ({"mask": "png"}, Options(mask="png")),
        ({"mask": "runs", "raw": True}, Options(raw=True)),
    ],
)
def test_options_are_read(values: object, options: Options):
    assert parse_options(values) == options


@pytest.mark.parametrize(
    ("values", "loc", "message"),
    [
        ([], ("options",), '"options" must be an object with top_k, scores, raw, mask'),
        ("raw", ("options",), '"options" must be an object with top_k, scores, raw, mask'),
        (False, ("options",), '"options" must be an object with top_k, scores, raw, mask'),
        ({"top_k": 0}, ("options", "top_k"), "top_k must be a whole number of 1 or more, got 0"),
        ({"top_k": -1}, ("options", "top_k"), "top_k must be a whole number of 1 or more, got -1"),
        ({"top_k": 2.0}, ("options", "top_k"), "top_k must be a whole number of 1 or more, got 2.0"),
        ({"top_k": True}, ("options", "top_k"), "top_k must be a whole number of 1 or more, got True"),
        ({"top_k": "3"}, ("options", "top_k"), "top_k must be a whole number of 1 or more, got '3'"),
        ({"top_k": None}, ("options", "top_k"), "top_k must be a whole number of 1 or more, got None"),
        ({"scores": 1}, ("options", "scores"), "scores must be true or false, got 1"),
        ({"scores": True, "raw": "yes"}, ("options", "raw"), "raw must be true or false, got 'yes'"),
        ({"raw": None}, ("options", "raw"), "raw must be true or false, got None"),
        ({"mask": "PNG"}, ("options", "mask"), 'mask must be "runs" or "png", got \'PNG\''),
        ({"mask": True}, ("options", "mask"), 'mask must be "runs" or "png", got True'),
        ({"mask": ["png"]}, ("options", "mask"), 'mask must be "runs" or "png", got [\'png\']'),
    ],
)
def test_options_of_the_wrong_type_are_refused(values: object, loc: tuple[str, ...], message: str):
    with pytest.raises(InvalidInstance) as caught:
        parse_options(values)
    assert (caught.value.loc, caught.value.message) == (loc, message)


def test_an_unknown_option_is_named_with_the_options_there_are():
    with pytest.raises(UnknownOption) as caught:
        parse_options({"scores": True, "topk": 3})
    assert caught.value.message == "option 'topk' is not known (options: top_k, scores, raw, mask)"
    assert caught.value.loc == ("options", "topk")


def test_a_long_value_is_quoted_in_part():
    with pytest.raises(InvalidInstance) as caught:
        parse_options({"top_k": "9" * 10_000})
    assert len(caught.value.message) < 120

"""Texts over the wire: whatever stands in one batch beside them, their answers are their own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import pytest
import torch

from polyhead.serving.engine import Engine
from polyhead.serving.golden import Array
from polyhead.serving.request import HttpRequest, HttpResponse
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings
from tests.alike import assert_alike
from tests.unit.serving.wordpiece import VOCABULARY

TEXTS = [
    "turn on the kitchen light",
    "",
    "Zoë’s café, 21.5°C 👩‍👩‍👧",
    "on",
    "hello there my friend in the living room off the light",
    "灯" * 22,
    "   ",
    "bathroom",
]


@pytest.fixture(scope="module")
def of_reader(reader) -> Responder:
    return Responder(reader.engine(), Settings())


@pytest.fixture(scope="module")
def of_lexicon(lexicon) -> Responder:
    return Responder(lexicon.engine(), Settings())


@pytest.fixture(scope="module")
def of_pair(pair) -> Responder:
    return Responder(pair.engine(), Settings())


def _json(instances: Sequence[Any], heads: Sequence[str] = (), **options: Any) -> HttpRequest:
    body: dict[str, Any] = {"instances": list(instances), "options": options}
    return HttpRequest(orjson.dumps(body | ({"heads": list(heads)} if heads else {})), "application/json")


def _plain(text: str | bytes, heads: str = "") -> HttpRequest:
    headers = {"x-polyhead-heads": heads} if heads else {}
    return HttpRequest(text if isinstance(text, bytes) else text.encode(), "text/plain", headers)


def _rows(response: HttpResponse) -> list[dict[str, Any]]:
    assert response.status == 200, response.body
    body = orjson.loads(response.body)
    return list(body["predictions"]) if "predictions" in body else [body]


def _error(response: HttpResponse) -> tuple[int, str, list[Any], str]:
    body = orjson.loads(response.body)
    return response.status, body["type"], body["loc"], body["error"]


def _assert_alike(one: Any, other: Any) -> None:
    """The same answer to tolerance: another length of padding is another order of sums."""
    assert_alike(one, other, rtol=1e-3, atol=2e-5)


# --- one batch ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runtime", ["onnxruntime", "torchscript"])
def test_a_text_alone_answers_as_among_others(reader, runtime: str):
    responder = Responder(reader.engine(runtime), Settings())
    alone = [_rows(responder.respond([_json([text], raw=True, scores=True)])[0])[0] for text in TEXTS]
    before = responder.engine.forwards
    together = responder.respond(
        [_json(TEXTS[:3], raw=True, scores=True), *(_json([t], raw=True, scores=True) for t in TEXTS[3:])]
    )
    assert responder.engine.forwards == before + 1
    _assert_alike([row for response in together for row in _rows(response)], alone)


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 100])
def test_many_texts_in_several_passes_keep_their_order(reader, lexicon, limit: int):
    texts = [text for text in TEXTS for _ in range(2)]
    requests = [_json(texts[:5]), _json(texts[5:6]), _json(texts[6:])]
    for example in (reader, lexicon):
        whole, cut = (Responder(example.engine(), Settings(max_rows_per_forward=n)) for n in (1024, limit))
        one, other = ([_rows(r) for r in responder.respond(requests)] for responder in (whole, cut))
        _assert_alike(other, one)
        assert cut.engine.forwards == -(-len(texts) // limit)


def test_raw_of_a_text_is_of_its_own_tokens_whatever_the_batch(of_lexicon: Responder):
    short, long = of_lexicon.respond([_json(["on"], ["slots"], raw=True), _json([TEXTS[4]], ["slots"], raw=True)])
    assert np.asarray(_rows(short)[0]["slots"]["raw"]).shape == (3, 5)
    assert np.asarray(_rows(long)[0]["slots"]["raw"]).shape == (13, 5)


def test_a_number_that_depends_on_the_length_is_the_texts_own(of_lexicon: Responder):
    answers = _rows(of_lexicon.respond([_json(TEXTS, ["words"])])[0])
    assert [answer["words"]["value"] for answer in answers] == [7, 2, 14, 3, 13, 24, 2, 4]


def test_requests_that_want_no_words_share_a_batch_with_those_that_do(of_lexicon: Responder):
    requests = [_json(["the café"], ["words"]), _json(["the café"], ["slots"]), _json(["the café"], ["part", "words"])]
    number, slots, part = (_rows(r)[0] for r in of_lexicon.respond(requests))
    assert number["words"]["value"] == part["words"]["value"] == 4
    assert [e["text"] for e in slots["slots"]["entities"]] == ["café"]
    assert [e["text"] for e in part["part"]["entities"]] == ["the", "café"]


# --- bodies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_answers_the_same_whatever_carried_it(of_lexicon: Responder, text: str):
    plain, bare, named = of_lexicon.respond([_plain(text), _json([text]), _json([{"text": text}])])
    assert _rows(plain) == _rows(bare) == _rows(named)
    assert list(orjson.loads(plain.body)) == ["slots", "part", "who", "words"]


def test_a_text_body_picks_heads_by_its_header(of_lexicon: Responder):
    (response,) = of_lexicon.respond([_plain("the café", "words,slots")])
    assert list(orjson.loads(response.body)) == ["words", "slots"]
    (response,) = of_lexicon.respond([_plain("the café", "nose")])
    assert _error(response)[:3] == (422, "unknown_head", ["heads", 0])


def test_an_empty_body_is_an_empty_text(of_lexicon: Responder):
    (response,) = of_lexicon.respond([_plain("")])
    assert _rows(response)[0]["slots"] == {"entities": []}


LONG = "on " * 23  # and two special tokens: 25
TOO_LONG = "input 'text': the text has 25 tokens, the model takes 24: shorten it, or set truncate: true in the spec"
BAD = {
    "no UTF-8": (_plain(b"caf\xe9"), (400, "malformed_body", [], "input 'text': the body is not UTF-8 (byte 3)")),
    "too long": (_json(["on", LONG]), (422, "invalid_instance", ["instances", 1, "text"], TOO_LONG)),
    "too long alone": (_plain(LONG), (422, "invalid_instance", [], TOO_LONG)),
    "a number": (
        _json([{"text": 3}]),
        (422, "invalid_instance", ["instances", 0, "text"], "input 'text': wanted a string, got 3"),
    ),
    "null": (
        _json(["on", None]),
        (422, "invalid_instance", ["instances", 1, "text"], "input 'text': wanted a string, got null"),
    ),
    "another input": (
        _json([{"txt": "on"}]),
        (422, "invalid_instance", ["instances", 0, "txt"], "input 'txt' is not in model lexicon (inputs: text)"),
    ),
    "half a character": (
        HttpRequest(b'{"instances": ["\\ud800"]}', "application/json"),
        (400, "malformed_body", [], ""),
    ),
    "an image": (HttpRequest(b"\x89PNG", "image/png"), (415, "unsupported_media_type", [], "")),
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_bad_text_in_any_slot_fails_alone(of_lexicon: Responder, name: str):
    bad, (status, kind, loc, message) = BAD[name]
    batch = [_plain(text) if slot % 2 else _json([text], ["slots", "who"]) for slot, text in enumerate(TEXTS)]
    for slot in range(len(batch)):
        without = of_lexicon.respond([*batch[:slot], *batch[slot + 1 :]])
        responses = of_lexicon.respond([*batch[:slot], bad, *batch[slot + 1 :]])
        refused = _error(responses.pop(slot))
        assert refused[:3] == (status, kind, loc)
        assert refused[3] == message or not message
        assert [r.body for r in responses] == [r.body for r in without]


def test_the_greatest_length_is_taken_and_one_more_is_not(of_reader: Responder):
    fits, over = of_reader.respond([_plain("on " * 22), _plain("on " * 23)])
    assert (fits.status, over.status) == (200, 422)


def test_a_name_of_a_special_token_is_text(of_lexicon: Responder):
    (plain, special) = of_lexicon.respond([_json(["on ( pad ) off"], ["words"]), _json(["on [PAD] off"], ["words"])])
    assert _rows(plain)[0]["words"] == _rows(special)[0]["words"]


MEGABYTES = {"a word": "a" * 1_000_000, "words": "on " * 333_000, "stops": ",." * 500_000, "spaces": " " * 1_000_000}


@pytest.mark.parametrize("text", MEGABYTES.values(), ids=MEGABYTES)
def test_a_megabyte_is_refused_at_once_and_its_neighbour_answered(of_lexicon: Responder, text: str):
    good = _plain("the café", "slots")
    (expected,) = of_lexicon.respond([good])
    started = time.perf_counter()
    one, two, three = of_lexicon.respond([good, _plain(text), _json(["on", text])])
    assert time.perf_counter() - started < 0.5  # tokenising takes up to a second
    assert one == expected
    message = (
        f"input 'text': the text has {len(text)} characters, the model takes 24 tokens: "
        "shorten it, or set truncate: true in the spec"
    )
    assert _error(two) == (422, "invalid_instance", [], message)
    assert _error(three) == (422, "invalid_instance", ["instances", 1, "text"], message)


# --- several inputs -------------------------------------------------------------------------------------------------


def _row(question: str, passage: str, weight: tuple[float, float] = (1.0, -2.0)) -> dict[str, Any]:
    return {"question": question, "my-passage": passage, "weight": list(weight)}


def test_two_texts_and_a_tensor_answer_as_the_network(pair, of_pair: Responder):
    rows = [_row("turn on", "the kitchen light"), _row("", "off", (0.5, 0.5)), _row("hello there my friend", "")]
    together = of_pair.respond([_json(rows[:2], raw=True), _json(rows[2:], raw=True)])
    answers = [answer for response in together for answer in _rows(response)]
    for row, answer in zip(rows, answers, strict=True):
        expected = _eager(pair, row)
        np.testing.assert_allclose(answer["match"]["raw"], expected["match"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(answer["slots"]["raw"], expected["slots"], rtol=1e-4, atol=1e-5)
        for entity in answer["slots"]["entities"]:
            assert row["my-passage"][entity["start"] : entity["end"]] == entity["text"]


def _eager(pair, row: dict[str, Any]) -> dict[str, Array]:
    """One row through the network itself, its texts encoded by hand: no padding."""

    def ids(text: str) -> torch.Tensor:
        tokens = ["[CLS]", *text.split(), "[SEP]"]
        return torch.tensor([[VOCABULARY.index(token) for token in tokens]])

    asked, said = ids(row["question"]), ids(row["my-passage"])
    with torch.inference_mode():
        out = pair.network(asked, torch.ones_like(asked), torch.tensor([row["weight"]]), said, torch.ones_like(said))
    return {name: tensor[0].numpy() for name, tensor in out.items()}


def test_each_text_has_its_own_length(of_pair: Responder):
    """The question may have 24 tokens; the passage has 16, and is cut."""
    long = "on " * 40
    fits, over, cut = of_pair.respond(
        [_json([_row("on " * 22, "on")]), _json([_row("on " * 23, "on")]), _json([_row("on", long)], raw=True)]
    )
    assert fits.status == 200
    assert _error(over)[:3] == (422, "invalid_instance", ["instances", 0, "question"])
    assert np.asarray(_rows(cut)[0]["slots"]["raw"]).shape == (16, 5)


def test_what_is_cut_off_changes_nothing(of_pair: Responder):
    kept = "the kitchen light " * 4 + "on off "  # 14 words and two special tokens
    whole, *cut = of_pair.respond([_json([_row("on", kept + more)]) for more in ("", "kitchen", "灯" * 2_000_000)])
    assert [response.body for response in cut] == [whole.body] * 2


def test_an_input_that_is_missing_is_named(of_pair: Responder):
    missing, plain = of_pair.respond([_json([{"question": "on", "weight": [1, 2]}]), _plain("on")])
    place = ["instances", 0, "my-passage"]
    assert _error(missing) == (422, "invalid_instance", place, "input 'my-passage' is missing")
    assert _error(plain)[0] == 415
    assert _error(plain)[3].endswith("send application/json")


# --- only what is wanted --------------------------------------------------------------------------------------------


class _Recording:
    """The real runtime, and what it was asked for."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self.name, self.device = runtime.name, runtime.device
        self.asked: list[list[str]] = []

    def run(self, inputs: Sequence[Array], outputs: Sequence[str]) -> list[Array]:
        self.asked.append(list(outputs))
        return list(self._runtime.run(inputs, outputs))


def _recorded(example) -> tuple[Responder, list[list[str]]]:
    engine = example.engine()
    recording = _Recording(engine.runtime)
    return Responder(Engine(engine.bundle, engine.graph, recording), Settings()), recording.asked


def test_outputs_per_token_are_copied_only_where_one_wants_them(lexicon):
    responder, asked = _recorded(lexicon)
    responder.respond([_json(["on"], ["words"]), _json(["on"], ["who"])])
    responder.respond([_json(["on"], ["words"]), _json(["on"], ["part", "words"])])
    responder.respond([_json(["on"], ["slots", "part"])])
    assert asked == [["polyhead_packed"], ["polyhead_packed", "part"], ["polyhead_packed", "slots", "part"]]


def test_outputs_per_pixel_are_copied_only_where_one_wants_them(field):
    responder, asked = _recorded(field)
    pixels = np.zeros((6, 10, 3), np.uint8).tolist()
    responder.respond([_json([pixels], ["wet"])])
    responder.respond([_json([pixels], ["wet"]), _json([pixels], ["ground"])])
    assert asked == [["polyhead_packed"], ["polyhead_packed", "ground"]]


# Outputs of one value per token


def test_requests_whose_outputs_are_too_large_together_are_answered_in_turn(reader):
    together, apart = Responder(reader.engine(), Settings()), Responder(reader.engine(), Settings(max_dense_bytes=600))
    requests = [_plain(text) for text in TEXTS]
    for one, other in zip(together.respond(requests), apart.respond(requests), strict=True):
        _assert_alike(_rows(one), _rows(other))
    assert together.engine.forwards == 1
    assert 1 < apart.engine.forwards <= len(TEXTS)


def test_a_request_whose_outputs_are_too_large_alone_is_refused_alone(reader):
    responder = Responder(reader.engine(), Settings(max_dense_bytes=600))
    large, small = responder.respond([_json(["on"] * 400), _plain("on")])
    status, kind, _, message = _error(large)
    assert (status, kind) == (413, "payload_too_large")
    assert "allowed are 600 a request: send fewer rows" in message
    assert small.status == 200
    without = [name for name, head in responder.spec.heads.items() if head.kind != "tokens"]
    (answered,) = responder.respond([_json(["on"] * 400, without)])
    assert len(_rows(answered)) == 400

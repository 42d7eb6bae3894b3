from __future__ import annotations

import orjson
import pytest

from polyhead.serving import errors
from polyhead.serving.errors import InputNotFinite, PolyheadError, RequestError
from polyhead.serving.protocol.json import encode_error


def _family(base: type[RequestError]) -> list[type[RequestError]]:
    return [base, *(found for child in base.__subclasses__() for found in _family(child))]


FAMILY = [kind for kind in _family(RequestError) if kind.__module__ == errors.__name__]

STATUS = {
    "RequestError": 400,
    "MalformedBody": 400,
    "PayloadTooLarge": 413,
    "NotAcceptable": 406,
    "UnsupportedMediaType": 415,
    "InvalidInstance": 422,
    "InputNotFinite": 422,
    "UnknownHead": 422,
    "UnknownOption": 422,
    "AnswerNotFinite": 422,
    "InternalError": 500,
}


def test_every_failure_of_a_request_has_its_status():
    assert {kind.__name__: kind.status for kind in FAMILY} == STATUS


def test_every_failure_of_a_request_has_a_type_of_its_own():
    types = [kind.type for kind in FAMILY]
    assert len(set(types)) == len(types)


@pytest.mark.parametrize("kind", FAMILY, ids=lambda kind: kind.__name__)
def test_phrase_is_ascii_and_fits_a_status_line(kind: type[RequestError]):
    assert kind.phrase.isascii()
    assert kind.phrase.isprintable()
    assert kind.phrase.strip() == kind.phrase != ""


@pytest.mark.parametrize("kind", FAMILY, ids=lambda kind: kind.__name__)
def test_type_is_a_word_that_a_program_can_compare(kind: type[RequestError]):
    assert kind.type.isidentifier()
    assert kind.type == kind.type.lower()


def test_failures_of_one_status_share_its_phrase():
    phrases: dict[int, set[str]] = {}
    for kind in FAMILY:
        phrases.setdefault(kind.status, set()).add(kind.phrase)
    assert all(len(found) == 1 for found in phrases.values()), phrases


def test_body_holds_message_type_and_place():
    error = InputNotFinite("input 'x': 1 of 3 values are NaN or infinite", ("instances", 3, "x"))
    assert error.body() == {
        "error": "input 'x': 1 of 3 values are NaN or infinite",
        "type": "input_not_finite",
        "loc": ["instances", 3, "x"],
    }


def test_body_without_a_place_has_an_empty_one():
    assert RequestError("no").body() == {"error": "no", "type": "bad_request", "loc": []}


@pytest.mark.parametrize("kind", FAMILY, ids=lambda kind: kind.__name__)
def test_body_survives_json(kind: type[RequestError]):
    error = kind("größer als 1", ("instances", 0))
    assert orjson.loads(encode_error(error)) == {
        "error": "größer als 1",
        "type": kind.type,
        "loc": ["instances", 0],
    }


def test_message_is_the_text_of_the_exception():
    assert str(RequestError("what, got, fix", ("heads",))) == "what, got, fix"


def test_every_failure_is_exported_and_ours():
    named = {value for name, value in vars(errors).items() if name in errors.__all__ and isinstance(value, type)}
    assert set(FAMILY) <= named
    assert all(issubclass(kind, PolyheadError) for kind in named)

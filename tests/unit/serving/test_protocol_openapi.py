from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jsonschema
import numpy as np
import orjson
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from polyhead.models.spec import ModelSpec
from polyhead.serving.protocol import openapi
from polyhead.serving.request import HttpRequest, HttpResponse
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = ("mlp", "picture", "pair", "field", "lexicon")


def document(spec: ModelSpec) -> dict[str, Any]:
    return orjson.loads(orjson.dumps(openapi.document(spec, Settings())))


def validator(found: Mapping[str, Any], name: str) -> jsonschema.Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": found["components"]}
    return jsonschema.Draft202012Validator(schema)


def ask(responder: Responder, content: Any, headers: Mapping[str, str] | None = None) -> HttpResponse:
    (response,) = responder.respond([HttpRequest(orjson.dumps(content), "application/json", headers or {})])
    return response


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_in_the_document_are_answered_as_it_says(name, request):
    example = request.getfixturevalue(name)
    found = document(example.bundle.spec)
    for schema in found["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    responder = Responder(example.engine(), Settings())
    (body,) = found["components"]["schemas"]["Request"]["examples"]
    validator(found, "Request").validate(body)
    for options in ({}, {"top_k": 2, "scores": True, "raw": True}, {"mask": "png"}):
        validator(found, "Options").validate(options)
        response = ask(responder, body | {"options": options})
        assert response.status == 200, response.body
        validator(found, "Predictions").validate(orjson.loads(response.body))
    (body,) = found["components"]["schemas"]["InferRequest"]["examples"]
    validator(found, "InferRequest").validate(body)
    response = ask(responder, body | {"id": "a"})
    assert response.status == 200, response.body
    validator(found, "InferResponse").validate(orjson.loads(response.body))


def test_the_document_is_in_the_bundle_and_served(mlp):
    kept = orjson.loads(mlp.bundle.read("openapi.json"))
    (response,) = Responder(mlp.engine(), Settings()).respond([HttpRequest(b"", "", {"url_path": "openapi.json"})])
    assert (response.status, response.content_type) == (200, "application/json")
    assert orjson.loads(response.body) == kept == document(mlp.bundle.spec)
    assert kept["info"]["version"] == "1.0"


def test_bounds_of_this_server_stand_in_what_it_serves(mlp):
    responder = Responder(mlp.engine(), Settings(max_rows=7))
    (response,) = responder.respond([HttpRequest(b"", "", {"url_path": "openapi.json"})])
    request = orjson.loads(response.body)["components"]["schemas"]["Request"]
    assert request["properties"]["instances"]["maxItems"] == 7


@pytest.mark.parametrize(
    ("body", "valid"),
    [
        ({"instances": [[0.5] * 6]}, True),
        ({"instances": [{"x": [0.5] * 6}], "heads": ["color"]}, True),
        ({"instances": [[0.5] * 5]}, False),
        ({"instances": [["a"] * 6]}, False),
        ({"instances": [[1e39] * 6]}, False),
        ({"instances": [{"y": [0.5] * 6}]}, False),
        ({"instances": []}, False),
        ({"instances": [[0.5] * 6], "heads": []}, False),
        ({"instances": [[0.5] * 6], "heads": ["nose"]}, False),
        ({"instances": [[0.5] * 6], "options": {"top_k": 0}}, False),
        ({"instances": [[0.5] * 6], "options": {"top": 1}}, False),
        ({"instances": [[0.5] * 6], "option": {}}, False),
        ({}, False),
    ],
)
def test_the_schema_of_a_request_is_what_the_server_takes(mlp, body, valid):
    responder = Responder(mlp.engine(), Settings())
    assert validator(document(mlp.bundle.spec), "Request").is_valid(body) is valid
    assert (ask(responder, body).status == 200) is valid


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_body_that_is_read_stands_in_the_document(name, request):
    spec = request.getfixturevalue(name).bundle.spec
    responder = Responder(request.getfixturevalue(name).engine(), Settings())
    (response,) = responder.respond([HttpRequest(b"", "text/csv")])
    told = orjson.loads(response.body)["error"].partition("one of ")[2].split(", ")
    found = document(spec)["paths"][f"/predictions/{spec.name}"]["post"]
    assert list(found["requestBody"]["content"]) == told
    assert {"400", "406", "413", "415", "422", "500", "503"} <= set(found["responses"])


# --- what schemathesis makes of the document ------------------------------------------------------------------------


def front_end(responders: Mapping[str, Responder]) -> Callable[..., Iterable[bytes]]:
    """What TorchServe does, as far as requests know: the model by the path, headers in lower case."""

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        parts = environ["PATH_INFO"].strip("/").split("/")
        name = parts[2].partition(":")[0] if parts[0] in ("v1", "v2") else parts[1]
        headers = {k[5:].lower().replace("_", "-"): v for k, v in environ.items() if k.startswith("HTTP_")}
        headers["url_path"] = "/".join(parts[3:]) if parts[0] == "predictions" else ""
        media_type = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        (response,) = responders[name].respond([HttpRequest(body, media_type, headers)])
        names = [("Content-Type", response.content_type), *response.headers]
        start(f"{response.status} {response.phrase}", names)
        return [response.body]

    return application


@settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("name", ["mlp", "lexicon"])
@given(data=st.data())
def test_what_the_document_allows_is_answered_as_it_says(name, request, strategies, data):
    if name not in strategies:
        example = request.getfixturevalue(name)
        path = f"/predictions/{name}/{example.bundle.spec.version}/openapi.json"
        application = front_end({name: Responder(example.engine(), Settings())})
        found = schemathesis.openapi.from_wsgi(path, application).get_all_operations()
        strategies[name] = st.one_of([operation.ok().as_strategy() for operation in found])
    case = data.draw(strategies[name])
    case.validate_response(case.call(), checks=CHECKS)


@pytest.fixture(scope="module")
def strategies() -> dict[str, st.SearchStrategy[Any]]:
    """By model, requests that schemathesis makes of its document."""
    return {}


@schemathesis.serializer("application/x-npy")
def _array(_context: Any, value: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((2, 6), np.float32))
    return buffer.getvalue() if isinstance(value, dict) else str(value).encode("utf-8", "replace")


@schemathesis.serializer("application/vnd.apache.arrow.stream")
def _stream(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")

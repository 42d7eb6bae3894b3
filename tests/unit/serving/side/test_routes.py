"""What the side server tells of models: paths, shapes of answers, the merged document."""

from __future__ import annotations

import jsonschema
import orjson
import pytest

from polyhead.serving.errors import RequestError
from polyhead.serving.request import HttpRequest
from polyhead.serving.responder import Responder
from polyhead.serving.served import Served
from polyhead.serving.settings import Settings
from polyhead.serving.side.exchange import Asked, MethodNotAllowed, NotFound, Reply, refusal
from polyhead.serving.side.prober import Health, ModelHealth
from polyhead.serving.side.roster import Roster
from polyhead.serving.side.routes import Routes


class Site:
    """A server of two models, which answer as they are told to."""

    settings = Settings(max_rows=7)

    def __init__(self, *examples) -> None:
        self.roster, self.ready, self.running = Roster(), True, True
        for example in examples:
            graph = example.bundle.manifest.graphs[0].id
            self.roster.add(Served(example.bundle, graph, "onnxruntime", "cpu", "it is there", 2, 1))

    def alive(self) -> bool:
        return self.running

    def health(self) -> Health:
        models = [
            ModelHealth(e.name, e.version, self.ready, 0.5, 0.01, None if self.ready else "no answer", 0)
            for e in self.roster.entries()
        ]
        return Health(False, False, tuple(models))

    def metrics(self) -> bytes:
        return b"polyhead_ready 1\n"


@pytest.fixture(scope="module")
def site(mlp, pair, field) -> Site:
    return Site(mlp, pair, field)


def get(site: Site, path: str, console: bool = False, **headers: str) -> Reply:
    try:
        return Routes(site, console, {})(Asked("GET", path, {k.replace("_", "-"): v for k, v in headers.items()}))
    except RequestError as error:
        return refusal(error)


def json(site: Site, path: str):
    return orjson.loads(get(site, path).body)


def test_liveness_and_readiness_are_different_questions(site):
    for live, ready in [(True, True), (True, False), (False, False)]:
        site.running, site.ready = live, ready
        assert get(site, "/v2/health/live").status == (200 if live else 503)
        assert get(site, "/v2/health/ready").status == (200 if ready else 503)
        assert get(site, "/v2/models/mlp/ready").status == (200 if ready else 503)
        assert get(site, "/v2/models/mlp/versions/1.0/ready").status == (200 if ready else 503)
    assert json(site, "/v2/health/ready")["models"][0] == {
        **{"name": "mlp", "version": "1.0", "ready": False, "seconds_since_answer": 0.5, "fault": "no answer"},
    }
    site.running = site.ready = True


def test_metadata_names_every_tensor_with_the_shape_that_an_answer_has(site, mlp, pair, field):
    for example in (mlp, pair, field):
        spec = example.bundle.spec
        found = json(site, f"/v2/models/{spec.name}")
        assert (found["name"], found["versions"], found["platform"]) == (spec.name, [spec.version], "onnxruntime_onnx")
        assert [one["name"] for one in found["inputs"]] == list(spec.inputs)
        responder = Responder(example.engine(), Settings())
        body = orjson.dumps(found["polyhead"]["example"])
        (response,) = responder.respond([HttpRequest(body, "application/json")])
        assert response.status == 200, "the example is a request that works"
        request = orjson.dumps({"inputs": [_tensor(example, one) for one in found["inputs"]]})
        (response,) = responder.respond([HttpRequest(request, "application/json", {"url_path": "infer"})])
        answer = orjson.loads(response.body)
        assert response.status == 200, answer
        for told, given in zip(found["outputs"], answer["outputs"], strict=True):
            assert (told["name"], told["datatype"]) == (given["name"], given["datatype"])
            assert len(told["shape"]) == len(given["shape"])
            assert all(size in (-1, real) for size, real in zip(told["shape"], given["shape"], strict=True)), told
    assert json(site, "/v2/models/pair/versions/1.0")["inputs"][0] == {
        **{"name": "question", "datatype": "BYTES", "shape": [-1]},
    }


def _tensor(example, told):
    values = example.samples[told["name"]][:1]
    data = list(values) if isinstance(values, list) else values.reshape(-1).tolist()
    return {**told, "shape": [1, *told["shape"][1:]], "data": data}


def test_models_are_listed_with_their_defaults(site):
    found = json(site, "/v2/models")["models"]
    assert [(m["name"], m["default"], m["state"], m["ready"]) for m in found] == [
        ("mlp", True, "serving", True),
        ("pair", True, "serving", True),
        ("field", True, "serving", True),
    ]
    assert found[0]["heads"]["color"] == "classification"
    assert json(site, "/v2")["name"] == "polyhead"


def test_the_document_of_all_models_is_one_valid_document(site):
    found = json(site, "/openapi.json")
    references = set()
    identifiers = []

    def walk(part):
        if isinstance(part, dict):
            if isinstance(part.get("$ref"), str):
                references.add(part["$ref"])
            if "operationId" in part and "responses" in part:
                identifiers.append(part["operationId"])
            for value in part.values():
                walk(value)
        elif isinstance(part, list):
            for value in part:
                walk(value)

    walk(found)
    assert len(set(identifiers)) == len(identifiers) > 15
    for reference in references:
        kind, name = reference.removeprefix("#/components/").split("/")
        assert name in found["components"][kind], reference
    body = {"instances": [[1, 2, 3, 4, 5, 6]] * 8}
    schema = {"$ref": "#/components/schemas/mlp-1.0-Request", "components": found["components"]}
    with pytest.raises(jsonschema.ValidationError, match="too long"):
        jsonschema.Draft202012Validator(schema).validate(body)
    assert found["paths"]["/predictions/field"]["post"]["tags"] == ["field/1.0"]


def test_the_document_is_made_anew_only_where_something_changed(mlp, pair):
    site = Site(mlp)
    routes = Routes(site, False, {})
    first = routes(Asked("GET", "/openapi.json"))
    assert routes(Asked("GET", "/openapi.json")) is first
    entry = site.roster.add(Served(pair.bundle, pair.bundle.manifest.graphs[0].id, "onnxruntime", "cpu", "", 1, 1))
    assert "/predictions/pair" in orjson.loads(routes(Asked("GET", "/openapi.json")).body)["paths"]
    site.roster.remove(entry)
    assert routes(Asked("GET", "/openapi.json")).body == first.body


@pytest.mark.parametrize(
    "path",
    [
        "/nothing",
        "/v2/models/nobody",
        "/v2/models/mlp/versions/9",
        "/v2/models/mlp/",
        "/v2/models/../health/ready",
        "/",
    ],
)
def test_what_is_not_there_is_404_in_json(site, path):
    reply = get(site, path)
    assert (reply.status, orjson.loads(reply.body)["type"]) == (404, "not_found")


def test_a_question_is_no_order(site):
    with pytest.raises(MethodNotAllowed) as told:
        Routes(site, False, {})(Asked("POST", "/v2/models"))
    assert refusal(told.value).headers["Allow"] == "GET, HEAD"


def test_the_console_is_there_where_it_was_asked_for(site):
    page = get(site, "/", console=True)
    assert (page.status, page.content_type) == (200, "text/html; charset=utf-8")
    again = get(site, "/", console=True, if_none_match=page.headers["ETag"])
    assert (again.status, again.body) == (304, b"")
    assert get(site, "/console/../routes.py", console=True).status == 404
    with pytest.raises(NotFound):
        Routes(site, False, {})(Asked("GET", "/docs"))

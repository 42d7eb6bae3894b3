from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from polyhead.models.spec import ImageInput, ModelSpec
from polyhead.serving.errors import RequestError
from polyhead.serving.protocol import oip
from polyhead.serving.protocol.images import encode_png
from polyhead.serving.request import HttpRequest, HttpResponse, Query
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings

HEADS = {"color": {"kind": "classification", "labels": ["red", "blue"]}, "ink": {"kind": "regression"}}
LENGTH = "inference-header-content-length"


def model(**inputs: dict[str, Any]) -> ModelSpec:
    return ModelSpec.parse({"name": "m", "version": "1.0", "inputs": inputs, "heads": HEADS})


FLAT = model(x={"kind": "tensor", "shape": [3]})
WHOLE = model(x={"kind": "tensor", "shape": [2], "dtype": "int32"})
MARKS = model(x={"kind": "tensor", "shape": [2], "dtype": "bool"})
FREE = model(x={"kind": "tensor", "shape": ["steps", 2], "lengths": {"steps": [1, 4]}})
GRAY = {"kind": "image", "size": [2, 3], "channels": "gray", "resize": "none"}
IMAGE = model(image=GRAY)
PAIR = model(x={"kind": "tensor", "shape": [3]}, text={"kind": "text", "tokenizer": "t.json"})
X = {"name": "x", "datatype": "FP32", "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6.5]}
TEXTS = {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["hello", "Zoë"]}


def decode(body: Any, spec: ModelSpec = FLAT, headers: Mapping[str, str] | None = None, **limits: int) -> Query:
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return oip.decode(HttpRequest(data, "", headers or {}), spec, Settings(**limits))


def refusal(body: Any, spec: ModelSpec = FLAT, **more: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        decode(body, spec, **more)
    return caught.value


def binary(content: Mapping[str, Any], *data: bytes) -> tuple[bytes, dict[str, str]]:
    head = orjson.dumps(content)
    return head + b"".join(data), {LENGTH: str(len(head))}


def packed(*items: bytes) -> bytes:
    return b"".join(len(item).to_bytes(4, "little") + item for item in items)


# --- requests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [[1, 2, 3, 4, 5, 6.5], [[1, 2, 3], [4, 5, 6.5]]], ids=["flat", "nested"])
@pytest.mark.parametrize("datatype", ["FP32", "FP64", "FP16"])
def test_json_numbers_are_flat_or_nested(data, datatype):
    query = decode({"inputs": [X | {"data": data, "datatype": datatype}]})
    assert (query.rows, query.heads, query.single) == (2, ("color", "ink"), False)
    assert query.inputs["x"].dtype == np.float32
    assert query.inputs["x"].tolist() == [[1, 2, 3], [4, 5, 6.5]]


@pytest.mark.parametrize(
    ("datatype", "dtype"),
    [("FP16", "<f2"), ("FP32", "<f4"), ("FP64", "<f8"), ("INT8", "i1"), ("UINT16", "<u2"), ("UINT64", "<u8")],
)
@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_binary_numbers_of_every_datatype_are_read(datatype, dtype, wrap):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    tensor = {"name": "x", "datatype": datatype, "shape": [2, 3], "parameters": {"binary_data_size": array.nbytes}}
    body, headers = binary({"inputs": [tensor]}, array.tobytes())
    found = oip.decode(HttpRequest(wrap(body), "application/octet-stream", headers), FLAT, Settings()).inputs["x"]
    assert found.dtype == np.float32
    assert found.flags.aligned
    np.testing.assert_array_equal(found, array)


def test_binary_tensors_follow_one_another_in_the_order_of_the_inputs():
    x = np.arange(6, dtype="<f4").reshape(2, 3)
    texts = packed(b"hello", "Zoë".encode())
    content = {
        "inputs": [
            {"name": "text", "datatype": "BYTES", "shape": [2, 1], "parameters": {"binary_data_size": len(texts)}},
            {"name": "x", "datatype": "FP32", "shape": [2, 3], "parameters": {"binary_data_size": 24}},
        ]
    }
    body, headers = binary(content, texts, x.tobytes())
    query = decode(body, PAIR, headers)
    assert query.inputs["text"] == ["hello", "Zoë"]
    np.testing.assert_array_equal(query.inputs["x"], x)


@pytest.mark.parametrize("data", [["hello", "Zoë"], [["hello"], ["Zoë"]]])
def test_texts_are_strings(data):
    shape = [2] if isinstance(data[0], str) else [2, 1]
    query = decode({"inputs": [TEXTS | {"data": data, "shape": shape}, X]}, PAIR)
    assert query.inputs["text"] == ["hello", "Zoë"]


def test_images_are_pixels_or_files():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3, 1)
    files = [encode_png(image, ImageInput(**GRAY)) for image in pixels]
    size = len(packed(*files))
    told = {"name": "image", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": size}}
    plain = {"name": "image", "datatype": "UINT8", "shape": [2, 2, 3], "data": pixels.reshape(-1).tolist()}
    coded = {"name": "image", "datatype": "BYTES", "shape": [2], "data": [base64.b64encode(f).decode() for f in files]}
    for body, headers in (binary({"inputs": [told]}, packed(*files)), (plain, {}), (coded, {})):
        found = decode(body if headers else {"inputs": [body]}, IMAGE, headers)
        np.testing.assert_array_equal(found.inputs["image"], pixels)


def test_free_dimensions_are_told_by_the_shape():
    tensor = {"name": "x", "datatype": "FP32", "shape": [2, 3, 2], "data": list(range(12))}
    assert [row.shape for row in decode({"inputs": [tensor]}, FREE).inputs["x"]] == [(3, 2)] * 2
    error = refusal({"inputs": [tensor | {"shape": [1, 6, 2]}]}, FREE)
    assert (error.type, error.loc) == ("invalid_instance", ("instances", 0, "x"))


def changed(**more: Any) -> dict[str, Any]:
    return {"inputs": [X | more]}


SIZED = {"name": "x", "datatype": "FP32", "shape": [2, 3]}
PLACE = ("inputs", 0)


@pytest.mark.parametrize(
    ("body", "status", "kind", "loc"),
    [
        (b"{", 400, "malformed_body", ()),
        (b"[]", 422, "invalid_instance", ("inputs",)),
        ({"inputs": {}}, 422, "invalid_instance", ("inputs",)),
        ({"inputs": []}, 422, "invalid_instance", ("inputs",)),
        ({"inputs": [3]}, 422, "invalid_instance", PLACE),
        ({"inputs": [X], "output": []}, 422, "unknown_option", ("output",)),
        ({"inputs": [X], "parameters": {"priority": 1}}, 422, "unknown_option", ("parameters", "priority")),
        ({"inputs": [X], "parameters": []}, 422, "invalid_instance", ("parameters",)),
        ({"inputs": [X], "parameters": {"binary_data_output": 1}}, 422, "invalid_instance",
         ("parameters", "binary_data_output")),
        ({"inputs": [X], "id": 3}, 422, "invalid_instance", ("id",)),
        ({"inputs": [X, X]}, 422, "invalid_instance", ("inputs", 1, "name")),
        (changed(name="y"), 422, "invalid_instance", (*PLACE, "name")),
        (changed(datatype="FLOAT"), 422, "invalid_instance", (*PLACE, "datatype")),
        (changed(datatype="BYTES"), 422, "invalid_instance", PLACE),
        (changed(datatype=["FP32"]), 422, "invalid_instance", (*PLACE, "datatype")),
        (changed(shape=[2, -1]), 422, "invalid_instance", (*PLACE, "shape")),
        (changed(shape=[2, 3.0]), 422, "invalid_instance", (*PLACE, "shape")),
        (changed(shape=[2**62, 2**62]), 422, "invalid_instance", (*PLACE, "shape")),
        (changed(shape=[0, 3]), 422, "invalid_instance", (*PLACE, "shape")),
        (changed(shape=[]), 422, "invalid_instance", (*PLACE, "shape")),
        (changed(shape=[1] * 99), 422, "invalid_instance", (*PLACE, "shape")),
        (changed(shape=[20_000, 3]), 413, "payload_too_large", (*PLACE, "shape")),
        (changed(shape=[3, 2]), 422, "invalid_instance", PLACE),
        (changed(shape=[2, 4]), 422, "invalid_instance", PLACE),
        (changed(data=[1, 2, 3]), 422, "invalid_instance", PLACE),
        (changed(data=[[1, 2], [3, 4], [5, 6]]), 422, "invalid_instance", PLACE),
        (changed(data=["1"] * 6), 422, "invalid_instance", PLACE),
        (changed(data=[True] * 6), 422, "invalid_instance", PLACE),
        (changed(data=[1e39] * 6), 422, "input_not_finite", PLACE),
        (changed(data=3), 422, "invalid_instance", (*PLACE, "data")),
        (changed(contents={}), 422, "unknown_option", (*PLACE, "contents")),
        (changed(parameters={"shared_memory_region": "a"}), 422, "unknown_option",
         (*PLACE, "parameters", "shared_memory_region")),
        (changed(parameters={"binary_data_size": 24}), 422, "invalid_instance", (*PLACE, "data")),
        ({"inputs": [SIZED | {"parameters": {"binary_data_size": 24}}]}, 400, "malformed_body", PLACE),
        ({"inputs": [SIZED | {"parameters": {"binary_data_size": -1}}]}, 422, "invalid_instance",
         (*PLACE, "parameters", "binary_data_size")),
        ({"inputs": [X], "outputs": {}}, 422, "invalid_instance", ("outputs",)),
        ({"inputs": [X], "outputs": [{"name": "nose"}]}, 422, "unknown_head", ("outputs", 0, "name")),
        ({"inputs": [X], "outputs": [{"name": "ink"}] * 2}, 422, "invalid_instance", ("outputs", 1, "name")),
        ({"inputs": [X], "outputs": [{"name": "ink", "parameters": {"classification": 1}}]}, 422, "invalid_instance",
         ("outputs", 0, "parameters", "classification")),
        ({"inputs": [X], "outputs": [{"name": "color", "parameters": {"classification": 0}}]}, 422, "invalid_instance",
         ("outputs", 0, "parameters")),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_its_place(body, status, kind, loc):
    error = refusal(body)
    assert (error.status, error.type, error.loc) == (status, kind, loc), error.message


@pytest.mark.parametrize(
    ("spec", "tensor", "loc"),
    [
        (WHOLE, {"datatype": "FP32", "shape": [1, 2], "data": [1.5, 2]}, PLACE),
        (WHOLE, {"datatype": "INT64", "shape": [2, 2], "data": [1, 2, 3, 2**40]}, ("instances", 1, "x")),
        (WHOLE, {"datatype": "INT8", "shape": [1, 2], "data": [1, 300]}, PLACE),
        (MARKS, {"datatype": "UINT8", "shape": [1, 2], "data": [1, 0]}, PLACE),
    ],
)
def test_numbers_that_the_dtype_cannot_hold_are_refused(spec, tensor, loc):
    error = refusal({"inputs": [{"name": "x", **tensor}]}, spec)
    assert (error.type, error.loc) == ("invalid_instance", loc)


@pytest.mark.parametrize("length", ["", "x", "-1", "0", "1.5", "٣", "99999", "9" * 5000])
def test_a_length_that_is_none_is_refused(length):
    assert refusal(orjson.dumps({"inputs": [X]}), headers={LENGTH: length}).type == "malformed_body"


@pytest.mark.parametrize("size", [23, 25, 0])
def test_bytes_that_do_not_make_the_shape_are_refused(size):
    body, headers = binary({"inputs": [SIZED | {"parameters": {"binary_data_size": size}}]}, bytes(size))
    assert refusal(body, headers=headers).type == "invalid_instance"
    assert refusal(body + b"\0", headers=headers).type == "malformed_body"


@pytest.mark.parametrize(
    "data", [b"", packed(b"a"), packed(b"a", b"b", b"c"), packed(b"a", b"b")[:-1], b"\xff\xff\xff\xffabc", bytes(3)]
)
def test_strings_behind_wrong_lengths_are_malformed(data):
    told = {"name": "text", "datatype": "BYTES", "shape": [2], "parameters": {"binary_data_size": len(data)}}
    body, headers = binary({"inputs": [told, X]}, data)
    assert refusal(body, PAIR, headers=headers).status in (400, 422)


def test_every_input_has_as_many_rows():
    error = refusal({"inputs": [X, TEXTS | {"shape": [1], "data": ["a"]}]}, PAIR)
    assert (error.type, error.loc) == ("invalid_instance", ("inputs", 1, "shape"))
    assert refusal({"inputs": [X]}, PAIR).message.startswith("input 'text' is missing")


@settings(max_examples=300, deadline=None, database=None)
@given(
    key=st.sampled_from(["name", "datatype", "shape", "data", "parameters"]),
    value=st.recursive(
        st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
        max_leaves=6,
    ),
    cut=st.integers(0, 5),
)
def test_any_json_is_read_or_refused(key, value, cut):
    try:
        body = orjson.dumps({"inputs": [X | {key: value}]})
    except TypeError:  # a number that orjson does not write
        return
    assert status(body[: len(body) - cut * (cut > 3)]) in (200, 400, 413, 422)


def status(body: bytes) -> int:
    try:
        return 200 if decode(body).rows else 0
    except RequestError as error:
        return error.status


# --- answers --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_mlp(mlp) -> Responder:
    return Responder(mlp.engine(), Settings())


def ask(responder: Responder, content: Any, headers: Mapping[str, str] | None = None) -> HttpResponse:
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    (response,) = responder.respond([HttpRequest(body, "application/json", headers or {})])
    return response


def rows(mlp) -> dict[str, Any]:
    return {"name": "x", "datatype": "FP32", "shape": [4, 6], "data": mlp.samples["x"][:4].reshape(-1).tolist()}


def test_each_head_is_its_raw_numbers(mlp, of_mlp):
    x = mlp.samples["x"][:4]
    told = ask(of_mlp, {"instances": x.tolist(), "options": {"raw": True}})
    predictions = orjson.loads(told.body)["predictions"]
    answer = orjson.loads(ask(of_mlp, {"id": "seven", "inputs": [rows(mlp)]}).body)
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("mlp", "1.0", "seven")
    assert [output["name"] for output in answer["outputs"]] == list(mlp.bundle.spec.heads)
    for output in answer["outputs"]:
        assert output["datatype"] == "FP32"
        raw = [row[output["name"]]["raw"] for row in predictions]
        np.testing.assert_allclose(np.reshape(output["data"], output["shape"]), raw, rtol=1e-5, atol=1e-6)


def test_classes_are_score_index_and_label(mlp, of_mlp):
    outputs = [
        {"name": "color", "parameters": {"classification": 2}},
        {"name": "tags", "parameters": {"classification": 9}},
    ]
    answer = orjson.loads(ask(of_mlp, {"inputs": [rows(mlp)], "outputs": outputs}).body)
    color, tags = answer["outputs"]
    assert (color["shape"], color["datatype"], tags["shape"]) == ([4, 2], "BYTES", [4, 3])
    options = {"instances": mlp.samples["x"][:4].tolist(), "options": {"top_k": 2}, "heads": ["color"]}
    told = orjson.loads(ask(of_mlp, options).body)["predictions"]
    for row, found in zip(told, np.reshape(color["data"], (4, 2)), strict=True):
        for best, text in zip(row["color"]["top"], found, strict=True):
            score, index, label = text.split(":")
            assert (int(index), label) == (best["index"], best["label"])
            assert float(score) == pytest.approx(best["score"], rel=1e-6)


@pytest.mark.parametrize("binary_data", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_tritons_client_writes_what_is_read_and_reads_what_is_written(mlp, of_mlp, binary_data, named):
    x = mlp.samples["x"][:4]
    tensor = InferInput("x", [4, 6], "FP32").set_data_from_numpy(x, binary_data=binary_data)
    wanted = None
    if named:
        wanted = [
            InferRequestedOutput("level", binary_data=not binary_data),
            InferRequestedOutput("color", class_count=1),
        ]
    body, length = InferenceServerClient.generate_request_body([tensor], outputs=wanted, request_id="a")
    headers = {} if length is None else {LENGTH: str(length)}
    (response,) = of_mlp.respond([HttpRequest(body if isinstance(body, bytes) else body.encode(), "", headers)])
    assert response.status == 200, response.body
    header = dict(response.headers).get("Inference-Header-Content-Length")
    result = InferenceServerClient.parse_response_body(response.body, header_length=header and int(header))
    assert result.get_response()["id"] == "a"
    plain = orjson.loads(ask(of_mlp, {"inputs": [rows(mlp)]}).body)["outputs"]
    level = next(output for output in plain if output["name"] == "level")
    np.testing.assert_allclose(result.as_numpy("level").reshape(-1), level["data"], rtol=1e-6)
    if named:
        assert result.as_numpy("color").shape == (4, 1)
        assert result.as_numpy("vector") is None


def test_accept_asks_for_bytes(mlp, of_mlp):
    content = {"inputs": [rows(mlp)]}
    assert ask(of_mlp, content, {"accept": "application/octet-stream"}).content_type == "application/octet-stream"
    assert ask(of_mlp, content, {"accept": "application/json, */*"}).content_type == "application/json"
    assert ask(of_mlp, content, {"accept": "text/html"}).status == 406


def test_our_own_json_keeps_its_errors(of_mlp):
    for content in ({"instances": [[0] * 6], "id": "a"}, {"instances": [[0] * 6], "inputs": []}, {"outputs": []}):
        body = orjson.loads(ask(of_mlp, content).body)
        assert body["type"] == "unknown_option"
        assert body["error"].endswith("(keys: instances, heads, options)")

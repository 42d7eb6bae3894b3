"""Every wire format against the real server, with values checked; and what strangers may send instead."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from tests.server import Running

NPY, ARROW, JSON = "application/x-npy", "application/vnd.apache.arrow.stream", "application/json"
ROWS = np.random.default_rng(5).uniform(0, 3, (5, 12)).astype(np.float32)
DIGITS = np.random.default_rng(6).integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)


def saved(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def stream(name: str, array: np.ndarray, batches: int = 1) -> bytes:
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(array)
    table = pa.Table.from_batches([pa.record_batch({name: column})] * batches)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def post(server: Running, model: str, body: bytes, media_type: str, **headers: str) -> httpx.Response:
    named = {"Content-Type": media_type, **{key.replace("_", "-"): value for key, value in headers.items()}}
    return server.http.post(f"/predictions/{model}", content=body, headers=named)


@pytest.fixture(scope="module")
def plain(server) -> dict:
    """What JSON answers to the same rows."""
    return server.predict("wine", {"instances": ROWS.tolist(), "options": {"raw": True}}).json()["predictions"]


# --- formats --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("media_type", "body"),
    [
        (NPY, saved(ROWS)),
        (NPY, saved(np.asfortranarray(ROWS.astype(">f8")))),
        (ARROW, stream("measurements", ROWS)),
        ("application/octet-stream", ROWS.tobytes()),
    ],
    ids=["npy", "npy of another layout", "arrow", "octets"],
)
def test_rows_of_any_format_get_the_same_answers(server, plain, media_type, body):
    response = post(server, "wine", body, media_type, X_Polyhead_Options='{"raw": true}', X_Polyhead_Heads="alcohol")
    assert response.status_code == 200, response.text
    for row, told in zip(response.json()["predictions"], plain, strict=True):
        assert set(row) == {"alcohol"}
        assert row["alcohol"]["value"] == pytest.approx(told["alcohol"]["value"], rel=1e-5)
        assert row["alcohol"]["raw"] == pytest.approx(told["alcohol"]["raw"], rel=1e-5)


def test_answers_come_as_arrow(server, plain):
    response = post(server, "wine", saved(ROWS), NPY, Accept=ARROW)
    assert response.headers["content-type"] == ARROW
    table = pa.ipc.open_stream(response.content).read_all()
    assert table.column_names == list(plain[0])
    for row, told in zip(table.to_pylist(), plain, strict=True):
        assert row["cultivar"]["label"] == told["cultivar"]["label"]
        assert row["cultivar"]["score"] == pytest.approx(told["cultivar"]["score"], rel=1e-5)
        assert row["alcohol"]["value"] == pytest.approx(told["alcohol"]["value"], rel=1e-5)


def test_one_heads_numbers_come_as_npy(server, plain):
    response = post(server, "wine", saved(ROWS), NPY, Accept=f"{NPY}, {JSON};q=0.5", X_Polyhead_Heads="cultivar")
    assert response.headers["content-type"] == NPY
    found = np.load(io.BytesIO(response.content), allow_pickle=False)
    np.testing.assert_allclose(found, [row["cultivar"]["raw"] for row in plain], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_compressed_bodies_are_inflated(server, coding):
    body = json.dumps({"instances": ROWS.tolist()}).encode()
    small = gzip.compress(body) if coding == "gzip" else zlib.compress(body)
    response = post(server, "wine", small, JSON, Content_Encoding=coding)
    assert response.json() == server.predict("wine", {"instances": ROWS.tolist()}).json()


def test_ten_thousand_rows_come_in_one_body(server):
    rows = np.tile(ROWS, (200, 1))
    response = post(server, "wine", stream("measurements", rows, batches=10), ARROW, Accept=ARROW)
    table = pa.ipc.open_stream(response.content).read_all()
    assert table.num_rows == 10_000
    labels = pc.struct_field(table["cultivar"], "label").to_pylist()
    assert labels == labels[:5] * 2000


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("coding", [None, "gzip", "deflate"])
def test_tritons_client_works_unchanged(server, plain, binary, coding):
    with InferenceServerClient(server.url.removeprefix("http://")) as client:
        tensor = InferInput("measurements", list(ROWS.shape), "FP32").set_data_from_numpy(ROWS, binary_data=binary)
        more = {"request_compression_algorithm": coding, "response_compression_algorithm": coding}
        result = client.infer("wine", [tensor], request_id="mine", **more)
        assert result.get_response()["id"] == "mine"
        np.testing.assert_allclose(result.as_numpy("alcohol"), [row["alcohol"]["raw"] for row in plain], rtol=1e-5)
        wanted = [InferRequestedOutput("cultivar", binary_data=binary, class_count=1)]
        classes = client.infer("wine", [tensor], outputs=wanted, **more).as_numpy("cultivar")
        names = [(text.decode() if isinstance(text, bytes) else text).split(":")[2] for text in classes.reshape(-1)]
        assert names == [row["cultivar"]["label"] for row in plain]
        with pytest.raises(InferenceServerException, match="head 'nose' is not in model wine"):
            client.infer("wine", [tensor], outputs=[InferRequestedOutput("nose")])


def test_pixels_come_as_a_tensor(server):
    with InferenceServerClient(server.url.removeprefix("http://")) as client:
        tensor = InferInput("image", [3, 8, 8, 1], "UINT8").set_data_from_numpy(DIGITS)
        found = client.infer("digits", [tensor]).as_numpy("digit")
    told = server.predict("digits", {"instances": DIGITS.tolist(), "options": {"raw": True}}).json()["predictions"]
    np.testing.assert_allclose(found, [row["digit"]["raw"] for row in told], rtol=1e-4, atol=1e-5)


def test_the_document_is_served(server):
    document = server.http.get("/predictions/wine/1.0/openapi.json").json()
    assert document["info"] == {"title": "wine", "version": "1.0", "description": document["info"]["description"]}


@pytest.mark.parametrize(
    ("body", "media_type", "headers", "status", "kind"),
    [
        (saved(ROWS), NPY, {"Accept": "text/html"}, 406, "not_acceptable"),
        (saved(ROWS), NPY, {"Accept": NPY}, 406, "not_acceptable"),
        (b"{}", JSON, {"Content_Encoding": "br"}, 415, "unsupported_media_type"),
        (b"{}", JSON, {"Content_Encoding": "gzip"}, 400, "malformed_body"),
        (saved(ROWS)[:-3], NPY, {}, 400, "malformed_body"),
        (stream("measurements", ROWS)[:-99], ARROW, {}, 400, "malformed_body"),
        (stream("nose", ROWS), ARROW, {}, 422, "invalid_instance"),
        (saved(ROWS), NPY, {"X_Polyhead_Options": "{"}, 400, "malformed_body"),
        (saved(ROWS), NPY, {"X_Polyhead_Options": '{"row": true}'}, 422, "unknown_option"),
        (b'{"inputs": []}', JSON, {}, 422, "invalid_instance"),
        (b"abc", JSON, {"Inference_Header_Content_Length": "7"}, 400, "malformed_body"),
    ],
)
def test_what_does_not_fit_is_refused(server, body, media_type, headers, status, kind):
    response = post(server, "wine", body, media_type, **headers)
    assert (response.status_code, response.json()["type"]) == (status, kind)


# --- what strangers send (reliability 10 and 13) --------------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def pixel_bomb(side: int) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    rows = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def compressed_columns() -> bytes:
    column = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((2_000_000, 12), np.float32))
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    batch = pa.record_batch({"measurements": column})
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def whole_image(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(DIGITS[0, ..., 0]).resize((64, 64)).save(buffer, kind)
    return buffer.getvalue()


def test_bombs_are_refused_in_little_memory_and_no_neighbour_notices(server):
    """Reliability 10. Good requests go on beside the bombs, and get the answers they get alone."""
    bombs = [
        ("wine", gzip.compress(bytes(400_000_000)), JSON, {"Content_Encoding": "gzip"}, 413),
        ("wine", zlib.compress(b"[" * 100_000_000), JSON, {"Content_Encoding": "deflate"}, 413),
        ("wine", compressed_columns(), ARROW, {}, 413),
        ("digits", pixel_bomb(60_000), "image/png", {}, 413),
        ("digits", pixel_bomb(7_000), "image/png", {}, 400),
        ("wine", b"[" * 5_000_000, JSON, {}, 400),
        ("digits", whole_image("PNG")[:-30], "image/png", {}, 400),
        ("digits", whole_image("JPEG")[:200], "image/jpeg", {}, 400),
        ("digits", whole_image("PNG"), "image/gif", {}, 415),
        ("wine", whole_image("PNG"), "image/png", {}, 415),
    ]
    good = {"instances": ROWS.tolist()}
    told = server.predict("wine", good).json()
    workers = [process for process in server.family() if "python" in process.name()]
    before = sum(process.memory_info().rss for process in workers)
    peaks = []

    def bomb(item):
        model, body, media_type, headers, status = item
        response = post(server, model, body, media_type, **headers)
        return response.status_code == status or (status, response.status_code, media_type, response.text[:200])

    with ThreadPoolExecutor(8) as pool:
        refused = pool.map(bomb, bombs * 2)
        neighbours = pool.map(lambda _: server.predict("wine", good).json(), range(40))
        for neighbour in neighbours:
            assert neighbour == told
            peaks.append(sum(process.memory_info().rss for process in workers))
        assert list(refused) == [True] * 20
    assert max(peaks) - before < 400_000_000
    assert all(psutil.pid_exists(process.pid) for process in workers)


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.mark.parametrize("model", ["wine", "digits"])
def test_what_schemathesis_sends_is_answered_as_the_document_says(server, model):
    """Reliability 13."""
    document = server.http.get(f"/predictions/{model}/1.0/openapi.json").json()
    found = schemathesis.openapi.from_dict(document)
    found.config.update(base_url=server.url)

    @settings(max_examples=40, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=st.one_of([operation.ok().as_strategy() for operation in found.get_all_operations()]))
    def send(case):
        case.validate_response(case.call(), checks=CHECKS)

    send()
    assert server.predict("wine", {"instances": ROWS.tolist()}).status_code == 200


HEADERS = ["Content-Encoding", "Accept", "X-Polyhead-Heads", "X-Polyhead-Options", "Inference-Header-Content-Length"]
MEDIA_TYPES = [JSON, NPY, ARROW, "application/octet-stream", "image/png", "text/plain", "", "application/x-none"]
WHOLE = [saved(ROWS), stream("measurements", ROWS), json.dumps({"instances": ROWS.tolist()}).encode(), ROWS.tobytes()]


def test_random_and_damaged_bodies_are_never_our_fault(server):
    """Reliability 13."""

    @settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(
        body=st.binary(max_size=100) | st.sampled_from(WHOLE),
        changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=3),
        media_type=st.sampled_from(MEDIA_TYPES),
        headers=st.dictionaries(
            st.sampled_from(
                [
                    "Content-Encoding",
                    "Accept",
                    "X-Polyhead-Heads",
                    "X-Polyhead-Options",
                    "Inference-Header-Content-Length",
                ]
            ),
            st.sampled_from(["gzip", "1", "*/*", "{}", "cultivar", "0", NPY, ARROW, "a,b;q=1"]),
            max_size=2,
        ),
        model=st.sampled_from(["wine", "digits"]),
    )
    def send(body, changes, media_type, headers, model):
        data = bytearray(body)
        for place, value in changes:
            if data:
                data[place % len(data)] = value
        named = headers | ({"Content-Type": media_type} if media_type else {})
        response = server.http.post(f"/predictions/{model}", content=bytes(data), headers=named)
        assert response.status_code in (200, 400, 406, 413, 415, 422), response.text
        if response.status_code != 200:
            assert set(response.json()) == {"error", "type", "loc"}

    send()

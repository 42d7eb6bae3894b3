"""Input that once hurt: memory, recursion, silent changes of pixels and numbers."""

from __future__ import annotations

import http.server
import io
import struct
import threading
import tracemalloc
import zlib

import numpy as np
import orjson
import pytest
import torch
from PIL import Image
from scipy.special import expit

from polyhead.export.assemble import export
from polyhead.export.source import Source, random_samples
from polyhead.models.spec import ImageInput, ModelSpec, MultilabelHead, RegressionHead
from polyhead.serving.answers import HeadAnswers
from polyhead.serving.client import Client, ServerError
from polyhead.serving.errors import RequestError, UnknownHead
from polyhead.serving.golden import Tolerance, fault
from polyhead.serving.protocol import images, json, media
from polyhead.serving.request import HttpRequest, Options, choose_heads
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings


def _spec(**inputs):
    heads = {"y": {"kind": "regression"}}
    return ModelSpec.parse({"name": "m", "version": "1.0", "inputs": inputs, "heads": heads})


FLOAT = _spec(x={"kind": "tensor", "shape": [3]})
GRAY = _spec(image={"kind": "image", "size": [2, 3], "channels": "gray"})


def _json(body, spec):
    return json.decode(HttpRequest(body, "application/json"), spec, Settings())


def _file(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("depth", [900, 990, 1000, 1010, 1018])
@pytest.mark.parametrize(
    ("before", "after", "spec"),
    [
        (b'{"instances":[', b"]}", GRAY),
        (b'{"instances":[[1,2,3]],"options":{"top_k":', b"}}", FLOAT),
        (b'{"instances":[{"x":{"x":', b"}}]}", FLOAT),
    ],
    ids=["pixels", "option", "object"],
)
def test_nesting_that_json_allows_and_python_does_not_is_refused(before, after, spec, depth):
    with pytest.raises(RequestError) as caught:
        _json(before + b"[" * depth + b"]" * depth + after, spec)
    assert caught.value.status in (400, 422)


@pytest.mark.parametrize("channels", ["gray", "rgb"])
def test_a_16_bit_gray_png_keeps_its_upper_bytes(channels):
    deep = np.array([[0, 255, 256], [0x1234, 0x8000, 0xFFFF]], np.uint16)
    spec = ImageInput(kind="image", size=(2, 3), channels=channels, resize="none")
    pixels = images.decode(_file(Image.fromarray(deep)), spec, images.PixelBudget(100), ())
    np.testing.assert_array_equal(pixels[..., 0], deep >> 8)


def test_a_palette_with_a_transparency_table_is_read_without_a_warning():
    gray = np.array([[0, 80, 160], [160, 80, 255]], np.uint8)
    data = _file(Image.fromarray(gray).convert("P"), transparency=bytes([0, 100, 200]))
    spec = ImageInput(kind="image", size=(2, 3), channels="gray", resize="none")
    np.testing.assert_array_equal(images.decode(data, spec, images.PixelBudget(100), ())[..., 0], gray)


@pytest.mark.parametrize("side", [20_000, 100_000, 2**31 - 1, 2**32 - 1])
def test_a_huge_declared_size_is_too_large(side):
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data += b"\0\0\0\0IEND\xaeB`\x82"
    with pytest.raises(RequestError) as caught:
        images.decode(data, ImageInput(kind="image", size=(64, 64)), images.PixelBudget(50_000_000), ())
    assert (caught.value.status, caught.value.type) == (413, "payload_too_large")


@pytest.mark.parametrize(
    ("body", "row"),
    [
        (b'{"instances":[[true,2.0,3]]}', 0),
        (b'{"instances":[[1,2,3],[1,false,3]]}', 1),
        (b'{"instances":[[1,2,3],[true,true,true]]}', 1),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint8"])
def test_truth_values_among_numbers_are_no_numbers(body, row, dtype):
    body = body.replace(b"2.0", b"2")
    with pytest.raises(RequestError) as caught:
        _json(body, _spec(x={"kind": "tensor", "dtype": dtype, "shape": [3]}))
    assert (caught.value.status, caught.value.loc) == (422, ("instances", row, "x"))
    assert caught.value.message == f"input 'x': wanted {dtype} numbers, got true or false"


def test_a_long_string_among_many_takes_no_memory():
    body = orjson.dumps({"instances": [["x" * 20_000, *[""] * 2000]]})  # 26 kB
    tracemalloc.start()
    try:
        with pytest.raises(RequestError, match="got a string"):
            _json(body, FLOAT)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


class Big(torch.nn.Module):
    def forward(self, x):
        return {"y": x * 4}


def test_both_infinities_in_one_batch_are_their_own_requests(tmp_path):
    spec = _spec(x={"kind": "tensor", "shape": [1]})
    bundle, _ = export(Source(Big(), spec, random_samples(spec)), tmp_path / "big")
    from polyhead.serving.engine import Engine

    responder = Responder(Engine.load(bundle, "onnxruntime", "cpu"), Settings())
    requests = [HttpRequest(orjson.dumps({"instances": [[v]]}), "application/json") for v in (3e38, 1.0, -3e38)]
    before = responder.engine.forwards
    assert [response.status for response in responder.respond(requests)] == [422, 200, 422]
    assert responder.engine.forwards == before + 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_expectation_that_is_not_finite_is_a_fault(bad):
    head = RegressionHead(kind="regression", dim=2)
    expected = np.array([[bad, 1]], np.float32)
    assert fault(head, np.array([[5, 7]], np.float32), expected, Tolerance(atol=1e-5, rtol=1e-4)) is not None


def _respond(status, body):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    return http.server.HTTPServer(("127.0.0.1", 0), Handler)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>hello</html>"),
        (200, b"{}"),
        (200, b"[]"),
        (500, b"[]"),
        (502, b'"bad gateway"'),
        (500, b"null"),
        (500, b'{"error": "no", "loc": null}'),
    ],
)
def test_a_server_that_is_not_ours_is_a_server_error(status, body):
    with _respond(status, body) as server:
        threading.Thread(target=server.handle_request).start()
        with (
            Client(f"http://127.0.0.1:{server.server_port}", retries=0) as client,
            pytest.raises(ServerError, match=f"m: {status}: "),
        ):
            client.predict("m", [[1]])


def test_bytes_that_are_no_truth_values_are_refused():
    spec = _spec(x={"kind": "tensor", "dtype": "bool", "shape": [2]})
    with pytest.raises(RequestError) as caught:
        media.decode(HttpRequest(b"\x02\x01", "application/octet-stream"), spec, Settings())
    assert (caught.value.status, caught.value.type) == (422, "invalid_instance")


def test_small_scores_are_exact():
    logits = np.array([[-5, -10, -15, -17, -20, -30, -80]], np.float32)
    head = MultilabelHead(kind="multilabel", labels=tuple("abcdefg"))
    (answer,) = HeadAnswers(head, logits).rows(slice(0, 1), Options(scores=True))
    np.testing.assert_allclose(list(answer["all_scores"].values()), expit(logits[0].astype(float)), rtol=1e-5)


def test_golden_inputs_of_another_shape_are_refused(mlp, copy_of, forge):
    from polyhead.serving.bundle import GOLDEN, Bundle
    from polyhead.serving.engine import Engine
    from polyhead.serving.errors import BundleError
    from polyhead.serving.golden import Golden

    folder, golden = copy_of(mlp), mlp.bundle.golden()
    forge(folder, GOLDEN, Golden({"x": golden.inputs["x"][:, :5]}, golden.outputs).dump())
    with pytest.raises(BundleError, match=r"golden\.safetensors does not fit the spec"):
        Engine.load(Bundle.open(folder), "onnxruntime", "cpu").replay_golden()


def test_a_long_head_name_is_quoted_in_part():
    with pytest.raises(UnknownHead) as caught:
        choose_heads(FLOAT, ["x" * 100_000])
    assert len(caught.value.message) < 200

"""Bundles on Ray Serve: the same bytes as from TorchServe, more replicas under load, nothing lost at the end."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pytest

from polyhead.serving.client import Client
from tests.server import Running, eventually, serving

IMAGES = np.random.default_rng(3).integers(0, 256, (3, 8, 8), dtype=np.uint8)
ROWS = np.random.default_rng(4).uniform(0, 10, (5, 12)).astype("<f4")
# Of one length in tokens: each server measures when it loads whether texts of unlike lengths are worth passes of their
# own, and rows padded otherwise differ in their last bits.
TEXTS = ["turn on the kitchen light", "turn off the kitchen light", "turn on the bedroom light"]
JSON, OCTETS = {"Content-Type": "application/json"}, {"Content-Type": "application/octet-stream"}
ARROW = "application/vnd.apache.arrow.stream"
MANY = {"instances": [{"text": f"{TEXTS[0]} {number}"} for number in range(256)]}
# A load is noticed within seconds, not half a minute, so that a test can wait for it.
SOON = {
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
}


@pytest.fixture(scope="module")
def on_ray(digits_bundle: Path, wine: dict[str, Path], smarthome_bundle: Path) -> Iterator[Running]:
    scaling = {"target_requests": 2, "look_back": 1, "upscale_delay": 0.5}
    keys = {f"ray_{name}": value for name, value in scaling.items()} | {"job_queue_size": 8}
    flags = [flag for name, value in keys.items() for flag in ("--set", f"polyhead_{name}={value}")]
    with pytest.MonkeyPatch.context() as environment:
        for name, value in SOON.items():
            environment.setenv(name, value)
        bundles = [digits_bundle, wine["bundle"], smarthome_bundle]
        flags += ["--engine", "ray", "--max-replicas", "2", "--threads", "1", "--max-batch-size", "4"]
        with serving(bundles, *flags, "--drain-delay", "2") as running:
            yield running


def arrow(names: list[str], columns: list[pa.Array]) -> bytes:
    sink = io.BytesIO()
    table = pa.table(columns, names=names)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def npy(array: np.ndarray) -> bytes:
    sink = io.BytesIO()
    np.lib.format.write_array(sink, array, allow_pickle=False)
    return sink.getvalue()


def binary(name: str, datatype: str, shape: list[int], data: bytes) -> tuple[bytes, dict[str, str]]:
    """An Open Inference Protocol request with its tensor behind the JSON, which asks for binary tensors too."""
    tensor = {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return head + data, {**OCTETS, "Inference-Header-Content-Length": str(len(head))}


def texts(values: list[str]) -> bytes:
    encoded = [value.encode() for value in values]
    return b"".join(len(value).to_bytes(4, "little") + value for value in encoded)


PLAIN = {"instances": [{"text": text} for text in TEXTS], "options": {"top_k": 2, "raw": True}}
MIXED = arrow(["text"], [pa.array(TEXTS)])
GOOD = {
    "digits json": ("/predictions/digits", json.dumps({"instances": [{"image": i.tolist()} for i in IMAGES]}), JSON),
    "digits some heads": (
        "/predictions/digits/1.0",
        json.dumps({"instances": [{"image": IMAGES[0].tolist()}], "heads": ["ink", "digit"]}),
        JSON,
    ),
    "digits v1": ("/v1/models/digits:predict", json.dumps({"instances": [{"image": IMAGES[1].tolist()}]}), JSON),
    "digits oip binary": ("/v2/models/digits/infer", *binary("image", "UINT8", [3, 8, 8, 1], IMAGES.tobytes())),
    "digits arrow out": (
        "/predictions/digits",
        json.dumps({"instances": [{"image": i.tolist()} for i in IMAGES]}),
        {**JSON, "Accept": ARROW},
    ),
    "wine octets": ("/predictions/wine", ROWS[0].tobytes(), OCTETS),
    "wine npy": ("/predictions/wine", npy(ROWS), {"Content-Type": "application/x-npy"}),
    "wine oip json": (
        "/v2/models/wine/infer",
        json.dumps({"inputs": [{"name": "measurements", "datatype": "FP32", "shape": [5, 12], "data": ROWS.tolist()}]}),
        JSON,
    ),
    "smarthome json": ("/predictions/smarthome", json.dumps(PLAIN), JSON),
    "smarthome text": ("/predictions/smarthome", TEXTS[1], {"Content-Type": "text/plain"}),
    "smarthome arrow": ("/predictions/smarthome", MIXED, {"Content-Type": ARROW, "Accept": ARROW}),
    "smarthome oip binary": ("/v2/models/smarthome/infer", *binary("text", "BYTES", [3], texts(TEXTS))),
    "smarthome document": ("/predictions/smarthome/1.0/openapi.json", b"", JSON),
}
BAD = {
    "no json": ("/predictions/wine", b"{", JSON),
    "no such head": ("/predictions/wine", ROWS[0].tobytes(), {**OCTETS, "X-Polyhead-Heads": "colour"}),
    "nan": ("/predictions/wine", np.full(12, np.nan, "<f4").tobytes(), OCTETS),
    "media type": ("/predictions/digits", b"x", {"Content-Type": "text/csv"}),
    "not acceptable": ("/predictions/digits", b"x", {**JSON, "Accept": "text/html"}),
}


def told(response: httpx.Response) -> tuple[int, str, bytes, dict[str, str]]:
    ours = {name: value for name, value in response.headers.items() if name.startswith("x-polyhead-")}
    return response.status_code, response.headers["content-type"], response.content, ours


@pytest.mark.parametrize("name", [*GOOD, *BAD])
def test_answers_are_those_of_torchserve_byte_by_byte(
    name: str, on_ray: Running, server: Running, smarthome: Running
) -> None:
    path, body, headers = (GOOD | BAD)[name]
    other = smarthome if "smarthome" in path else server
    headers = {**headers, "X-Request-Id": "the-client's-own"}
    mine = on_ray.http.post(path, content=body, headers=headers)
    theirs = other.http.post(path, content=body, headers=headers)
    assert told(mine) == told(theirs)
    assert (mine.status_code == 200) == (name in GOOD)
    assert mine.headers["x-polyhead-request-id"] == "the-client's-own"
    assert mine.headers["x-polyhead-model"].endswith("/1.0")


def test_what_is_told_about_models_is_what_the_side_server_tells(on_ray: Running, server: Running) -> None:
    for path in (
        "/v2",
        "/v2/health/live",
        "/v2/models/digits",
        "/v2/models/wine/versions/1.0",
        "/v2/models/wine/ready",
    ):
        mine, theirs = (
            client.get(f"{running.ready['side']}{path}", trust_env=False)
            for client, running in ((httpx, on_ray), (httpx, server))
        )
        assert mine.status_code == theirs.status_code == 200, path
        a, b = mine.json(), theirs.json()
        for answer in (a, b):
            for key in ("threads", "workers"):
                answer.get("polyhead", {}).pop(key, None)
        assert a == b, path
    ready = on_ray.http.get("/v2/health/ready")
    assert ready.status_code == 200
    assert {(model["name"], model["ready"]) for model in ready.json()["models"]} == {
        ("digits", True),
        ("smarthome", True),
        ("wine", True),
    }
    assert 'polyhead_requests_total{model="digits"' in on_ray.http.get("/metrics").text
    assert "/v2/models/wine/infer" in on_ray.http.get("/openapi.json").text


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("POST", "/predictions/nobody", 404, "not_found"),
        ("POST", "/predictions/digits/9.9", 404, "not_found"),
        ("GET", "/v2/models/nobody", 404, "not_found"),
        ("GET", "/control/models", 404, "not_found"),
        ("GET", "/predictions/digits", 405, "method_not_allowed"),
        ("POST", "/v2/health/ready", 405, "method_not_allowed"),
    ],
)
def test_paths_where_nothing_is_are_refused(on_ray: Running, method: str, path: str, status: int, kind: str) -> None:
    answer = on_ray.http.request(method, path, content=b"x" if method == "POST" else None)
    assert (answer.status_code, answer.json()["type"]) == (status, kind)


def test_a_body_beyond_the_bound_is_refused(on_ray: Running) -> None:
    answer = on_ray.http.post("/predictions/wine", content=b"\0" * (41 * 1024 * 1024), headers=OCTETS)
    assert (answer.status_code, answer.json()["type"]) == (413, "payload_too_large")


def test_a_client_cannot_have_ray_end_its_request_in_rays_words(on_ray: Running) -> None:
    headers = {**OCTETS, "X-Request-Timeout-Seconds": "0.0001"}
    answer = on_ray.http.post("/predictions/wine", content=ROWS[0].tobytes(), headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")


def replicas(running: Running, model: str) -> list[psutil.Process]:
    """By their titles, in a second of looks: while a replica has a call, Ray's title of it lacks the model's name."""
    found = set()
    for _ in range(20):
        for process in running.family():
            with suppress(psutil.Error):
                if f"polyhead-{model}--" in " ".join(process.cmdline()):
                    found.add(process)
        time.sleep(0.05)
    return [process for process in found if process.is_running()]


def test_a_killed_replica_costs_the_client_library_nothing(on_ray: Running) -> None:
    with Client(on_ray.url, retries=30, deadline=60) as client:
        expected = client.predict_json("wine", ROWS)
        (victim,) = replicas(on_ray, "wine")
        with ThreadPoolExecutor(4) as pool:
            jobs = [pool.submit(client.predict_json, "wine", ROWS) for _ in range(40)]
            os.kill(victim.pid, signal.SIGKILL)
            jobs += [pool.submit(client.predict_json, "wine", ROWS) for _ in range(40)]
            answers = [job.result() for job in jobs]
    assert answers == [expected] * 80
    assert victim.pid not in {process.pid for process in replicas(on_ray, "wine")}


def test_under_load_a_second_replica_comes_and_what_is_too_much_gets_503(on_ray: Running) -> None:
    assert len(replicas(on_ray, "smarthome")) == 1
    body, stopping = json.dumps(MANY).encode(), threading.Event()
    expected = on_ray.http.post("/predictions/smarthome", content=body, headers=JSON)
    answers: list[httpx.Response] = []

    def ask() -> None:
        with httpx.Client(base_url=on_ray.url, timeout=60, trust_env=False) as http:
            while not stopping.is_set():
                answers.append(http.post("/predictions/smarthome", content=body, headers=JSON))
                if answers[-1].status_code == 503:
                    time.sleep(0.05)

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    try:
        assert eventually(lambda: len(replicas(on_ray, "smarthome")) == 2, 60)
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
    refused = [answer for answer in answers if answer.status_code != 200]
    assert refused
    assert {(a.status_code, a.headers["retry-after"], a.json()["type"]) for a in refused} == {(503, "1", "overloaded")}
    served = [answer.content for answer in answers if answer.status_code == 200]
    assert served
    assert set(served) == {expected.content}


def test_at_a_signal_what_was_accepted_is_answered_and_readiness_falls_first(on_ray: Running) -> None:
    """The last one: it ends the server."""
    family, url, body = on_ray.family(), f"{on_ray.url}/predictions/smarthome", json.dumps(MANY).encode()
    with ThreadPoolExecutor(12) as pool, httpx.Client(timeout=60, trust_env=False) as http:
        jobs = [pool.submit(http.post, url, content=body, headers=JSON) for _ in range(12)]
        time.sleep(0.3)
        on_ray.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: http.get(f"{on_ray.url}/v2/health/ready").status_code == 503, 5)
        assert http.get(f"{on_ray.url}/v2/health/ready").json()["state"] == "draining"
        assert [job.result().status_code for job in jobs] == [200] * 12
    assert on_ray.process.wait(40) == 0
    assert psutil.wait_procs(family, timeout=15)[1] == []

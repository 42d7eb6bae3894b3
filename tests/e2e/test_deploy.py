"""A running server's versions: added, promoted, taken back, removed, under load; those that are not fit, refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http
from prometheus_client.parser import text_string_to_metric_families

from polyhead.serving.errors import DeployError, LaunchError
from polyhead.serving.frontdoor.nginx import find_nginx
from polyhead.serving.side.caller import call
from tests.command import run_polyhead
from tests.e2e import versions
from tests.server import Running, eventually, serving

SWAPS = int(os.environ.get("POLYHEAD_SWAPS", "20"))
SCALES = {"1.0": 1.0, "1.9": 2.0, "1.10": 2.0}
CLIENTS = 4


def door_flags() -> list[str]:
    """With the front door where there is nginx: then these tests go through it."""
    try:
        find_nginx()
    except LaunchError:
        return []
    return ["--front-door"]


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the server looks into, and one beside it with versions that come later."""
    folder = tmp_path_factory.mktemp("deploy")
    (folder / "models").mkdir()
    versions.make(folder / "models", "1.0", SCALES["1.0"])
    later = versions.make(folder / "later", "1.9", SCALES["1.9"])
    versions.renamed(later, folder / "later" / "1.10", "1.10")
    return folder


@pytest.fixture(scope="module")
def server(shelf: Path) -> Iterator[Running]:
    with serving([shelf / "models"], "--threads", "1", *door_flags()) as running:
        yield running


def change(server: Running, verb: str, version: str | None = None, bundle: Path | None = None) -> dict[str, object]:
    order = {"model": versions.NAME, "version": version, "bundle": None if bundle is None else str(bundle)}
    return call(server.side, "POST", f"/control/{verb}", {k: v for k, v in order.items() if v is not None})


def served(server: Running) -> dict[str, str]:
    """By version: default, previous or nothing."""
    found = httpx.get(f"{server.side}/v2/models", trust_env=False).json()["models"]
    return {m["version"]: "default" if m["default"] else "previous" if m["previous"] else "" for m in found}


@pytest.fixture
def alone(server: Running) -> Running:
    """1.0 is all that is served."""
    if served(server)["1.0"] != "default":
        change(server, "promote", "1.0")
    for version in set(served(server)) - {"1.0"}:
        change(server, "remove", version)
    assert served(server) == {"1.0": "default"}
    return server


@pytest.fixture
def two(server: Running, shelf: Path) -> Running:
    """1.0 is the default, 1.9 beside it."""
    if "1.9" not in served(server):
        change(server, "add", "1.9", shelf / "later" / "1.9")
    if served(server)["1.0"] != "default":
        change(server, "promote", "1.0")
    return server


def test_a_version_is_added_promoted_taken_back_and_removed(server: Running, shelf: Path):
    sent = versions.rows(5, 0)
    target = shelf / "models" / "1.10"
    with pytest.raises(
        DeployError, match=r"no bundle of scaled/1.10 lies where .* \(there: scaled/1.0\): put it there"
    ):
        change(server, "add", "1.10")
    shutil.copytree(shelf / "later" / "1.10", target)
    flags = ("--server", server.side, "--json")
    added = json.loads(run_polyhead("deploy", "add", versions.NAME, "1.10", *flags).stdout)
    assert (added["version"], added["default"], added["runtime"]) == ("1.10", False, "onnxruntime")
    assert versions.right(versions.ask(server.http, sent), sent, 1.0), "nobody promoted it"
    assert versions.right(versions.ask(server.http, sent, "scaled/1.10"), sent, 2.0)

    run_polyhead("deploy", "promote", versions.NAME, "1.10", *flags)
    assert served(server) == {"1.0": "previous", "1.10": "default"}
    answer = versions.ask(server.http, sent)
    assert versions.right(answer, sent, 2.0)
    assert answer.headers["X-Polyhead-Model"] == "scaled/1.10"
    listed = run_polyhead("deploy", "list", "--server", server.side).stdout
    assert [("default" in line, "previous" in line) for line in listed.splitlines() if "scaled" in line] == [
        (False, True),
        (True, False),
    ]

    assert json.loads(run_polyhead("deploy", "rollback", versions.NAME, *flags).stdout)["version"] == "1.0"
    assert versions.right(versions.ask(server.http, sent), sent, 1.0)
    run_polyhead("deploy", "remove", versions.NAME, "1.10", *flags)
    assert served(server) == {"1.0": "default"}
    assert versions.ask(server.http, sent, "scaled/1.10").status_code == 404
    shutil.rmtree(target)


def test_everything_that_tells_of_models_follows(two: Running):
    http = two.http if door_flags() else httpx.Client(base_url=two.side, trust_env=False)
    metadata = http.get("/v2/models/scaled").json()
    assert (metadata["versions"], metadata["polyhead"]["version"]) == (["1.0", "1.9"], "1.0")
    assert http.get("/v2/models/scaled/versions/1.9").json()["polyhead"]["version"] == "1.9"
    paths = http.get("/openapi.json").json()["paths"]
    assert {"/predictions/scaled", "/predictions/scaled/1.0", "/predictions/scaled/1.9"} <= set(paths)
    assert paths["/predictions/scaled"]["post"]["tags"] == ["scaled/1.0"]
    page = httpx.get(two.metrics, trust_env=False).text
    ready = next(f for f in text_string_to_metric_families(page) if f.name == "polyhead_model_ready")
    assert {s.labels["version"]: s.value for s in ready.samples} == {"1.0": 1, "1.9": 1}
    change(two, "remove", "1.9")
    assert http.get("/v2/models/scaled/versions/1.9").status_code == 404
    assert "/predictions/scaled/1.9" not in http.get("/openapi.json").json()["paths"]
    health = http.get("/v2/health/ready").json()
    assert [m["version"] for m in health["models"]] == ["1.0"]


def test_tritons_client_finds_what_it_asks_for(two: Running):
    address = (two.url if door_flags() else two.side).removeprefix("http://")
    with tritonclient.http.InferenceServerClient(address) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("scaled")
        assert client.is_model_ready("scaled", "1.9")
        assert not client.is_model_ready("scaled", "7")
        assert client.get_server_metadata()["name"] == "polyhead"
        metadata = client.get_model_metadata("scaled", "1.9")
        assert metadata["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}]
        assert metadata["outputs"] == [
            {"name": "total", "datatype": "FP32", "shape": [-1, 1]},
            {"name": "work", "datatype": "FP32", "shape": [-1, 8]},
        ]
        if not door_flags():  # the side server tells, TorchServe answers
            return
        sent = versions.rows(3, 1)
        tensor = tritonclient.http.InferInput("x", [3, 4], "FP32")
        tensor.set_data_from_numpy(sent)
        result = client.infer("scaled", [tensor]).as_numpy("total")
        assert result.shape == (3, 1), "as the metadata says"
        np.testing.assert_array_equal(result[:, 0], sent.sum(1))


class Load:
    """Clients that ask without a pause, and keep what was wrong."""

    def __init__(self, server: Running, path: str = versions.NAME) -> None:
        self.answers: dict[str, int] = {}
        self.faults: list[str] = []
        self._server, self._path = server, path
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._pool = ThreadPoolExecutor(CLIENTS)

    def __enter__(self) -> Load:
        self._running = [self._pool.submit(self._ask, seed) for seed in range(CLIENTS)]
        assert eventually(lambda: sum(self.answers.values()) > CLIENTS)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for running in self._running:
            running.result(30)
        self._pool.shutdown()

    def _ask(self, seed: int) -> None:
        with httpx.Client(base_url=self._server.url, timeout=30, trust_env=False) as client:
            number = 0
            while not self._stop.is_set():
                number += 1
                sent = versions.rows(3, seed * 1_000_000 + number)
                try:
                    fault = self._fault(versions.ask(client, sent, self._path, ("total",)), sent)
                except httpx.HTTPError as error:
                    fault = repr(error)
                if fault is not None:
                    with self._lock:
                        self.faults.append(fault)

    def _fault(self, response: httpx.Response, sent: np.ndarray) -> str | None:
        named = response.headers.get_list("X-Polyhead-Model")
        if response.status_code != 200 or len(named) != 1:
            return f"{response.status_code}, {named}: {response.text:.100}"
        version = named[0].partition("/")[2]
        with self._lock:
            self.answers[version] = self.answers.get(version, 0) + 1
        return None if versions.right(response, sent, SCALES[version]) else f"values are not of {version}"


def test_a_version_swapped_under_load_loses_no_request_and_mixes_no_answer(two: Running, request):
    started = time.monotonic()
    with Load(two) as load:
        for swap in range(SWAPS):
            wanted = ("1.9", "1.0")[swap % 2]
            change(two, "promote", wanted)
            before = load.answers.get(wanted, 0)
            assert eventually(lambda before=before, wanted=wanted: load.answers.get(wanted, 0) > before)
    assert load.faults == []
    assert set(load.answers) == {"1.0", "1.9"}
    seconds = time.monotonic() - started
    request.node.user_properties.append(("answers", load.answers))
    print(f"{SWAPS} swaps in {seconds:.1f} s: {load.answers} answers, no fault")


def test_a_version_that_is_removed_answers_what_it_took(two: Running):
    """With the front door new requests get 404; without, its clients must go first."""
    if not door_flags():
        pytest.skip("nginx is not here: apt-get install nginx-light (Debian)")
    with Load(two, "scaled/1.9") as load:
        change(two, "remove", "1.9")
        assert eventually(lambda: len(load.faults) > CLIENTS)
    assert load.answers["1.9"] > CLIENTS
    assert {fault.partition(",")[0] for fault in load.faults} == {"404"}
    assert served(two) == {"1.0": "default"}


def test_the_only_version_of_one_of_two_models_is_removed_under_load(alone: Running, shelf: Path):
    if not door_flags():
        pytest.skip("nginx is not here: apt-get install nginx-light (Debian)")
    bundle = versions.renamed(shelf / "later" / "1.9", shelf / "later" / "other", "1.9", "other")
    order = {"model": "other", "version": "1.9"}
    assert call(alone.side, "POST", "/control/add", {**order, "bundle": str(bundle)})["default"]
    with Load(alone, "other") as load:
        call(alone.side, "POST", "/control/remove", order)
        assert eventually(lambda: len(load.faults) > CLIENTS)
    assert load.answers["1.9"] > CLIENTS
    assert {fault.partition(",")[0] for fault in load.faults} == {"404"}
    assert served(alone) == {"1.0": "default"}


def test_what_would_leave_requests_without_an_answer_is_refused(two: Running):
    with pytest.raises(DeployError, match=r"scaled/1.0 is the default: promote another first \(there: 1.9\)"):
        change(two, "remove", "1.0")
    with pytest.raises(DeployError, match=r"scaled/7 is not served: there are scaled/1.0, scaled/1.9"):
        change(two, "promote", "7")


def test_the_last_version_stays(alone: Running):
    with pytest.raises(DeployError, match="no version to go back to"):
        change(alone, "rollback")
    with pytest.raises(DeployError, match=r"scaled/1.0 is all that is served"):
        change(alone, "remove", "1.0")


def corrupted(bundle: Path) -> str:
    path = bundle / "graphs" / "fused.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return "graphs/fused.onnx was changed"


def truncated(bundle: Path) -> str:
    path = bundle / "golden.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    return "golden.safetensors has"


def swapped(bundle: Path) -> str:
    """A graph of another version, with its right hash: only the golden samples tell."""
    data = (bundle.parent.parent / "models" / "1.0" / "graphs" / "fused.onnx").read_bytes()
    (bundle / "graphs" / "fused.onnx").write_bytes(data)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["graphs/fused.onnx"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    return "head 'total' of graphs/fused.onnx does not reproduce the golden samples"


def linked(bundle: Path) -> str:
    path = bundle / "graphs" / "fused.onnx"
    path.unlink()
    path.symlink_to("/etc/passwd")
    return "graphs/fused.onnx is a link"


@pytest.mark.parametrize("harm", [corrupted, truncated, swapped, linked])
def test_a_bundle_that_is_not_what_was_exported_is_refused_by_its_file(
    alone: Running, shelf: Path, harm: Callable[[Path], str]
):
    bundle = shelf / "harmed" / harm.__name__
    shutil.copytree(shelf / "later" / "1.9", bundle)
    wanted = harm(bundle)
    sent = versions.rows(4, 2)
    with pytest.raises(DeployError, match=wanted):
        change(alone, "add", "1.9", bundle)
    assert served(alone) == {"1.0": "default"}
    assert versions.right(versions.ask(alone.http, sent), sent, 1.0)
    assert versions.ask(alone.http, sent, "scaled/1.9").status_code == 404
    known = httpx.get(f"{alone.management}/models/scaled/all", trust_env=False).json()
    assert [model["modelVersion"] for model in known] == ["1.0"]


def test_the_bundle_must_be_the_version_that_was_meant(alone: Running, shelf: Path):
    with pytest.raises(DeployError, match=r"the bundle is scaled/1.9, asked for was scaled/2.0"):
        change(alone, "add", "2.0", shelf / "later" / "1.9")
    with pytest.raises(DeployError, match=r"scaled/1.0 is served already"):
        change(alone, "add", "1.0", shelf / "models" / "1.0")


def test_one_change_is_made_at_a_time(alone: Running, shelf: Path):
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(change, alone, "add", "1.9", shelf / "later" / "1.9")
        assert eventually(lambda: len(httpx.get(f"{alone.management}/models/scaled/all", trust_env=False).json()) == 2)
        with pytest.raises(DeployError, match=r"busy with another change \(add scaled/1.9\)"):
            change(alone, "promote", "1.0")
        adding.result(60)


def test_a_version_whose_worker_dies_while_it_loads_is_refused(alone: Running, shelf: Path):
    killed: set[int] = set()
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(change, alone, "add", "1.9", shelf / "later" / "1.9")
        while not adding.done():
            found = httpx.get(f"{alone.management}/models/scaled/1.9", trust_env=False).json()
            pids = [worker["pid"] for worker in (found[0]["workers"] if isinstance(found, list) else [])]
            for pid in set(pids) - killed - {-1}:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        with pytest.raises(DeployError, match=r"a worker of scaled/1.9 died while it was loading"):
            adding.result()
    assert 1 <= len(killed) <= 2
    assert served(alone) == {"1.0": "default"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Polyhead-Control": "1", "Host": "evil.example"},
        {"X-Polyhead-Control": "1", "Origin": "http://evil.example"},
    ],
)
def test_a_browser_cannot_be_talked_into_a_change(server: Running, headers: dict[str, str]):
    order = {"model": "scaled", "version": "1.0"}
    url = f"{server.side}/control/promote"
    assert httpx.post(url, json=order, headers=headers, trust_env=False).status_code == 403


def test_no_change_comes_through_the_servers_own_address(server: Running):
    headers = {"X-Polyhead-Control": "1"}
    for path in ("/control/promote", "//control/promote", "/v2/../control/promote"):
        answer = server.http.post(path, json={"model": "scaled", "version": "1.0"}, headers=headers)
        assert answer.status_code in (400, 404), path

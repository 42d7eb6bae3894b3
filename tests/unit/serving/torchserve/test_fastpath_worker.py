"""TorchServe's real worker process, with the fast path and without: the same messages get the same answers."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import orjson
import pytest

from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import LaunchError
from polyhead.serving.settings import Settings
from polyhead.serving.torchserve.fastpath.install import SOURCES, VERSION, in_worker, require_known
from polyhead.serving.torchserve.handler import HANDLER_FILE
from polyhead.serving.torchserve.layout import model_files
from tests.server import eventually
from tests.unit.serving.torchserve.frontend import Connection, Part, Sent, load_message, posted, predict_message

TS = Path(str(find_spec("ts").origin)).parent
ROWS = np.random.default_rng(0).standard_normal((40, 6)).astype("<f4")
INSTANCES = orjson.dumps({"instances": ROWS[:3].tolist(), "heads": ["level"]})
BATCHES = [
    [posted(0, ROWS[0].tobytes())],
    [posted(i, row.tobytes()) for i, row in enumerate(ROWS)],
    [
        posted(0, INSTANCES, "application/json", **{"Content-Length": "77", "X-Request-Id": "abc-1"}),
        posted(1, b"{", "application/json", **{"X-Request-Id": "not\tprintable"}),
        posted(2, ROWS[1].tobytes(), **{"X-POLYHEAD-HEADS": "tags", "traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}),
        posted(3, b"", ""),
        Sent(
            "form", (("Content-Type", "application/x-www-form-urlencoded"),), (Part("a", "", b"1"), Part("b", "", b"2"))
        ),
        Sent("part", (), (Part("x", "", b"1"), Part("body", "application/json", INSTANCES))),
        Sent("nothing", ()),
        posted(4, b"x" * 300_000, "text/plain"),
    ],
    [],
    [posted(i, INSTANCES, "application/json", **{"Content-Length": str(i)}) for i in range(9)],
]
DESCRIBE = [Sent("describe", (("describe", "True"),))]


@contextlib.contextmanager
def worker(
    folder: Path, bundle: Path, script: Path = TS / "model_service_worker.py", **settings: object
) -> Iterator[tuple[Connection, subprocess.Popen[str]]]:
    """A worker that has loaded a bundle, and the front end's connection to it."""
    made = Settings.parse({"device": "cpu", "threads": 1, **settings}, "test")
    for name, content in model_files(Bundle.open(bundle).spec, made, str(bundle), "cpu").items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    name = folder / "s.9000"
    command = [sys.executable, str(script), "--sock-type", "unix", "--sock-name", str(name)]
    command += ["--metrics-config", str(TS / "configs" / "metrics.yaml")]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "TS_DECODE_INPUT_REQUEST": "false"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        client = _connect(process, name)
        connection = Connection(client)
        connection.send(load_message("mlp", str(folder), 64, HANDLER_FILE))
        yield connection, process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _connect(process: subprocess.Popen[str], name: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    for _ in range(600):
        with contextlib.suppress(OSError):
            client.connect(str(name))
            return client
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    raise AssertionError("the worker did not listen")


def test_a_worker_answers_alike_with_the_fast_path_and_without(mlp, tmp_path):
    results = []
    for fast in (True, False):
        folder = tmp_path / str(fast)
        folder.mkdir()
        with worker(folder, mlp.bundle.folder, fast_path=fast) as (connection, process):
            code, text, answers = connection.receive()
            assert (code, text, answers) == (200, "loaded model mlp", [])
            found = []
            for batch in BATCHES:
                connection.send(predict_message(batch))
                found.append(connection.receive())
            connection.send(predict_message(DESCRIBE))
            ((answer,),) = connection.receive()[2:]
            assert orjson.loads(answer.body)["fast_path"] is fast
            results.append((found, replace(answer, body=b"")))
            if fast:
                connection.send(load_message("mlp", str(folder), 64, HANDLER_FILE))  # again: not what TorchServe does
                assert connection.receive() == (200, "loaded model mlp", [])
                connection.send(predict_message(BATCHES[1]))
                assert connection.receive() == found[1]
            connection.close()
            assert process.wait(20) == 0
            lines = process.stdout.read()
            assert "PredictionTime" not in lines or not fast
    assert results[0] == results[1]
    (_, _, (json, bad, row, *_)) = results[0][0][2]
    assert (json.status, json.headers["X-Polyhead-Request-Id"]) == (200, "abc-1")
    assert (bad.status, bad.headers.get("X-Polyhead-Request-Id")) == (400, None)
    assert (row.status, row.headers["X-Polyhead-Request-Id"]) == (200, "1" * 32)
    assert list(orjson.loads(row.body)) == ["tags"]


def test_a_worker_refuses_an_envelope_that_the_fast_path_would_pass_over(mlp, tmp_path):
    with worker(tmp_path, mlp.bundle.folder) as (connection, process):
        connection.receive()
        connection.send(load_message("mlp", str(tmp_path), 64, HANDLER_FILE, envelope="json"))
        connection.receive()
        connection.send(predict_message(BATCHES[0]))
        assert eventually(lambda: process.poll() is not None)
        assert "remove service_envelope" in process.stdout.read()
        connection.close()


def test_a_worker_of_another_torchserve_refuses_to_load(mlp, tmp_path):
    changed = tmp_path / "ts" / "model_service_worker.py"
    changed.parent.mkdir()
    changed.write_bytes((TS / changed.name).read_bytes() + b"# patched\n")
    folder = tmp_path / "model"
    folder.mkdir()
    with worker(folder, mlp.bundle.folder, changed) as (connection, process):
        assert connection.receive() == (500, "Unknown exception", [])
        assert process.wait(20) == 1
        lines = process.stdout.read()
        assert "as published, ts.model_service_worker was changed: install torchserve==0.12.0, or set" in lines
        connection.close()


def sources() -> dict[str, Path]:
    return {name: TS.parent / (name.replace(".", "/") + ".py") for name in SOURCES}


def test_the_installed_torchserve_is_known():
    require_known(version("torchserve"), sources())
    assert not in_worker()


def test_another_version_is_refused():
    with pytest.raises(LaunchError) as refused:
        require_known("0.12.1", sources())
    assert str(refused.value) == (
        "the fast path is for TorchServe 0.12.0, this is 0.12.1: install torchserve==0.12.0, "
        "or set polyhead_fast_path=false for TorchServe's own, slower protocol"
    )


@pytest.mark.parametrize("name", SOURCES)
def test_a_changed_source_is_refused(tmp_path, name):
    changed = tmp_path / "changed.py"
    changed.write_bytes(sources()[name].read_bytes() + b"\n")
    with pytest.raises(LaunchError, match=rf"{name} was changed"):
        require_known(VERSION, {**sources(), name: changed})

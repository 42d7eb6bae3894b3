"""Each look of the doctor, at a machine that lacks what it looks for."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from polyhead.serving.doctor import configured, endpoint, frontdoor, listening, machine, software
from polyhead.serving.doctor.exchange import get
from polyhead.serving.doctor.finding import Finding, good, looked
from polyhead.serving.errors import LaunchError
from polyhead.serving.frontdoor.settings import FrontDoorSettings
from polyhead.serving.settings import Settings
from tests.freeports import free_ports

GIB = 1024**3


def only(findings) -> Finding:
    (found,) = findings
    return found


def test_a_look_that_fails_is_a_problem_and_the_others_go_on():
    def refused():
        yield good("a", "first")
        raise LaunchError("the Java of PATH is broken: install another")

    def crashed():
        raise OSError("no such device")
        yield

    first, second = looked("java", refused)
    assert (first.level, second.level) == ("ok", "problem")
    assert second.what == "the Java of PATH is broken: install another"
    assert only(looked("device", crashed)).what == "could not be looked at (OSError: no such device)"


def test_what_is_installed_here_is_right():
    looks = (software.python, software.packages, software.torch, software.torchserve, software.java)
    assert {finding.topic: finding.level for look in looks for finding in look()} == dict.fromkeys(
        ("python", "packages", "torch", "torchserve", "java"), "ok"
    )
    assert only(software.onnxruntime(gpu=False)).level == "ok"
    assert "CPUExecutionProvider" in software.providers()
    assert only(software.fast_path(True)).what.startswith("active: 3 sources")
    assert only(software.fast_path(False)).mend == "polyhead_fast_path=true in config.properties"


@pytest.mark.parametrize(
    ("requirement", "fault"),
    [
        ("numpy<3,>=1.26", None),
        ("numpy<1,>=0.1", "numpy is "),
        ("polyhead-of-nowhere>=1", "polyhead-of-nowhere is missing"),
        ("uvicorn[standard-of-nowhere]>=1000", "uvicorn is "),
    ],
)
def test_a_requirement_is_there_or_named(requirement, fault):
    found = software._fault(requirement)
    assert found is None if fault is None else found.startswith((fault, requirement.partition("[")[0] + " is missing"))


def test_a_java_home_without_java_is_told_with_what_mends_it(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    found = only(software.java())
    assert found.level == "problem"
    assert str(tmp_path) in found.what
    assert "unset JAVA_HOME" in found.mend


def test_a_java_that_is_too_old(tmp_path, monkeypatch):
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_392\"' >&2\n")
    java.chmod(0o755)
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    found = only(software.java())
    assert found.level == "problem"
    assert "version 8" in found.what


def test_both_packages_of_onnxruntime_are_a_problem(tmp_path):
    for name in software.ONNXRUNTIMES:  # as pip leaves a package: its metadata
        folder = tmp_path / f"{name.replace('-', '_')}-9.9.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    code = (
        "from polyhead.serving.doctor.software import onnxruntime\n"
        "(found,) = onnxruntime(False)\nprint(found.level, '|', found.what, '|', found.mend)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    level, what, mend = result.stdout.strip().split(" | ")
    assert level == "problem"
    assert what == "onnxruntime-gpu 9.9 and onnxruntime 9.9 are both installed"
    assert mend.startswith("pip uninstall -y onnxruntime-gpu onnxruntime && ")


def test_an_onnxruntime_that_cannot_be_imported_takes_nobody_along(tmp_path, monkeypatch):
    (tmp_path / "onnxruntime.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = only(looked("onnxruntime", lambda: software.onnxruntime(False)))
    assert found.level == "problem"
    assert "onnxruntime cannot be imported" in found.what


def test_sources_of_torchserve_that_were_changed_stop_the_workers(tmp_path):
    home = software.torchserve_home()
    copy = tmp_path / "ts"
    for name in software.SOURCES:
        source = home.joinpath(*name.split(".")).with_suffix(".py")
        target = tmp_path.joinpath(*name.split(".")).with_suffix(".py")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    (copy / "__init__.py").write_text("")
    assert only(software.fast_path(True, tmp_path)).level == "ok"
    (copy / "service.py").write_text("# patched\n")
    found = only(software.fast_path(True, tmp_path))
    assert (found.level, found.mend) == (
        "problem",
        "pip install --force-reinstall --no-deps torchserve==0.12.0",
    )
    assert "ts.service was changed" in found.what


def test_threads_beyond_the_cores_are_warned_of():
    assert only(machine.cores(Settings(), 1)).level == "ok"
    many = only(machine.cores(Settings(threads=512), 1))
    assert (many.level, many.mend) == ("warning", "polyhead_threads=0 in config.properties: cores / workers")
    assert only(machine.cores(Settings(workers=500), 2)).level == "warning"


def grounds(root: Path, total: int, limit: str | None) -> Path:
    (root / "proc").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal:       {total // 1024} kB\nMemFree: 1 kB\n")
    if limit is not None:
        (root / "sys/fs/cgroup").mkdir(parents=True)
        (root / "sys/fs/cgroup/memory.max").write_text(f"{limit}\n")
    return root


@pytest.mark.parametrize(
    ("limit", "heap", "level", "source"),
    [
        (None, "-Xmx2g", "ok", "the machine's"),
        ("max", "-Xmx2g", "ok", "the machine's"),
        (str(3 * GIB), "-Xmx2g", "ok", "the control group's limit"),
        (str(2 * GIB), "-Xmx2g", "warning", "the control group's limit"),
        (str(2 * GIB), "-Xmx512m", "ok", "the control group's limit"),
    ],
)
def test_memory_is_held_against_what_java_and_the_workers_take(tmp_path, limit, heap, level, source):
    root = grounds(tmp_path, 16 * GIB, limit)
    found = only(machine.memory(["-Xms1m", heap], Settings(), 0, root))
    assert found.level == level
    assert source in found.what
    if level == "warning":
        assert "smaller -Xmx in vmargs (below 1392 MiB)" in found.mend
    large = only(machine.memory([heap], Settings(workers=4), 2 * GIB, root))
    assert large.level == "warning"


def test_few_descriptors_and_few_processes_are_warned_of(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        found = only(machine.descriptors())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (found.level, found.what) == ("warning", "1,024 open files and connections a process")
    assert found.mend.startswith(("ulimit -n ", "raise the hard limit"))
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/pids.max").write_text("100\n")
    assert only(machine.processes(tmp_path)).mend == "docker run --pids-limit 512"


def test_a_temporary_directory_with_too_long_a_path(tmp_path, monkeypatch):
    folder = tmp_path / ("long" * 20)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    found = only(machine.temporary())
    assert (found.level, found.mend) == ("problem", "TMPDIR=/tmp, or another short path")
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    assert only(machine.temporary()).level == "ok"


def test_a_port_in_use_is_named_with_one_that_is_free():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1] - 1  # management's turn
        found = only(listening.ports(port, running=False))
    assert found.level == "problem"
    assert f"{port + 1} (management) is in use" in found.what
    assert "polyhead serve --port " in found.mend


def test_a_front_door_without_nginx():
    def missing():
        raise LaunchError("no nginx")

    assert only(frontdoor.front_door(FrontDoorSettings(), missing)).level == "warning"
    assert only(frontdoor.front_door(FrontDoorSettings(door=True), missing)).level == "problem"


def test_a_configuration_that_the_server_would_refuse(tmp_path):
    file = tmp_path / "config.properties"
    file.write_text("polyhead_wokers=3\n")
    found = only(looked("configuration", lambda: iter([configured.configuration(file)])))
    assert found.level == "problem"
    assert "'polyhead_wokers' is no key" in found.what
    file.write_text("polyhead_drain_delay=30\npolyhead_drain_timeout=20\n")
    with pytest.raises(LaunchError, match="leaves nothing of drain_timeout"):
        configured.configuration(file)


def test_nothing_that_answers_and_no_url():
    (port,) = free_ports(1)
    found = only(endpoint.endpoint(f"http://127.0.0.1:{port}"))
    assert (found.level, found.what) == ("problem", f"nothing answers at http://127.0.0.1:{port}")
    assert only(endpoint.endpoint("localhost:8080")).what == "'localhost:8080' is no URL"


@contextmanager
def saying(what: bytes, times: int = 1) -> Iterator[int]:
    """A port where these bytes are said to whoever comes, whatever is asked."""

    def speak(server: socket.socket) -> None:
        for _ in range(times):
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(what)

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        thread = threading.Thread(target=speak, args=(server,), daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)


@pytest.mark.parametrize(
    "said", [b"SSH-2.0-OpenSSH_9.2p1\r\n", b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b""]
)
def test_what_speaks_no_http_is_no_server(said):
    with saying(said) as port:
        found = only(endpoint.endpoint(f"http://127.0.0.1:{port}"))
    assert (found.level, found.what) == ("problem", f"nothing answers at http://127.0.0.1:{port}")
    assert get("http://127.0.0.1:1/a path") is None


def test_a_door_that_wants_https_is_told_with_the_url_that_it_wants():
    body = b'{"code":400,"type":"https_required","error":"plain HTTP was sent to an HTTPS port"}'
    head = f"HTTP/1.1 400 Bad Request\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with saying(head + body) as port:
        found = only(endpoint.endpoint(f"http://127.0.0.1:{port}"))
    assert (found.level, found.what) == ("problem", f"http://127.0.0.1:{port} speaks HTTPS alone")
    assert found.mend.startswith(f"--url https://127.0.0.1:{port}, or")


class _Foreign(BaseHTTPRequestHandler):
    """Some web server: it answers 200 to everything, with `page`."""

    page = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.page)))
        self.end_headers()
        self.wfile.write(self.page)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.mark.parametrize(
    ("offset", "page", "exposed"),
    [
        (1, b"<h1>another server</h1>", False),
        (2, b"<h1>another server</h1>", False),
        (1, b'{"models": []}', True),
        (2, b'polyhead_build_info{version="1"} 1.0', True),
    ],
)
def test_only_what_is_ours_beside_the_port_is_an_exposure(offset, page, exposed):
    handler = type("Handler", (_Foreign,), {"page": page})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        found = endpoint.closed("127.0.0.1", server.server_port - offset)
        server.shutdown()
    assert found.level == ("problem" if exposed else "ok")

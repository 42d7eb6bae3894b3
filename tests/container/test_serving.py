"""The container as an operator runs it: reliability tests 5 and 15."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from polyhead.serving.bundle import Bundle
from polyhead.serving.torchserve.readiness import example
from tests.command import run_polyhead
from tests.container.conftest import opened
from tests.container.sandbox import Container, Image
from tests.e2e.browser import chromium
from tests.screenshots import SETTLE, Camera

WARM_SECONDS = 10.0


def ask(container: Container, folder: Path, row: int) -> tuple[dict[str, object], dict[str, np.ndarray], Bundle]:
    """What the container says of a golden row, and what eager PyTorch said."""
    bundle = Bundle.open(folder)
    golden = bundle.golden()
    answer = container.http.post(
        f"/predictions/{bundle.title}",
        content=example(bundle, golden, row),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Polyhead-Model"] == bundle.title
    return answer.json()["predictions"][0], {name: value[row] for name, value in golden.outputs.items()}, bundle


@pytest.mark.parametrize("row", [0, 1, 2])
def test_digits_answers_as_eager_pytorch(running, models, row):
    said, eager, bundle = ask(running, models / "digits", row)
    assert said["digit"]["index"] == int(eager["digit"].argmax())
    assert said["digit"]["label"] == bundle.spec.heads["digit"].labels[said["digit"]["index"]]
    assert said["ink"]["value"] == pytest.approx(float(np.ravel(eager["ink"])[0]), abs=1e-3)


@pytest.mark.parametrize("row", [0, 1, 2])
def test_smarthome_answers_as_eager_pytorch(running, models, row):
    said, eager, _ = ask(running, models / "smarthome", row)
    assert said["intent"]["index"] == int(eager["intent"].argmax())
    assert said["temperature"]["value"] == pytest.approx(float(np.ravel(eager["temperature"])[0]), abs=1e-2)


def test_a_scan_of_every_port_finds_the_front_door_alone(running, network):
    scan = ["nmap", "-Pn", "-n", "-sT", "-p-", "--max-retries", "1", "-T4", "-oG", "-", network.address]
    found = subprocess.run(scan, capture_output=True, text=True, check=True, timeout=300).stdout
    assert re.findall(r"(\d+)/open/", found) == ["8080"], found


def test_control_and_management_are_not_reached_through_the_door(running):
    for path in (
        "/control",
        "/control/add",
        "/models",
        "/models/digits",
        "/workflows",
        "/ping/../models",
        "/%2e%2e/models",
    ):
        for method in ("GET", "POST", "DELETE", "PUT"):
            answer = running.http.request(method, path, headers={"X-Polyhead-Control": "1"})
            assert answer.status_code in (400, 404, 405), (method, path, answer.status_code)


def test_no_process_is_root_or_can_become_it(running):
    first = psutil.Process(int(running.state()["pid"]))
    family = [first, *first.children(recursive=True)]
    assert len(family) >= 5  # polyhead, nginx twice, Java, two workers
    for process in family:
        status = Path(f"/proc/{process.pid}/status").read_text()
        assert set(process.uids()) == {10001}, process
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.M), process
        assert all(int(mask, 16) == 0 for mask in re.findall(r"^Cap\w+:\s+(\w+)$", status, re.M)), process


def test_nothing_but_tmp_can_be_written_and_that_is_bounded(running):
    for folder in ("/", "/etc", "/opt/polyhead", "/models", "/usr/bin", "/var/lib", "/run"):
        done = running.execute("python", "-c", f"open('{folder}/new', 'w')")
        assert done.returncode == 1, folder
        assert "Read-only file system" in done.stderr, done.stderr
    fill = """
f = open("/tmp/fill", "wb")
try:
    for _ in range(1000): f.write(bytes(1 << 20)), f.flush()
except OSError as error: print(error.strerror)
"""
    assert running.execute("python", "-c", fill).stdout.strip() == "No space left on device"
    try:  # it serves on, though nothing more can be written
        assert running.http.get("/v2/health/ready").status_code == 200
        assert (
            running.http.post(
                "/predictions/smarthome", content="good night", headers={"Content-Type": "text/plain"}
            ).status_code
            == 200
        )
    finally:
        running.execute("python", "-c", "import os; os.unlink('/tmp/fill')")


def test_a_shell_is_not_there(running):
    for shell in ("sh", "/bin/sh", "bash"):
        assert running.execute(shell, "-c", "true").returncode != 0


def test_the_health_check_of_the_image_agrees_with_readiness(running, image):
    assert running.http.get("/v2/health/ready").status_code == 200
    done = running.execute(*image.docker["Healthcheck"]["Test"][1:])
    assert done.returncode == 0, done.stderr


def test_verbs_that_are_not_in_it_say_so(running):
    done = running.execute("polyhead", "export", "/models/digits", "--out", "/tmp/x")
    assert done.returncode == 1
    assert "made for serving" in done.stderr
    assert "Traceback" not in done.stderr
    assert running.execute("polyhead", "inspect", "/models/digits").returncode == 0


BAD = [
    ("POST", "/predictions/digits", b"{", {"Content-Type": "application/json"}),
    ("POST", "/predictions/digits", b'{"instances":[{"image":{"b64":"AAAA"}}]}', {"Content-Type": "application/json"}),
    ("POST", "/predictions/digits", b"\x89PNG\r\n\x1a\nxxxx", {"Content-Type": "image/png"}),
    ("POST", "/predictions/digits", b"\x00" * 100, {"Content-Type": "application/vnd.apache.arrow.stream"}),
    ("POST", "/predictions/digits", b"\x93NUMPY", {"Content-Type": "application/x-npy"}),
    ("POST", "/predictions/digits", b"x", {"Content-Type": "application/pdf"}),
    ("POST", "/predictions/digits", b"\x1f\x8b\x00", {"Content-Type": "application/json", "Content-Encoding": "gzip"}),
    ("POST", "/predictions/nobody", b"{}", {"Content-Type": "application/json"}),
    ("POST", "/predictions/digits/9.9", b"{}", {"Content-Type": "application/json"}),
    ("POST", "/v2/models/digits/infer", b'{"inputs":[{"name":"image","shape":[-1],"datatype":"UINT8","data":[]}]}', {}),
    ("POST", "/v2/models/nobody/infer", b"{}", {}),
    ("POST", "/v1/models/nobody:predict", b"{}", {}),
    ("GET", "/predictions/digits", b"", {}),
    ("GET", "/v2/models/nobody", b"", {}),
    ("GET", "/console/../../etc/passwd", b"", {}),
    ("GET", "/no/such/place", b"", {}),
    ("BREW", "/predictions/digits", b"", {}),
    ("GET", "/v2", b"", {"X-Long": "x" * 100_000}),
]
LEAKS = re.compile(
    rb"/opt/|/tmp/|/models/(digits|smarthome)/|/usr/|/etc/|site-packages|Traceback|\.py\b|java\.|org\.pytorch|nginx/|Netty|TorchServe/",
    re.I,
)


@pytest.mark.parametrize(("method", "path", "body", "headers"), BAD)
def test_errors_tell_no_path_and_no_insides(running, method, path, body, headers):
    answer = running.http.request(method, path, content=body, headers=headers)
    assert 400 <= answer.status_code < 500, answer.text
    whole = b"\n".join(f"{name}: {value}".encode() for name, value in answer.headers.items()) + answer.content
    assert not LEAKS.search(whole), LEAKS.search(whole)
    assert set(answer.json()) >= {"error", "type"}


def test_warm_it_is_ready_in_ten_seconds(start, models):
    times = []
    for _ in range(2):  # the first fills the page cache
        container = start({"/models/digits": models / "digits"})
        times.append(container.wait_until_ready())
        assert container.stop() == 0
    print(f"ready after {times[1]:.1f} s (cold {times[0]:.1f} s)")
    assert times[1] <= WARM_SECONDS


def test_sigterm_answers_what_was_accepted_and_ends_with_0_and_starts_again(start, models):
    container = start({"/models": models})
    container.wait_until_ready()
    statuses: list[int] = []
    broken: list[str] = []
    stopping = threading.Event()
    body = example(Bundle.open(models / "digits"), Bundle.open(models / "digits").golden(), 0)

    def client() -> None:
        with httpx.Client(base_url=container.http.base_url, timeout=20, trust_env=False) as http:
            while True:
                try:
                    answer = http.post(
                        "/predictions/digits", content=body, headers={"Content-Type": "application/json"}
                    )
                    statuses.append(answer.status_code)
                except httpx.ConnectError:  # nobody listens any more: it was not accepted
                    return
                except httpx.HTTPError as error:
                    closed = isinstance(error, httpx.RemoteProtocolError | httpx.ReadError)  # an idle connection was
                    if not (stopping.is_set() and closed):
                        broken.append(repr(error))
                    return

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    stopping.set()
    before = time.monotonic()
    assert container.stop() == 0, container.text()
    print(f"stopped in {time.monotonic() - before:.1f} s after {len(statuses)} answers")
    for thread in threads:
        thread.join(30)
    assert broken == []
    assert len(statuses) > 20
    assert set(statuses) <= {200, 503}
    assert statuses.count(503) <= len(threads)
    again = start({"/models": models})
    again.wait_until_ready()
    assert again.stop() == 0


def test_it_lives_within_a_bound_of_memory(start, models):
    container = start({"/models": models}, memory=2 << 30)
    container.wait_until_ready()
    for row in (0, 1):
        ask(container, models / "digits", row)
        ask(container, models / "smarthome", row)
    assert container.memory is not None
    print(f"at most {container.memory.peak() >> 20} MiB, page cache included")
    assert container.stop() == 0


def failure(container: Container) -> str:
    """What a container that cannot start says in its last line; it must end by itself, and without a traceback."""
    assert container.process.wait(120) in (1, 2), container.text()
    assert "Traceback" not in container.text()
    return container.text().strip().splitlines()[-1]


def test_no_mount_an_empty_one_and_one_that_cannot_be_read_are_told_apart(start, tmp_path, models):
    assert re.search(r"/models: is no bundle and holds none", failure(start({})))
    closed = tmp_path / "closed"
    shutil.copytree(models / "digits", closed)
    opened(closed)
    closed.chmod(0o700)
    assert "'/models' is not readable" in failure(start({"/models": closed}))


def test_a_changed_bundle_is_refused_by_name(start, tmp_path, models):
    changed = tmp_path / "changed"
    shutil.copytree(models / "digits", changed)
    graph = next((changed / "graphs").glob("*.onnx"))
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(bytes(data))
    opened(changed)
    assert graph.name in failure(start({"/models": changed}))


def test_a_tmp_that_is_too_small_is_an_error_and_no_riddle(start, models):
    assert re.search(r"No space left|/tmp", failure(start({"/models": models / "digits"}, tmp="4k")))


def test_an_image_with_a_bundle_inside_serves_it(image, start, models):
    result = run_polyhead(
        *("containerize", models / "digits", "--tag", "localhost/polyhead-test:digits", "--base", image.name),
        *("--builder", "buildah", "--json"),
        timeout=600,
    )
    said = json.loads(result.stdout)
    assert said["models"] == {"digits/1.0": Bundle.open(models / "digits").digest}
    baked = Image("localhost/polyhead-test:digits")
    try:
        assert said["models"]["digits/1.0"] in baked.config["Labels"]["io.polyhead.models"]
        container = start({}, of=baked)
        container.wait_until_ready()
        ask(container, models / "digits", 0)
        assert container.stop() == 0
    finally:
        baked.close()


def test_the_console_that_it_serves_is_drawn_by_a_browser(running: Container, tmp_path: Path) -> None:
    """Writes the pictures of docs/console.md: POLYHEAD_SCREENSHOTS=docs make container-test."""
    folder = Path(os.environ.get("POLYHEAD_SCREENSHOTS", tmp_path)).resolve()
    with chromium() as browser:
        Camera(browser, str(running.http.base_url).rstrip("/"), folder, "", SETTLE).take()
    taken = {path.stem: path.stat().st_size for path in folder.glob("console-*.png")}
    assert {"console-digits-light", "console-smarthome-dark", "console-smarthome-phone", "console-docs"} <= set(taken)
    assert min(taken.values()) > 10_000, taken  # an empty page has 3 KB

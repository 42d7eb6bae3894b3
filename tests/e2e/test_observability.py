"""What an operator sees of a running server: the metrics page, the log, and that a worker's death loses no count."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import termios
from typing import IO

import httpx
import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from polyhead.serving.client import Client, Refused
from tests.e2e.doors import require_nginx
from tests.server import Running, eventually, serving

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)


class Page:
    """The metrics page at one moment."""

    def __init__(self, server: Running) -> None:
        response = httpx.get(server.metrics, trust_env=False)
        assert response.status_code == 200
        families = list(text_string_to_metric_families(response.text))
        assert len({family.name for family in families}) == len(families), "a family stands twice"
        self.samples = [sample for family in families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels."""
        return sum(s.value for s in self.samples if s.name == name and labels.items() <= s.labels.items())

    def counters(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """Every count of ours that may never go down; a worker's own resources end with it."""
        endings = ("_total", "_bucket", "_count")
        return {
            (s.name, frozenset(s.labels.items())): s.value
            for s in self.samples
            if s.name.startswith("polyhead_") and s.name.endswith(endings) and "pid" not in s.labels
        }


def workers(server: Running) -> list[int]:
    return [p.pid for p in server.family() if any("model_service_worker" in part for part in p.cmdline())]


@pytest.fixture(scope="module")
def own(digits_bundle):
    """A server that nobody else asks, its log in JSON."""
    with serving([digits_bundle], "--log-format", "json", "--max-batch-delay", "5") as running:
        yield running


def test_what_was_sent_is_what_was_counted_also_over_the_death_of_a_worker(own):
    before = Page(own).value("polyhead_requests_total")  # the launcher's own: the golden samples
    assert before > 0
    with Client(own.url) as client:
        first = client.predict("digits", IMAGES[:20, ..., None])
        digits = client.predict("digits", [image.tolist() for image in IMAGES], ["digit"])
        with pytest.raises(Refused) as refused:
            client.predict("digits", IMAGES[:1, ..., None], ["nose"])
    assert refused.value.type == "unknown_head"
    assert len(first) == 20
    assert eventually(lambda: Page(own).value("polyhead_batch_requests_sum") == before + 3, 5)
    page = Page(own)
    assert page.value("polyhead_requests_total", model="digits", version="1.0") == before + 3
    assert page.value("polyhead_request_failures_total", type="unknown_head") == 1
    assert page.value("polyhead_rows_total") == before + 60
    assert page.value("polyhead_head_rows_total", head="digit") == before + 60
    assert page.value("polyhead_head_rows_total", head="ink") == before + 20
    assert page.value("polyhead_head_labels_total", head="digit") == before + 60
    sevens = sum(row["digit"].label == "7" for row in digits)
    assert page.value("polyhead_head_labels_total", head="digit", label="7") >= sevens
    assert page.value("polyhead_stage_seconds_count", stage="forward") > 0
    assert page.value("polyhead_torchserve_up") == 1
    assert page.value("ts_inference_requests_total") > 0, "TorchServe's own stand behind ours"
    assert page.value("polyhead_bundle_info", runtime="onnxruntime", device="cpu") == 1

    (worker,) = workers(own)
    if "OMP_NUM_THREADS" not in os.environ:
        threads = own.ready["models"][0]["threads"]
        assert psutil.Process(worker).environ()["OMP_NUM_THREADS"] == str(threads)
    os.kill(worker, signal.SIGKILL)
    seen = page.counters()

    def back() -> bool:
        now = Page(own).counters()
        assert {key for key, value in seen.items() if now.get(key, -1) < value} == set(), "a counter went down"
        seen.update(now)
        return Page(own).value("polyhead_worker_starts_total") == 2

    assert eventually(back, 40)
    assert Page(own).value("polyhead_workers") == 1
    with Client(own.url, deadline=30) as client:
        client.predict("digits", IMAGES[:1, ..., None])
    assert eventually(lambda: Page(own).value("polyhead_requests_total") == before + 4, 5)


def test_the_log_is_one_object_a_line(own):
    os.kill(workers(own)[0], signal.SIGKILL)  # TorchServe says so at length
    assert eventually(lambda: Page(own).value("polyhead_worker_starts_total") >= 2, 40)
    own.process.send_signal(signal.SIGTERM)
    _, errors = own.process.communicate(timeout=30)
    lines = [json.loads(line) for line in errors.splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    assert all("\n" not in line["time"] for line in lines)
    assert lines[0]["message"].startswith("starting TorchServe")
    assert {line["logger"] for line in lines} > {"polyhead.serve"}
    assert lines[-1]["message"].startswith("stopping: answering what was accepted")


def test_the_page_is_for_this_machine_and_changes_nothing(server):
    launcher = psutil.Process(server.process.pid)
    listening = [c.laddr for c in launcher.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN]
    assert {f"http://{address.ip}:{address.port}" for address in listening} == {server.side, server.management}
    assert server.metrics == f"{server.side}/metrics"
    assert server.metrics.startswith("http://127.0.0.1:")
    assert httpx.post(server.metrics, trust_env=False).status_code == 405
    assert httpx.get(server.metrics.replace("/metrics", "/"), trust_env=False).status_code == 404


def test_a_log_that_nobody_reads_stops_nobody(digits_bundle):
    """A pipe takes 64 KiB; behind it would wait the launcher, and behind that nginx and TorchServe."""
    require_nginx()
    body = {"instances": [{"image": [[0] * 8] * 8}], "heads": ["digit"]}
    with serving([digits_bundle], "--front-door", "--access-log") as running:
        for _ in range(600):  # of two lines, each of more than a hundred bytes
            assert running.predict("digits", body).status_code == 200
        assert running.http.get("/v2/health/ready").status_code == 200
        assert waiting(running.process.stderr) >= 60_000
        assert "\npolyhead_log_lines_lost_total 0.0\n" in running.http.get("/metrics").text  # so few wait in memory


def waiting(pipe: IO[str]) -> int:
    """Bytes that lie in a pipe."""
    return int.from_bytes(fcntl.ioctl(pipe.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)

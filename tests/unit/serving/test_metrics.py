"""What a worker counts, and the page that is made of it: real engines, real files, Prometheus's own parser."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import orjson
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from polyhead.models.spec import ModelSpec
from polyhead.models.tokenizer import Encoding
from polyhead.serving import metrics
from polyhead.serving.answers import HeadAnswers
from polyhead.serving.metrics import cells, collector
from polyhead.serving.metrics.collector import Workers
from polyhead.serving.metrics.drift import drift_of
from polyhead.serving.metrics.families import NONE, Layout, value_bounds
from polyhead.serving.metrics.page import MetricsPage
from polyhead.serving.metrics.progress import Progress
from polyhead.serving.prototypes import Prototypes
from polyhead.serving.request import HttpRequest
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings

NOWHERE = "http://127.0.0.1:9/metrics"


class Watched:
    """A responder that counts into a folder."""

    def __init__(self, example, folder: Path) -> None:
        engine = example.engine()
        self.observer = metrics.observer(example.bundle, engine, folder)
        assert isinstance(self.observer, metrics.Observer)
        self.responder = Responder(engine, Settings(), observe=self.observer)

    def ask(self, *bodies: object) -> list[dict[str, object]]:
        """One batch of JSON requests; returns the answers."""
        requests = [HttpRequest(orjson.dumps(body), "application/json") for body in bodies]
        answers = [orjson.loads(response.body) for response in self.responder.respond(requests)]
        self.observer.flush()
        return answers


def page(folder: Path) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample of the page by name and labels, `model` and `version` left out."""
    with MetricsPage(folder, NOWHERE) as made:
        return samples(made.text().decode())


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found = {}
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if key not in ("model", "version")}
            key = (sample.name, frozenset(labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def of(found, name: str, **labels: str) -> float:
    key = (f"polyhead_{name}", frozenset(labels.items()))
    assert key in found, [labels for other, labels in found if other == key[0]]
    return found[key]


def require_buckets(found, values: list[float], **labels: str) -> None:
    """Each bucket of a head's values holds what lies at or below its bound."""
    buckets = {
        dict(other)["le"]: value
        for (name, other), value in found.items()
        if name == "polyhead_head_value_bucket" and labels.items() <= dict(other).items()
    }
    assert len(buckets) > 8
    assert buckets == {bound: sum(value <= float(bound) for value in values) for bound in buckets}


def rows(count: int, seed: int = 0) -> list[list[float]]:
    return np.random.default_rng(seed).standard_normal((count, 6)).round(3).tolist()


def test_requests_rows_and_failures_are_what_was_sent(mlp, tmp_path):
    watched = Watched(mlp, tmp_path)
    watched.ask({"instances": rows(3)}, {"instances": [[1, 2]]}, {"instances": rows(1), "heads": ["nose"]})
    watched.ask({"instances": rows(2)})
    found = page(tmp_path)
    assert of(found, "requests_total") == 4
    assert of(found, "rows_total") == 5
    assert of(found, "request_failures_total", type="invalid_instance") == 1
    assert of(found, "request_failures_total", type="unknown_head") == 1
    assert of(found, "request_failures_total", type="(other)") == 0
    assert of(found, "batch_requests_sum") == 4
    assert of(found, "batch_requests_bucket", le="1") == 1
    assert of(found, "batch_requests_bucket", le="4") == of(found, "batch_requests_count") == 2
    assert of(found, "batch_rows_sum") == 5


def test_every_stage_has_a_time_for_every_batch(mlp, tmp_path):
    watched = Watched(mlp, tmp_path)
    for _ in range(3):
        watched.ask({"instances": rows(1)})
    watched.ask({"instances": []})  # comes no further than decode
    found = page(tmp_path)
    counts = {
        stage: of(found, "stage_seconds_count", stage=stage)
        for stage in ("decode", "collate", "forward", "answer", "encode")
    }
    assert counts == {"decode": 4, "collate": 3, "forward": 3, "answer": 3, "encode": 3}
    assert 0 < of(found, "stage_seconds_sum", stage="forward") < 10


def test_heads_are_counted_for_the_rows_that_wanted_them_alone(mlp, tmp_path):
    watched = Watched(mlp, tmp_path)
    wanted = [(3, ["color"]), (2, ["color", "level"]), (4, ["tags"]), (1, None)]
    bodies = [{"instances": rows(n, n), **({} if heads is None else {"heads": heads})} for n, heads in wanted]
    answers = watched.ask(*bodies)
    found = page(tmp_path)
    asked = {
        head: (of(found, "head_requests_total", head=head), of(found, "head_rows_total", head=head))
        for head in ("color", "level", "tags", "vector")
    }
    assert asked == {"color": (3, 6), "level": (2, 3), "tags": (2, 5), "vector": (1, 1)}
    given = [row for answer in answers for row in answer["predictions"]]
    colors = [row["color"] for row in given if "color" in row]
    for label in ("red", "green", "blue", "black"):
        expected = sum(color["label"] == label for color in colors)
        assert of(found, "head_labels_total", head="color", label=label) == expected
    for label in ("wet", "hot", "old"):
        expected = sum(label in row["tags"]["labels"] for row in given if "tags" in row)
        assert of(found, "head_labels_total", head="tags", label=label) == expected
    assert of(found, "head_confidence_count", head="color") == 6
    assert of(found, "head_confidence_sum", head="color") == pytest.approx(sum(c["score"] for c in colors), rel=1e-5)
    low = sum(c["score"] <= 0.5 for c in colors)
    assert of(found, "head_confidence_bucket", head="color", le="0.5") == low
    levels = [row["level"]["value"] for row in given if "level" in row]
    require_buckets(found, levels, head="level", unit="K", component="0")


def test_each_value_of_a_head_has_a_histogram(mlp, tmp_path):
    watched = Watched(mlp, tmp_path)
    (answer,) = watched.ask({"instances": rows(5), "heads": ["position"]})
    found = page(tmp_path)
    for component in range(3):
        values = [row["position"]["value"][component] for row in answer["predictions"]]
        require_buckets(found, values, head="position", unit="m", component=str(component))


def counted(head: dict[str, object], outputs: list[object], **about: object) -> dict[str, float]:
    """What is counted of one head's raw outputs, by label."""
    data = {"name": "m", "version": "1", "inputs": {"text": TEXT}, "heads": {"h": head}}
    spec = ModelSpec.parse(data).heads["h"]
    layout = Layout()
    names = (*about.get("enrolled", ()), NONE) if spec.kind == "oneshot" else spec.labels
    labels = layout.add("polyhead_head_labels", {"head": "h"}, over="label", names=names)
    if spec.kind == "classification":
        layout.add("polyhead_head_confidence", {"head": "h"}, bounds=(0.5, 0.9))
    values = np.zeros(layout.size)
    drift = drift_of("h", spec, layout, values)
    prototypes = about.get("prototypes")
    parts = []
    for output in outputs:
        with np.errstate(invalid="ignore"):
            found = HeadAnswers(spec, np.asarray(output, np.float32), about.get("texts", ()), prototypes)
        parts.append((drift.keep(found), about.get("rows")))
    drift.count(parts)
    assert np.isfinite(values).all()
    return dict(zip(names, values[labels.place].tolist(), strict=True))


TEXT = {"kind": "text", "tokenizer": "tokenizer.json", "max_length": 24}
COLORS = {"kind": "classification", "labels": ["red", "green"]}
PERSON = {"kind": "oneshot", "dim": 2, "normalize": False, "max_distance": 0.5}


def test_a_row_that_is_refused_counts_for_no_label():
    nan, inf = float("nan"), float("inf")
    assert counted(COLORS, [[[1, 0], [0, 1]], [[nan, 1], [0, 3], [inf, inf]]]) == {"red": 1, "green": 2}


def test_rows_that_did_not_want_the_head_are_left_out():
    assert counted(COLORS, [[[1, 0], [0, 1], [0, 1]]], rows=np.array([True, False, True])) == {"red": 1, "green": 1}


def test_a_word_counts_once_with_its_first_tokens_label():
    first = [np.array([1, 3]), np.array([], np.int64), np.array([1])]  # behind a special token, in two pieces
    texts = [Encoding("t", np.arange(5), words, np.zeros((len(words), 2), np.int64)) for words in first]
    logits = np.zeros((3, 5, 3))
    logits[0, 1, 1] = logits[0, 2, 2] = logits[2, 1, 1] = logits[1, :, 2] = 1
    head = {"kind": "tokens", "labels": ["O", "B-x", "I-x"]}
    assert counted(head, [logits], texts=texts) == {"O": 1, "B-x": 2, "I-x": 0}


def test_the_nearest_class_counts_and_none_where_none_is_near():
    enrolled = Prototypes(("ana", "bob"), np.array([[0, 0], [1, 1]], np.float32), np.array([1, 1]))
    vectors = [[[0.1, 0], [1, 1.1]], [[9, 9], [0, 0]]]
    found = counted(PERSON, vectors, prototypes=enrolled, enrolled=("ana", "bob"))
    assert found == {"ana": 2, "bob": 1, NONE: 1}
    assert counted(PERSON, vectors) == {NONE: 4}, "nobody is enrolled"


def test_masks_and_vectors_are_not_counted():
    for head in ({"kind": "embedding", "dim": 3}, {"kind": "segmentation", "labels": ["a", "b"]}):
        data = {"name": "m", "version": "1", "inputs": {"x": {"kind": "image", "size": [4, 4]}}, "heads": {"h": head}}
        assert drift_of("h", ModelSpec.parse(data).heads["h"], Layout(), np.zeros(0)) is None


def test_the_page_tells_what_answers_and_what_is_installed(mlp, tmp_path):
    Watched(mlp, tmp_path)
    with MetricsPage(tmp_path, NOWHERE) as made:
        text = made.text().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    (bundle,) = families["polyhead_bundle_info"].samples
    assert bundle.labels == {
        **{"model": "mlp", "version": "1.0", "bundle": mlp.bundle.digest[:12]},
        **{"graph": "fused-onnx", "precision": "fp32", "runtime": "onnxruntime", "device": "cpu"},
    }
    assert families["polyhead_build_info"].samples[0].labels["torchserve"] == "0.12.0"
    assert families["polyhead_workers"].samples[0].value == 1
    assert families["polyhead_worker_resident_memory_bytes"].samples[0].value > 1e7
    assert families["polyhead_torchserve_up"].samples[0].value == 0


WORKER = """
import sys, time
from pathlib import Path
import numpy as np
from polyhead.serving.metrics import cells
from polyhead.serving.metrics.families import Layout
layout = Layout()
layout.add("polyhead_requests")
layout.add("polyhead_head_labels", {"head": "h"}, over="label", names=("a", 'quote " and \\\\ and \\n'))
import os
about = cells.About(model="m", version="1", pid=os.getpid(), started=cells.own_start(), bundle={"graph": "g"},
                    series=tuple(layout.series))
values = cells.create(Path(sys.argv[1]), about, layout)
values += [3, 1, 2]
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def worker(tmp_path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def test_a_killed_workers_counts_stay_and_are_counted_once(worker, tmp_path):
    workers = Workers(tmp_path)

    def value(name: str) -> float:
        found = [s.value for family in workers.collect() for s in family.samples if s.name == f"polyhead_{name}"]
        return sum(found)

    assert (value("requests_total"), value("workers"), value("worker_starts_total")) == (3, 1, 1)
    worker.kill()
    worker.wait()
    for _ in range(2):
        assert (value("requests_total"), value("workers"), value("worker_starts_total")) == (3, 0, 1)
    assert list(tmp_path.glob("*.counts")) == []


def test_another_process_of_the_same_number_is_not_the_worker(worker, tmp_path):
    (path,) = tmp_path.glob("*.counts")
    (file,) = cells.CellsFile.all_in(tmp_path, {})
    assert file.process() == psutil.Process(worker.pid)
    path.write_bytes(path.read_bytes().replace(b'"started":1', b'"started":2'))
    assert cells.CellsFile(path).process() is None


def test_labels_are_escaped(worker, tmp_path):
    found = page(tmp_path)
    assert of(found, "head_labels_total", head="h", label='quote " and \\ and \n') == 2


def test_two_workers_are_summed(worker, tmp_path):
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as second:
        assert second.stdout.readline() == "ready\n"
        found = page(tmp_path)
        second.kill()
    assert of(found, "requests_total") == 6
    assert of(found, "workers") == 2


def test_a_head_of_a_thousand_labels_has_a_bounded_number_of_series(tmp_path):
    layout = Layout()
    names = [f"label {i}" for i in range(1000)]
    series = layout.add("polyhead_head_labels", {"head": "h"}, over="label", names=names)
    started = cells.own_start()
    pid = psutil.Process().pid
    about = cells.About(model="m", version="1", pid=pid, started=started, bundle={}, series=tuple(layout.series))
    values = cells.create(tmp_path, about, layout)
    workers = Workers(tmp_path)

    def labels() -> dict[str, float]:
        (family,) = (f for f in workers.collect() if f.name == "polyhead_head_labels")
        return {sample.labels["label"]: sample.value for sample in family.samples}

    values[series.start + 900] = 5
    assert labels() == {"label 900": 5, "(other)": 0}
    values[series.place] += 1
    found = labels()
    assert len(found) == collector.LABELS + 1
    assert found["label 900"] == 6
    assert sum(found.values()) == 1005
    values[series.start + 999] += 7
    assert labels()["(other)"] == found["(other)"] + 7, "what was counted among the others stays there"


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [([1.0, 3.0], 0.0, 4.0), ([5.0], 2.5, 7.5), ([0.0, 0.0], -0.5, 0.5), ([-2e6, 6e6], -6e6, 1e7)],
)
def test_bounds_reach_half_a_range_beyond_the_golden_values(values, low, high):
    bounds = value_bounds(np.asarray(values, np.float32))
    assert 8 <= len(bounds) <= 12
    assert list(bounds) == sorted(set(bounds))
    step = (high - low) / 11
    assert bounds[0] == pytest.approx(low, abs=step / 2)
    assert bounds[-1] == pytest.approx(high, abs=step / 2)


def test_torchserves_own_page_stands_behind_ours(mlp, tmp_path):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b'# HELP ts_x x\n# TYPE ts_x counter\nts_x{hostname="h",} 4.0\n'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    Watched(mlp, tmp_path)
    with HTTPServer(("127.0.0.1", 0), Handler) as theirs:
        thread = threading.Thread(target=theirs.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        with MetricsPage(tmp_path, f"http://127.0.0.1:{theirs.server_port}/metrics") as made:
            text = made.text().decode()
        theirs.shutdown()
        thread.join()
    found = samples(text)
    assert found["ts_x_total", frozenset({("hostname", "h")})] == 4
    assert of(found, "torchserve_up") == 1


def test_progress_is_the_requests_that_a_version_has_answered(mlp, tmp_path):
    progress, watched = Progress(tmp_path), Watched(mlp, tmp_path)
    assert progress.answered(mlp.bundle) == 0
    watched.ask({"instances": rows(3)}, {"instances": [[1, 2]]})
    watched.ask({"instances": rows(2)})
    assert progress.answered(mlp.bundle) == 3


def test_where_nobody_asks_for_counts_there_are_none(mlp):
    assert metrics.observer(mlp.bundle, mlp.engine(), None) is None

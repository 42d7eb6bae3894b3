"""What the dashboard shows, row by row. Recording rules are asked where several panels, or an alert, ask the same."""

from __future__ import annotations

from collections.abc import Iterator

from dashboard.chosen import MODEL, OF_JOB, RATE, RECORDED
from dashboard.forms import Panel, bars, figure, lines
from dashboard.inside import heads, workers


def rows() -> Iterator[tuple[str, list[tuple[Panel, int, int]]]]:
    """Rows of panels, each with its width and height."""
    yield "Now", [(panel, 4, 4) for panel in _now()]
    yield "Traffic and errors", [(panel, 8, 8) for panel in _traffic()]
    yield "The front door", [(panel, 8, 8) for panel in _door()]
    yield "Latency", [(panel, 8, 8) for panel in _latency()]
    yield "Batches", [(panel, 8, 8) for panel in _batches()]
    yield "Heads and drift", [(panel, 8, 9) for panel in heads()]
    yield "Workers", [(panel, 8, 8) for panel in workers()]


def _now() -> Iterator[Panel]:
    yield figure(
        "Models ready",
        f"min(polyhead_model_ready{{{MODEL}}})",
        "bool_yes_no",
        "Whether every model has answered its golden samples lately, on every instance.",
        [(None, "red"), (1, "green")],
    )
    yield figure(
        "Requests a second",
        f"sum(rate(polyhead_requests_total{{{MODEL}}}{RATE}))",
        "reqps",
        "Answered by workers.",
        [(None, "blue")],
    )
    yield figure(
        "Answers that are 5xx, 1 h",
        f"max(job:polyhead_errors:ratio1h{{{OF_JOB}}}) or vector(0)",
        "percentunit",
        "The objective is 0.1 %.",
        [(None, "green"), (0.001, "yellow"), (0.0144, "red")],
    )
    yield figure(
        "Longest wait before a batch",
        f'max(model:polyhead_queue_seconds:mean5m{{{OF_JOB},model=~"$model"}})',
        "s",
        "Mean over five minutes of the model that waits longest. A few milliseconds are the batch's own delay.",
        [(None, "green"), (0.25, "yellow"), (2, "red")],
    )
    yield figure(
        "Busiest worker",
        f"max(model:polyhead_worker_busy:ratio5m{{{RECORDED}}})",
        "percentunit",
        "Share of its time that a worker computes. Above 0.8 queues begin.",
        [(None, "green"), (0.7, "yellow"), (0.9, "red")],
    )
    yield figure(
        "Worker starts, 15 min",
        f"sum(increase(polyhead_worker_starts_total{{{MODEL}}}[15m]))",
        "none",
        "After the first minutes of a server: deaths.",
        [(None, "green"), (1, "yellow"), (4, "red")],
    )


def _traffic() -> Iterator[Panel]:
    yield lines(
        "Requests by model",
        [(f"sum by (model, version) (rate(polyhead_requests_total{{{MODEL}}}{RATE}))", "{{model}}/{{version}}")],
        "reqps",
        "Requests that workers answered, failures counted.",
    )
    yield lines(
        "Rows by model",
        [(f"sum by (model, version) (rate(polyhead_rows_total{{{MODEL}}}{RATE}))", "{{model}}/{{version}}")],
        "rowsps",
        "Rows of the requests that could be decoded.",
    )
    yield lines(
        "Requests refused, by type",
        [(f"sum by (type) (rate(polyhead_request_failures_total{{{MODEL}}}{RATE})) > 0", "{{type}}")],
        "reqps",
        "One of Polyhead's own errors (docs/protocol.md); `internal_error` is our fault. None: no line.",
        stack=True,
    )
    yield lines(
        "TorchServe's answers by class",
        [
            (f'sum(rate(Requests2XX{{{OF_JOB},instance=~"$instance"}}{RATE}))', "2xx"),
            (f'sum(rate(Requests4XX{{{OF_JOB},instance=~"$instance"}}{RATE}))', "4xx"),
            (f'sum(rate(Requests5XX{{{OF_JOB},instance=~"$instance"}}{RATE}))', "5xx"),
        ],
        "reqps",
        "A full queue and a worker's death are here as 5xx. A class appears with its first answer.",
        stack=True,
    )
    yield lines(
        "Share of 5xx, by window",
        [(f"job:polyhead_errors:ratio{window}{{{OF_JOB}}}", window) for window in ("5m", "1h", "6h", "3d")],
        "percentunit",
        "What the burn-rate alerts compare with 0.001. No 5xx ever: no line.",
    )
    yield lines(
        "Golden samples that failed",
        [
            (
                f"sum by (model, version) (increase(polyhead_probe_failures_total{{{MODEL}}}[5m]))",
                "{{model}}/{{version}}",
            )
        ],
        "short",
        "Answers to the probes that were wrong, late or missing, in five minutes.",
    )


def _door() -> Iterator[Panel]:
    yield lines(
        "Answers by status",
        [
            (
                f'sum by (status) (rate(polyhead_front_requests_total{{{OF_JOB},instance=~"$instance"}}{RATE})) > 0',
                "{{status}}",
            )
        ],
        "reqps",
        "As clients saw them: with what nginx refused itself (401, 413, 429, 503). Empty without a front door.",
        stack=True,
    )
    yield lines(
        "Answers by route",
        [
            (
                f'sum by (route) (rate(polyhead_front_requests_total{{{OF_JOB},instance=~"$instance"}}{RATE}))',
                "{{route}}",
            )
        ],
        "reqps",
        "Predictions, and what is asked of the server itself. Empty without a front door.",
        stack=True,
    )
    yield lines(
        "Time of a prediction, as the door saw it",
        [
            (
                f"histogram_quantile({quantile}, sum by (le) (rate(polyhead_front_request_seconds_bucket{{{OF_JOB},"
                f'instance=~"$instance",route="predict"}}{RATE})))',
                name,
            )
            for quantile, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))
        ],
        "s",
        "From the first byte of the request to the last of the answer. Empty without a front door.",
    )


def _latency() -> Iterator[Panel]:
    yield lines(
        "From arrival to answer, mean",
        [(f'model:polyhead_answer_seconds:mean5m{{{OF_JOB},model=~"$model"}}', "{{model}}")],
        "s",
        "By TorchServe: the wait, and the work.",
    )
    yield lines(
        "Wait before a batch, mean",
        [(f'model:polyhead_queue_seconds:mean5m{{{OF_JOB},model=~"$model"}}', "{{model}}")],
        "s",
        "From arrival until the batch was closed, its delay included. Where this rises, more comes than is computed.",
    )
    yield lines(
        "Stages of a batch, p99",
        [
            (
                f"max by (stage) (model_stage:polyhead_stage_seconds:p99_5m{{{RECORDED}}})",
                "{{stage}}",
            )
        ],
        "s",
        "decode, collate, forward, answer, encode: which of them is slow.",
    )
    yield lines(
        "Where a worker's time goes",
        [(f"sum by (stage) (rate(polyhead_stage_seconds_sum{{{MODEL}}}{RATE}))", "{{stage}}")],
        "s",
        "Seconds of each stage in a second, over all workers.",
        stack=True,
    )
    yield bars(
        "Forward passes by time",
        f'sum by (le) (increase(polyhead_stage_seconds_bucket{{{MODEL},stage="forward"}}{RATE}))',
        "How long one forward pass takes.",
    )
    yield lines(
        "How busy workers are",
        [
            (
                f"model:polyhead_worker_busy:ratio5m{{{RECORDED}}}",
                "{{model}}/{{version}}",
            )
        ],
        "percentunit",
        "Share of their time that workers compute.",
        max=1,
    )


def _batches() -> Iterator[Panel]:
    yield lines(
        "Requests of a batch, mean",
        [
            (
                f"model:polyhead_batch_requests:mean5m{{{RECORDED}}}",
                "{{model}}/{{version}}",
            )
        ],
        "short",
        "Near 1 batching buys nothing, near polyhead_max_batch_size a worker is full.",
    )
    yield bars(
        "Batches by requests",
        f"sum by (le) (increase(polyhead_batch_requests_bucket{{{MODEL}}}{RATE}))",
        "How many requests met in one forward pass.",
    )
    yield bars(
        "Batches by rows",
        f"sum by (le) (increase(polyhead_batch_rows_bucket{{{MODEL}}}{RATE}))",
        "How many rows one forward pass had.",
    )

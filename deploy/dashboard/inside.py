"""What the dashboard shows of heads and workers."""

from __future__ import annotations

from collections.abc import Iterator

from dashboard.chosen import MODEL, OF_JOB, RATE
from dashboard.forms import Panel, bars, lines, panel


def heads() -> Iterator[Panel]:
    """What heads answer, and whether that has moved."""
    head = f'{MODEL},head=~"$head"'
    recorded = f'{OF_JOB},model=~"$model",version=~"$version",head=~"$head"'
    yield lines(
        "Rows that wanted a head",
        [(f"sum by (model, head) (rate(polyhead_head_rows_total{{{head}}}{RATE}))", "{{model}} {{head}}")],
        "rowsps",
        "All heads are computed in one pass; this is what was asked for.",
    )
    yield lines(
        "Labels answered",
        [
            (
                f"topk(20, sum by (model, head, label) (rate(polyhead_head_labels_total{{{head}}}{RATE})))",
                "{{model}} {{head}} {{label}}",
            )
        ],
        "short",
        "The twenty most frequent, a second. Choose a head above.",
        stack=True,
    )
    yield lines(
        "Drift of labels: stability index against a week before",
        [(f"head:polyhead_labels:psi7d{{{recorded}}}", "{{model}} {{head}}")],
        "short",
        "Above 0.1 worth a look, above 0.25 another population. There is a line from the eighth day on.",
    )
    yield lines(
        "Uncertain answers",
        [
            (
                f'sum by (model, head) (rate(polyhead_head_confidence_bucket{{{head},le="0.5"}}{RATE})) / '
                f'sum by (model, head) (rate(polyhead_head_confidence_bucket{{{head},le="+Inf"}}{RATE}))',
                "{{model}} {{head}}",
            )
        ],
        "percentunit",
        "Classification: the share of rows whose best label has a probability of at most a half.",
        max=1,
    )
    yield lines(
        "Values: quartiles",
        [
            (
                f"histogram_quantile({quantile}, sum by (model, head, unit, component, le) "
                f"(rate(polyhead_head_value_bucket{{{head}}}{RATE})))",
                f"{{{{model}}}} {{{{head}}}} {{{{component}}}} {name} {{{{unit}}}}",
            )
            for quantile, name in ((0.25, "lower"), (0.5, "median"), (0.75, "upper"))
        ],
        "short",
        "Regression heads, in their own unit.",
    )
    yield bars(
        "Confidence",
        f"sum by (le) (increase(polyhead_head_confidence_bucket{{{head}}}{RATE}))",
        "Classification: the best label's probability.",
    )


def workers() -> Iterator[Panel]:
    """The processes that answer."""
    yield lines(
        "Workers",
        [(f"sum by (instance, model, version) (polyhead_workers{{{MODEL}}})", "{{model}}/{{version}} {{instance}}")],
        "short",
        "Processes that have loaded the model and run.",
        decimals=0,
    )
    yield lines(
        "Worker starts",
        [
            (
                f"sum by (instance, model) (increase(polyhead_worker_starts_total{{{MODEL}}}[5m]))",
                "{{model}} {{instance}}",
            )
        ],
        "short",
        "In five minutes. After the first minutes of a server: deaths.",
    )
    yield lines(
        "Models ready",
        [
            (
                f"min by (instance, model, version) (polyhead_model_ready{{{MODEL}}})",
                "{{model}}/{{version}} {{instance}}",
            )
        ],
        "short",
        "1: its golden samples were answered lately through the real path.",
        max=1,
        decimals=0,
    )
    yield lines(
        "Memory of workers",
        [(f"polyhead_worker_resident_memory_bytes{{{MODEL}}}", "{{model}} {{instance}} {{pid}}")],
        "bytes",
        "Resident. It is flat once every shape has been seen.",
    )
    yield lines(
        "Processor time of workers",
        [
            (
                f"sum by (model, instance) (rate(polyhead_worker_cpu_seconds_total{{{MODEL}}}{RATE}))",
                "{{model}} {{instance}}",
            )
        ],
        "short",
        "Cores.",
    )
    yield panel(
        "table",
        "What answers",
        [(f"polyhead_bundle_info{{{MODEL}}}", "")],
        "short",
        "Bundle, graph, precision, runtime and device, by instance.",
        transformations=[
            {
                "id": "organize",
                "options": {"excludeByName": {"Time": True, "Value": True, "__name__": True, "job": True}},
            }
        ],
    )

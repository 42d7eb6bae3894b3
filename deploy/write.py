"""Writes what would else be written twice: Grafana's dashboard, and the rules in the Prometheus Operator's form.

python deploy/write.py            writes both
python deploy/write.py --check    says which is not as it would be written; exit status 1
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from dashboard.chosen import MODEL
from dashboard.forms import SOURCE, Panel
from dashboard.panels import rows

HERE = Path(__file__).resolve().parent
RULES = HERE / "prometheus" / "rules"
DASHBOARD = HERE / "grafana" / "dashboards" / "polyhead.json"
OPERATOR = HERE / "kubernetes" / "components" / "monitoring" / "prometheusrule.yaml"
WIDTH = 24


def main() -> None:
    """Write both files, or look at them."""
    wanted = {DASHBOARD: dashboard(), OPERATOR: operator()}
    if sys.argv[1:] == ["--check"]:
        old = [str(path) for path, text in wanted.items() if path.read_text(encoding="utf-8") != text]
        sys.exit(f"not as deploy/write.py writes it: {', '.join(old)}" if old else 0)
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")


def operator() -> str:
    """The rules as a PrometheusRule."""
    groups = [group for path in sorted(RULES.glob("*.yml")) for group in yaml.safe_load(path.read_text())["groups"]]
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "polyhead"},
        "spec": {"groups": groups},
    }
    text = yaml.safe_dump(resource, sort_keys=False, width=120, allow_unicode=True)
    return f"# Written by deploy/write.py from deploy/prometheus/rules.\n{text}"


def dashboard() -> str:
    """The dashboard as JSON."""
    panels: list[Panel] = []
    top = 0
    for title, row in rows():
        panels.append(
            {"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": _place(0, top, WIDTH, 1)}
        )
        top += 1
        left = height = 0
        for panel, width, tall in row:
            if left + width > WIDTH:
                left, top = 0, top + height
            panels.append(panel | {"gridPos": _place(left, top, width, tall)})
            left, height = left + width, tall
        top += height
    for number, panel in enumerate(panels, start=1):
        panel["id"] = number
    content = {
        "uid": "polyhead",
        "title": "Polyhead",
        "description": "Multi-task models in production: traffic, errors, latency by stage, batches, heads, workers.",
        "tags": ["polyhead"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "templating": {"list": list(_variables())},
        "annotations": {"list": [_starts()]},
        "links": [],
        "panels": panels,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _place(x: int, y: int, w: int, h: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": w, "h": h}


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}}
    chained = (
        ("job", "Job", "label_values(polyhead_build_info, job)"),
        ("instance", "Instance", 'label_values(polyhead_build_info{job=~"$job"}, instance)'),
        ("model", "Model", 'label_values(polyhead_workers{job=~"$job",instance=~"$instance"}, model)'),
        ("version", "Version", 'label_values(polyhead_workers{job=~"$job",model=~"$model"}, version)'),
        (
            "head",
            "Head",
            'label_values(polyhead_head_rows_total{job=~"$job",model=~"$model",version=~"$version"}, head)',
        ),
    )
    for name, label, query in chained:
        yield {
            "name": name,
            "label": label,
            "type": "query",
            "datasource": SOURCE,
            "query": {"query": query, "refId": name},
            "definition": query,
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
        }


def _starts() -> dict[str, Any]:
    """A mark where a worker was started."""
    return {
        "name": "Worker starts",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "orange",
        "expr": f"increase(polyhead_worker_starts_total{{{MODEL}}}[1m]) > 0",
        "titleFormat": "worker started",
        "textFormat": "{{model}}/{{version}} on {{instance}}",
        "step": "60s",
    }


if __name__ == "__main__":
    main()

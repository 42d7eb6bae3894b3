"""Which metrics and labels a PromQL expression names: enough of the language for what deploy/ asks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import yaml

from tests.unit.deploy.conftest import DEPLOY

STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^{}]*\})?")
WORDS = re.compile(r"\b(?:and|or|unless|by|without|on|ignoring|group_left|group_right|offset|bool)\b")
FUNCTIONS = re.compile(r"\b[a-z_]+(?=\s*\()")
RANGE = re.compile(r"\[[^\]]*\]|\boffset\s+\w+|\$__\w+|\b\d[\w.]*")
ENDINGS = ("_bucket", "_sum", "_count", "_total")


def named(expression: str) -> dict[str, set[str]]:
    """By metric, the labels that are matched."""
    bare = GROUPING.sub(" ", STRING.sub('""', expression))
    bare = WORDS.sub(" ", FUNCTIONS.sub(" ", RANGE.sub(" ", bare)))
    return {
        name: set(re.findall(r"(\w+)\s*[=!]~?", matchers)) | found.get(name, set())
        for found in [{}]
        for name, matchers in SELECTOR.findall(bare)
    }


def grouped(expression: str) -> set[str]:
    """The labels that are summed by, or joined on."""
    return {
        label.strip()
        for labels in GROUPING.findall(STRING.sub("", expression))
        for label in labels.split(",")
        if label.strip()
    }


def of_rules() -> Iterator[tuple[str, str]]:
    """The names and expressions of all rules; a recorded one's name has colons."""
    for path in sorted((DEPLOY / "prometheus/rules").glob("*.yml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield rule.get("record") or rule["alert"], rule["expr"]


def of_dashboard() -> Iterator[tuple[str, str]]:
    """The titles and queries of all panels, and of what the variables at the top can be."""
    content = json.loads((DEPLOY / "grafana/dashboards/polyhead.json").read_text())
    for panel in content["panels"]:
        for target in panel.get("targets", []):
            yield f"{panel['title']} {target['legendFormat']}", target["expr"]
    for variable in content["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["name"], re.sub(r"label_values\((.*), \w+\)", r"\1", variable["definition"])
    yield "starts", content["annotations"]["list"][0]["expr"]


def of_scaling() -> Iterator[tuple[str, str]]:
    """What the autoscalers ask."""
    components = DEPLOY / "kubernetes/components"
    for rule in yaml.safe_load((components / "autoscaling/prometheus-adapter.yaml").read_text())["rules"]["custom"]:
        query = rule["metricsQuery"].replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", 'pod="a"')
        yield rule["name"]["as"], query
        yield rule["name"]["as"], rule["seriesQuery"]
    for trigger in yaml.safe_load((components / "keda/scaledobject.yaml").read_text())["spec"]["triggers"]:
        yield f"keda {trigger['name']}", trigger["metadata"]["query"]

"""What dashboard, rules and autoscalers ask for is on the page of a real server, by that name, with those labels."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

from polyhead.serving.frontdoor.counts import Counts
from tests.server import Running
from tests.unit.deploy.queries import grouped, named, of_dashboard, of_rules, of_scaling

# What Prometheus adds, what its target discovery does, and what `label_replace` makes of TorchServe's `model_name`.
ADDED = {"job", "instance", "namespace", "pod", "le"}
MADE = {"model"}
OTHERS = {"up"}


def test_every_metric_and_label_that_is_asked_for_is_on_the_page(server: Running, tmp_path):
    answer = httpx.get(server.metrics, trust_env=False)
    families = [*text_string_to_metric_families(answer.text), *Counts(tmp_path).collect()]
    labels: dict[str, set[str]] = {}
    for family in families:
        labels.setdefault(family.name, set())
        labels.setdefault(f"{family.name}_total", set()) if family.type == "counter" else None
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    everything = set().union(*labels.values()) | ADDED | MADE
    asked = 0
    for title, query in [*of_rules(), *of_dashboard(), *of_scaling()]:
        for name, matched in named(query).items():
            if ":" in name or name in OTHERS:
                continue
            asked += 1
            assert name in labels, f"{title} asks for {name}"
            known = labels[name] | ADDED
            assert matched <= known or not labels[name], f"{title}: {name} has no {matched - known}"
        assert grouped(query) <= everything, f"{title}: {grouped(query) - everything}"
    assert asked > 60

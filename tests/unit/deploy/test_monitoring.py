"""Rules and dashboard: they parse, hold what they say of made-up series, and are written once."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml

from tests.command import ROOT
from tests.unit.deploy.conftest import DEPLOY
from tests.unit.deploy.queries import grouped, named, of_dashboard, of_rules

RULES = sorted((DEPLOY / "prometheus/rules").glob("*.yml"))


def alerts() -> list[dict[str, object]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


def test_the_language_is_understood():
    expression = (
        'sum by (job, le) (rate(a_bucket{x="1",y=~"by (z)"}[5m])) / on (job) (b:c:rate5m offset 7d > 0) or vector(0)'
    )
    assert named(expression) == {"a_bucket": {"x", "y"}, "b:c:rate5m": set()}
    assert grouped(expression) == {"job", "le"}


def test_dashboard_and_operators_rules_are_what_the_script_writes():
    result = subprocess.run(
        [sys.executable, str(DEPLOY / "write.py"), "--check"], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-tls.yml"])
def test_prometheus_takes_its_configuration(promtool, name):
    result = subprocess.run(
        [promtool, "check", "config", "--syntax-only", str(DEPLOY / "prometheus" / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_rules_are_promql(promtool):
    result = subprocess.run([promtool, "check", "rules", *map(str, RULES)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "tests/unit/deploy/rules").glob("*.yml")), ids=lambda path: path.stem)
def test_the_rules_tell_what_they_should_of_made_up_series(promtool, path):
    result = subprocess.run([promtool, "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_says_what_to_do_and_has_its_chapter():
    chapters = {
        re.sub(r"[^\w\s-]", "", title.strip().lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", (ROOT / "docs/operations.md").read_text(), re.M)
    }
    assert len(alerts()) >= 15
    for alert in alerts():
        assert alert["labels"]["severity"] in ("page", "ticket"), alert["alert"]
        notes = alert["annotations"]
        assert notes["summary"], alert["alert"]
        assert notes["description"].endswith("."), alert["alert"]
        page, _, chapter = notes["page"].partition("#")
        assert page == "docs/operations.md"
        assert chapter in chapters, f"{alert['alert']}: {chapter}"


def test_what_is_asked_of_recordings_is_recorded():
    recorded = {name for name, _ in of_rules() if ":" in name}
    asked = {name for _, query in [*of_rules(), *of_dashboard()] for name in named(query) if ":" in name}
    assert asked <= recorded
    assert recorded - asked <= {
        "model:polyhead_requests:rate5m",
        "model:polyhead_rows:rate5m",
        "job:torchserve_responses:rate5m",
    }

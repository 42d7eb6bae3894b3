"""`polyhead report` as a user types it."""

from __future__ import annotations

import json

from polyhead.serving.bundle import Bundle
from tests.command import run_polyhead


def test_a_page_beside_the_bundle_and_a_line_for_a_program(digits_bundle):
    found = json.loads(run_polyhead("report", digits_bundle, "--json").stdout)
    page = digits_bundle.with_name("digits.html")
    assert found["page"] == str(page)
    assert found["model"] == "digits/1.0"
    assert found["bytes"] == page.stat().st_size
    assert set(found["times"]["parts"]) == {"trunk", "heads/digit", "heads/parity", "heads/ink", "heads/embedding"}
    assert found["digest"] in page.read_text(encoding="utf-8")
    assert Bundle.open(digits_bundle).digest == found["digest"]  # the bundle is as it was


def test_bad_places_and_files_are_refused_in_one_line(digits_bundle, tmp_path):
    inside = run_polyhead("report", digits_bundle, "--no-time", "--out", digits_bundle / "x.html", expect=1)
    assert inside.stderr.splitlines()[-1].startswith("polyhead: ")
    assert inside.stderr.rstrip().endswith("is in the bundle, which is sealed by its hashes: give another --out")
    (tmp_path / "bench.json").write_text("{}")
    other = run_polyhead("report", digits_bundle, "--no-time", "--bench", tmp_path / "bench.json", expect=1)
    assert "is not what polyhead bench writes" in other.stderr
    run_polyhead("report", digits_bundle, "--bench", tmp_path / "nowhere.json", expect=2)


def test_help_has_an_example():
    assert "Example: polyhead report bundles/digits" in run_polyhead("report", "--help").stdout

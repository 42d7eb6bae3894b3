"""Parity on the page is what `parity.json` records."""

from __future__ import annotations

import json

import pytest

from polyhead.export.report.proofs import proofs, records
from polyhead.serving.errors import BundleError
from tests.unit.export.report.reading import Page
from tests.unit.export.report.wild import HEADS, LONG

BY_GRAPH = "Graphs beside eager PyTorch: absolute differences over all heads and cases"
BY_HEAD = "Heads beside eager PyTorch: the largest difference, and how many clear decisions are the same"


def test_every_figure_of_the_gate_is_on_the_page(wild):
    recorded = json.loads(wild.read("parity.json"))
    page = Page(proofs(wild.manifest, records(wild)))
    graphs, heads = page.tables[BY_GRAPH], page.tables[BY_HEAD]
    assert [row[0] for row in graphs[1:]] == ["fused-onnx", "trunk-onnx and heads"]
    assert [row[0] for row in heads[1:]] == list(HEADS)
    for place, record in enumerate(recorded):
        row = graphs[1 + place]
        assert row[1:3] == [record["runtime"], record["device"]]
        assert row[3] == f"{max(record['heads'].values()):.2e}"
        assert row[4] == "1e-05 + 0.0001 x scale"
        assert row[5:] == ["100 %", "100 %"]
        for line in heads[1:]:
            clear, same = record["decisions"][line[0]]
            decided = f" {same} of {clear}" if clear else ""
            assert line[1 + place] == f"{record['heads'][line[0]]:.2e}{decided}"
        where = "trunk-onnx and heads" if place else "fused-onnx"
        cases = page.tables[f"{where} in onnxruntime on cpu: largest difference by case"]
        assert [row[0] for row in cases[1:]] == list(record["batches"])
        assert cases[0][1:] == sorted(HEADS)
        first = next(iter(record["batches"].values()))
        assert cases[1][1:] == [f"{first[head]:.2e}" for head in sorted(HEADS)]
    assert "of" not in next(line for line in heads[1:] if line[0] == LONG)[1]  # a regression decides nothing


def test_decisions_that_differ_are_seen_and_a_gpu_is_allowed_more(wild, altered):
    found = json.loads(wild.read("parity.json"))[:1]
    found[0] |= {"device": "cuda:0", "decisions": {"intent": [2000, 1999], "person": [10, 10]}, "more": "later"}
    del found[0]["batches"], found[0]["heads"]["alerts"]
    bundle = altered({"parity.json": json.dumps(found).encode()})
    page = Page(proofs(bundle.manifest, records(bundle)))
    (row,) = page.tables[BY_GRAPH][1:]
    assert row[2:] == ["cuda:0", f"{max(found[0]['heads'].values()):.2e}", "0.0001 + 0.001 x scale", "99.95 %", "100 %"]
    lines = {line[0]: line[1] for line in page.tables[BY_HEAD][1:]}
    assert lines["intent"].endswith(" 1999 of 2000")
    assert lines["alerts"] == "–"
    assert page.named("details") == []


@pytest.mark.parametrize("data", [b"", b"{}", b'[{"graph": "fused-onnx"}]', b"\xff"])
def test_a_damaged_record_is_refused(altered, data):
    bundle = altered({"parity.json": data})
    with pytest.raises(BundleError, match=r"altered: parity\.json: .+: export the bundle again"):
        records(bundle)

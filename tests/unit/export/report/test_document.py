"""The whole page: well formed, alone, escaped, and saying what the bundle says."""

import json
import re
from itertools import pairwise
from types import SimpleNamespace

import pytest

from polyhead.export.errors import ExportError
from polyhead.export.report.document import default_place, page, write_report
from polyhead.export.report.times import Times
from polyhead.models.markup import rounded
from tests.unit.export.report.reading import Page
from tests.unit.export.report.wild import HEADS, LONG, WIDTHS

TIMES = Times(
    "a <fast> processor",
    2,
    {1: 0.002, 64: 0.01},
    {"trunk": {1: 0.0012, 64: 0.006}, **{f"heads/{head}": {1: 0.0002, 64: 0.0005} for head in HEADS}},
)


@pytest.fixture(scope="module")
def written(wild):
    text = page(wild, TIMES)
    return SimpleNamespace(text=text, page=Page(text))


def test_the_page_needs_no_other_file_no_network_and_no_script(written, wild, results):
    for text in (written.text, page(wild, None, results)):
        assert "://" not in text
        assert "url(" not in text
        tags = {tag for tag, _ in Page(text).tags}
        assert not {"script", "link", "iframe", "object", "img", "base", "form"} & tags
        assert "default-src 'none'" in text
        attributes = {name for _, found in Page(text).tags for name in found}
        assert not {"src", "style", "onclick", "onload"} & attributes
        links = [found["href"] for found in Page(text).named("a")]
        ids = {found["id"] for _, found in Page(text).tags if "id" in found}
        assert links
        assert {link.removeprefix("#") for link in links} <= ids


def test_nothing_from_spec_or_machine_is_taken_for_markup(written, wild, results):
    text = written.text + page(wild, None, results)
    for hostile in ("<script", "<b>", "<i>", "<°C>", "</td>, ", "<fast>", "<reproduce>"):
        assert hostile not in text
    texts = written.page.texts
    assert "Lights & <i>doors</i>" in texts
    assert any('<script>alert(1)</script>, "quo\'ted" & </td>, label 0' in text for text in texts)
    assert any("a <fast> processor, 2 threads" in text for text in texts)


def test_headings_go_down_and_every_drawing_says_what_it_shows(written, wild, results):
    found = Page(page(wild, TIMES, results))
    levels = [int(tag[1]) for tag, _ in found.tags if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(drawing["role"] == "img" and drawing["aria-label"] for drawing in found.named("svg"))
    assert len(found.named("svg")) == 3  # the parts, and the speed at two batch sizes
    assert len(found.named("caption")) == len(found.named("table"))
    assert ("html", {"lang": "en"}) in found.tags
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in found.named("meta")


def test_every_head_graph_and_file_is_there_with_the_manifests_figures(written, wild):
    tables, manifest = written.page.tables, wild.manifest
    assert [row[0] for row in tables["Heads"][1:]] == list(HEADS)
    graphs = {row[0]: row for row in tables["Graphs, and their largest difference to eager PyTorch"][1:]}
    assert set(graphs) == set(manifest.graph_ids)
    for name, row in graphs.items():
        assert row[-2] == f"{manifest.parity[name].largest:.2e}"
        assert row[-1] == f"{100 * manifest.parity[name].agreement:g} %"
        assert row[4] == ", ".join(manifest.graph(name).meant)
        assert row[5].startswith(rounded(manifest.files[manifest.graph(name).file].size, "B"))
    files = {row[0]: row[2] for row in tables["Every file, and its hash"][1:]}
    assert files.pop("manifest.json") == wild.digest
    assert files == {name: entry.sha256 for name, entry in manifest.files.items()}
    assert dict(map(tuple, tables["Written with"][1:])) == manifest.versions
    assert tables["On held-out rows"][1:] == [
        ["intent", "accuracy", "0.9375"],
        [LONG, "mae", "0.8125 <°C>"],
        ["", "r2", "0.75"],
    ]


def test_the_spec_is_said_in_full(written):
    heads = {row[0]: row[1:] for row in written.page.tables["Heads"][1:]}
    assert heads["intent"][1] == "one of 22 labels"
    assert heads["intent"][2].endswith("10 more label 10, label 11, label 12, label 13, label 14, label 15, label 16, "
                                       "label 17, label 18, label 19")  # fmt: skip
    assert heads["alerts"] == [
        "multilabel",
        "any of 2 labels",
        "smoke, <b>fire</b>",
        "threshold smoke 0.5, <b>fire</b> 0.875",
    ]
    assert heads[LONG] == ["regression", "3 values in <°C>", "–", "in <i>the</i> middle"]
    assert heads["person"][3] == "scale 10, no label beyond distance 0.25"
    assert written.page.tables["Inputs"][1:] == [["x", "tensor", "float32 [6]", "as it is"]]


def test_the_parts_cost_what_the_network_has(written):
    rows = {row[0]: row[1:] for row in written.page.tables["What the parts cost, and their share of the sum"][1:]}
    sizes = {"trunk": 6 * 32 + 32, **{head: 32 * width + width for head, width in WIDTHS.items()}}
    total = sum(sizes.values())
    assert {name: row[0].split(" ")[0] for name, row in rows.items()} == {
        **{name: rounded(size).split(" ")[0] for name, size in sizes.items()},
        "sum": rounded(total),
    }
    assert rows["trunk"][0] == f"224 {100 * 224 / total:.1f} %"
    assert rows["trunk"][1].startswith(rounded(2 * 6 * 32))
    assert rows["trunk"][2:] == ["1.2 ms 60.0 %", "6 ms 75.0 %"]
    assert rows["sum"][2:] == ["2 ms", "8 ms"]
    assert any("all heads in one: 2 ms at batch 1, 10 ms at batch 64." in text for text in written.page.texts)


def test_the_same_bundle_gives_the_same_page(wild):
    assert page(wild) == page(wild)
    assert "they were not measured" in page(wild)
    assert "ms, batch" not in page(wild)


def test_why_a_network_was_not_told_apart_is_said(altered, wild):
    fused = tuple(graph for graph in wild.manifest.graphs if graph.part == "fused")
    parity = {graph.id: wild.manifest.parity[graph.id] for graph in fused}
    bundle = altered(graphs=fused, parity=parity, parts={}, unsplit="head 'a' <feeds> head 'b'")
    found = Page(page(bundle, Times("a processor", 1, {1: 0.001})))
    said = next(text for text in found.texts if "have no graphs of their own" in text)
    assert "head 'a' <feeds> head 'b'." in said
    assert "all heads in one: 1 ms at batch 1." in said
    assert "its parts were not told apart" in found.texts
    assert "What the parts cost, and their share of the sum" not in found.tables
    assert "parameters" not in found.texts


def test_a_bundle_without_the_figures_of_the_gate_says_so(altered):
    bundle = altered({"parity.json": None})
    assert any("The bundle has no parity.json" in text for text in Page(page(bundle)).texts)


def test_the_fastest_choice_is_said_where_it_was_recorded(altered):
    choice = {"graph": "fused-onnx", "runtime": "onnxruntime", "threads": 2, "batch": 64}
    choice |= {"rows_per_second": 12345.6, "machine": "a <slow> processor"}
    bundle = altered({"tuning.json": json.dumps({"devices": {"cpu": choice}}).encode()})
    (row,) = Page(page(bundle)).tables["Taken by polyhead serve --runtime auto"][1:]
    assert row == ["cpu", "fused-onnx", "onnxruntime", "a <slow> processor", "2", "12\u202f346 at batch 64"]


def test_a_page_stands_beside_its_bundle_and_replaces_an_earlier_one(wild, tmp_path):
    assert default_place(wild) == wild.folder.with_name("wild.html")
    place = tmp_path / "new" / "page.html"
    for _ in range(2):
        assert write_report(wild, place) == place
        assert place.read_text(encoding="utf-8") == page(wild)
    assert [path.name for path in place.parent.iterdir()] == ["page.html"]
    assert place.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("name", ["report.html", "graphs/../report.html"])
def test_no_page_is_written_into_a_bundle(wild, name):
    with pytest.raises(ExportError, match=r"is in the bundle, which is sealed by its hashes: give another --out"):
        write_report(wild, wild.folder / name)


def test_a_directory_is_no_place_for_a_page(wild, tmp_path):
    with pytest.raises(ExportError, match=r"is a directory: give the name of a file, as in .*report\.html"):
        write_report(wild, tmp_path)

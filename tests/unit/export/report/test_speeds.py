"""What polyhead bench found, on the page: figures, bars, and whose they are."""

from __future__ import annotations

import pytest

from polyhead.export.errors import ExportError
from polyhead.export.report.speeds import load, speeds
from polyhead.export.report.svg import WIDTH
from tests.unit.export.report.reading import Page
from tests.unit.export.report.wild import timing


def test_what_bench_writes_is_read(results, wild, tmp_path):
    path = tmp_path / "bench.json"
    path.write_text(results.model_dump_json(), encoding="utf-8")
    assert load(path, wild) == results


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "other/1.0"}, r"bench\.json: is of other/1\.0, which is not in bundle wild/1\.0-rc\.1: time this"),
        (
            {"timings": (timing("onnxruntime fp16", 1, 0.001, "fused-onnx-fp16"),)},
            r"is of graph 'fused-onnx-fp16', which is not in bundle wild",
        ),
    ],
)
def test_times_of_another_bundle_are_refused(results, wild, tmp_path, changes, message):
    path = tmp_path / "bench.json"
    path.write_text(results.model_copy(update=changes).model_dump_json(), encoding="utf-8")
    with pytest.raises(ExportError, match=message):
        load(path, wild)


@pytest.mark.parametrize("content", ["", "no JSON", "[]", '{"model": "wild/1.0-rc.1"}'])
def test_another_file_is_refused(wild, tmp_path, content):
    path = tmp_path / "bench.json"
    path.write_text(content)
    with pytest.raises(ExportError, match=r"bench\.json: is not what polyhead bench writes \(.+\): give its bench"):
        load(path, wild)


def test_every_figure_is_in_the_table_and_the_fastest_bar_is_the_longest(results, wild):
    page = Page(speeds(results, wild))
    rows = page.tables["A forward pass on cpu, all heads"]
    assert rows[0][3] == "5 rounds"
    assert rows[1] == ["eager", "1", "4 ms", "3.6 ms to 4.4 ms", "6 ms", "250", "2.50 x eager"]
    assert [row[:3] for row in rows[2:]] == [
        ["eager", "64", "16 ms"],
        ["onnxruntime fp32", "1", "1 ms"],
        ["onnxruntime fp32", "64", "8 ms"],
    ]
    widths = [(rect["class"], float(rect["width"])) for rect in page.named("rect") if rect["class"] != "track"]
    assert widths == [
        *(("eager", WIDTH / 4), ("onnxruntime", WIDTH)),
        *(("eager", WIDTH / 2), ("onnxruntime", WIDTH)),
    ]
    assert page.named("svg")[1]["aria-label"] == (
        "Rows per second on cpu, 64 rows a pass. eager 4000; onnxruntime fp32 8000"
    )


def test_who_was_left_out_is_said_with_the_reason(results, wild):
    page = Page(speeds(results.model_copy(update={"eager": "no network was named"}), wild))
    assert page.tables["Left out of the times"][1:] == [
        ["torchscript fp32", "cpu", "answers wrong", "head 'intent' does not <reproduce> the golden samples"]
    ]
    assert "Eager: no network was named" in page.texts


def test_times_of_the_bundle_before_they_were_recorded_in_it_say_so(results, wild):
    assert "Timed on bundle" not in speeds(results, wild)
    assert f"Timed on bundle {'0' * 12}" in speeds(results.model_copy(update={"bundle": "0" * 64}), wild)


def test_a_device_that_timed_nothing_has_no_place(results, wild):
    page = Page(speeds(results.model_copy(update={"timings": (), "refused": ()}), wild))
    assert page.tables == {}
    assert page.named("svg") == []

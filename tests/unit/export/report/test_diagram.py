"""The drawing: bars as long as shares, names that fit, boxes that hold what is in them."""

from __future__ import annotations

import pytest

from polyhead.export.report.diagram import LETTERS, MANY, SPAN, diagram
from polyhead.export.report.parts import measures, milliseconds, percent, pieces
from polyhead.export.report.svg import WIDTH, shortened
from polyhead.export.report.times import Times
from polyhead.models.spec import ModelSpec
from polyhead.serving.manifest import Part
from tests.unit.export.report.reading import Page
from tests.unit.export.report.wild import HEADS, LONG, SPEC


def drawn(manifest, times=None) -> Page:
    found = pieces(manifest)
    return Page(diagram(manifest.spec, found, measures(manifest, found, times)))


def bars(page: Page, kind: str) -> list[float]:
    return [float(rect["width"]) for rect in page.named("rect") if rect.get("class") == kind]


def with_heads(manifest, count: int):
    """The same manifest with so many heads, each with a hundredth of the trunk's parameters."""
    heads = {f"head_{index:02d}": {"kind": "regression"} for index in range(count)}
    parts = {"trunk": Part(parameters=10_000, flops=None)} if count > 1 else {}
    parts |= {f"heads/{name}": Part(parameters=100, flops=None) for name in heads}
    return manifest.model_copy(update={"spec": ModelSpec.parse({**SPEC, "heads": heads}), "parts": parts})


def test_a_bar_is_as_long_as_the_share_of_its_part(wild):
    parts = wild.manifest.parts
    page = drawn(wild.manifest)
    for kind in ("parameters", "flops"):
        sizes = [getattr(parts[name], kind) for name in ("trunk", *(f"heads/{head}" for head in HEADS))]
        assert bars(page, kind) == pytest.approx([SPAN * size / sum(sizes) for size in sizes], abs=0.01)
    assert bars(page, "time") == []
    assert page.named("rect")[-1]["class"] == "flops"


def test_what_is_small_is_seen_and_what_is_nothing_is_not(wild):
    sizes = {"trunk": 1_000_000, "heads/intent": 1, "heads/alerts": 0, f"heads/{LONG}": 0, "heads/person": 0}
    parts = {name: Part(parameters=size, flops=None) for name, size in sizes.items()}
    page = drawn(wild.manifest.model_copy(update={"parts": parts}))
    assert bars(page, "parameters") == pytest.approx([SPAN, 1, 0, 0, 0], abs=0.01)
    assert bars(page, "flops") == []  # nothing is known of them, so nothing is said
    assert any(text.endswith(", < 0.01 %") for text in page.texts)


def test_milliseconds_are_drawn_for_every_batch_size_that_was_timed(wild):
    times = Times("here", 1, {}, {"trunk": {1: 0.003, 64: 0.008}, "heads/intent": {1: 0.001, 64: 0.002}})
    page = drawn(wild.manifest, times)
    unknown = [0.0, 0.0] * 3
    assert bars(page, "time") == pytest.approx([SPAN * 0.75, SPAN * 0.8, SPAN * 0.25, SPAN * 0.2, *unknown], abs=0.01)
    assert page.texts.count("ms, batch 64") == 5
    assert "8 ms, 80.0 %" in page.texts
    assert "–, –" in page.texts


def test_long_names_are_shortened_and_a_pointer_shows_them_whole(wild):
    page = drawn(wild.manifest)
    assert LONG in page.texts  # inside <title>
    short = next(text for text in page.texts if "…" in text)
    assert len(short) < LETTERS
    assert short.startswith("temperature_of_the_room")
    assert short.endswith("moment")


def test_everything_is_inside_the_drawing(wild):
    for manifest in (wild.manifest, with_heads(wild.manifest, 1), with_heads(wild.manifest, 40)):
        page = drawn(manifest)
        left, top, width, height = map(float, page.named("svg")[0]["viewbox"].split())
        assert (left, top, width) == (0, 0, WIDTH)
        for rect in page.named("rect"):
            assert 0 <= float(rect["x"]) <= float(rect["x"]) + float(rect["width"]) <= WIDTH
            assert 0 <= float(rect["y"]) <= float(rect["y"]) + float(rect["height"]) <= height
        for text in page.named("text"):
            assert 0 < float(text["x"]) < WIDTH
            assert 0 < float(text["y"]) < height


@pytest.mark.parametrize(("heads", "rows"), [(MANY, 2 * (1 + MANY)), (MANY + 1, 2 + 1 + MANY)])
def test_of_many_heads_each_has_one_bar_alone(wild, heads, rows):
    manifest = with_heads(wild.manifest, heads)
    manifest = manifest.model_copy(
        update={"parts": {name: part.model_copy(update={"flops": 7}) for name, part in manifest.parts.items()}}
    )
    page = drawn(manifest)
    assert len(bars(page, "parameters")) + len(bars(page, "flops")) == rows
    assert any("that of FLOPs a row alone" in text for text in page.texts) == (heads > MANY)


def test_a_single_head_has_no_trunk_and_a_network_not_told_apart_no_bars(wild):
    single = drawn(with_heads(wild.manifest, 1))
    assert "trunk" not in single.texts
    assert {"head_00", "regression, 1 value"} <= set(single.texts)
    whole = drawn(wild.manifest.model_copy(update={"parts": {}}))
    assert {"network", "its parts were not told apart", "person"} <= set(whole.texts)
    assert not bars(whole, "track")


def test_figures_are_rounded_but_never_to_nothing():
    assert [percent(share) for share in (None, 0.0, 1e-6, 0.00123, 0.0123, 0.5, 1.0)] == [
        *("–", "0.0 %", "< 0.01 %", "0.12 %", "1.2 %", "50.0 %", "100.0 %")
    ]
    assert [milliseconds(seconds) for seconds in (5.88e-6, 0.000127, 0.00457, 0.0999, 1.2345)] == [
        *("0.0059 ms", "0.127 ms", "4.57 ms", "99.9 ms", "1234 ms")
    ]
    assert [shortened(name, 7) for name in ("abcdefg", "abcdefgh", "")] == ["abcdefg", "abcd…gh", ""]

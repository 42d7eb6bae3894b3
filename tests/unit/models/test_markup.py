"""The pieces of a page: texts are escaped, numbers are readable."""

from __future__ import annotations

import pytest

from polyhead.models.markup import Markup, facts, flat, metric_rows, opening, paragraph, rounded, said, table, written
from polyhead.models.spec import ModelSpec


def test_texts_are_escaped_and_markup_is_not():
    hostile = "<script>&\"'"
    escaped = "&lt;script&gt;&amp;&quot;&#x27;"
    assert written(hostile) == escaped
    assert written(written(hostile)) == escaped
    assert paragraph(hostile) == f"<p>{escaped}</p>"
    assert facts([(hostile, hostile)]).count(escaped) == 2
    assert table([hostile], [[hostile]], hostile).count(escaped) == 4  # caption and what a screen reader says of it
    assert hostile not in "".join(opening(hostile))
    assert table(["a"], [[Markup("<b>x</b>")]]).count("<b>x</b>") == 1
    assert paragraph("") == ""


def test_the_last_columns_of_a_table_hold_values():
    shown = table(("a", "b", "c"), [("1", "2", "3")], "what it shows", values=2)
    assert shown == (
        '<div class="wide" role="region" tabindex="0" aria-label="what it shows"><table>'
        "<caption><span>what it shows</span></caption>"
        '<thead><tr><th scope="col">a</th><th scope="col">b</th><th scope="col">c</th></tr></thead>'
        '<tbody><tr><td>1</td><td class="value">2</td><td class="value">3</td></tr></tbody></table></div>'
    )
    assert table(("", ""), []) == '<div class="wide"><table><tbody></tbody></table></div>'


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "", "0"),
        (999, "", "999"),
        (999.4, "B", "999\u202fB"),
        (999.6, "", "1.00\u202fk"),
        (1234, "B", "1.23\u202fkB"),
        (12_340_000, "", "12.3\u202fM"),
        (9_996, "", "10.0\u202fk"),
        (99_960, "", "100\u202fk"),
        (999_600, "", "1.00\u202fM"),
        (3.5e18, "", "3500\u202fP"),
    ],
)
def test_three_digits_are_enough(value, unit, text):
    assert rounded(value, unit) == text


def test_values_are_said_as_a_reader_wants_them():
    values = (True, False, 9999, 10_000, 0.123456, (1.5, "a"), [], None, {}, "text")
    assert [said(value) for value in values] == [
        *("yes", "no", "9999", "10\u202f000", "0.1235", "1.5, a", "none", "none", "none", "text")
    ]
    assert dict(flat({"a": {"b": 1, "c": {}}, "d": 2})) == {"a / b": 1, "a / c": {}, "d": 2}


def test_an_error_has_the_unit_of_its_head():
    heads = {"t": {"kind": "regression", "unit": "°C"}, "k": {"kind": "classification", "labels": ["a", "b"]}}
    spec = ModelSpec.parse(
        {"name": "m", "version": "1", "inputs": {"x": {"kind": "tensor", "shape": [1]}}, "heads": heads}
    )
    rows = list(metric_rows(spec, {"t": {"mae": 0.5, "r2": 0.75}, "k": {"span_f1": 1.0}}))
    assert rows == [("t", "mae", "0.5 °C"), ("", "r2", "0.75"), ("k", "span f1", "1")]

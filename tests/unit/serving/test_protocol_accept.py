from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyhead.serving.errors import NotAcceptable
from polyhead.serving.protocol.accept import ARROW, JSON, NPY, choose

OFFERS = (JSON, ARROW, NPY)


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/json", JSON),
        ("application/x-npy", NPY),
        ("APPLICATION/X-NPY", NPY),
        ("application/x-npy, */*", NPY),
        ("*/*, application/x-npy", NPY),
        ("application/x-npy;q=0.5, application/json", JSON),
        ("application/json;q=0.1, application/x-npy; q=0.2", NPY),
        ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", JSON),
        ("text/csv, application/vnd.apache.arrow.stream;q=0.001", ARROW),
        ("application/x-npy, application/vnd.apache.arrow.stream", NPY),
        ("application/vnd.apache.arrow.stream, application/x-npy", ARROW),
        ("*/*, application/json;q=0", ARROW),
        ("*/*;q=0.1, application/json;q=0, application/vnd.apache.arrow.stream;q=0", NPY),
        ("application/json;charset=utf-8", JSON),
    ],
)
def test_the_greatest_weight_then_the_closest_then_the_first(header, chosen):
    assert choose(header, OFFERS) == chosen


@pytest.mark.parametrize(
    "header",
    [
        "text/html",
        "image/*",
        "application/json;q=0",
        "*/*;q=0",
        "application/json;q=nan",
        "application/json;q=2",
        ";",
        ",",
        "json",
    ],
)
def test_what_nothing_fits_is_told_what_there_is(header):
    with pytest.raises(NotAcceptable) as caught:
        choose(header, OFFERS)
    assert (caught.value.status, caught.value.type) == (406, "not_acceptable")
    assert str(caught.value) == (
        f"Accept: {header} is none of what this can be answered in: "
        "application/json, application/vnd.apache.arrow.stream, application/x-npy"
    )


@settings(max_examples=200, deadline=None, database=None)
@given(st.text(alphabet="*/;,=q.01 application/jsonx-y", max_size=60))
def test_any_header_is_an_offer_or_refused(header):
    with contextlib.suppress(NotAcceptable):
        assert choose(header, OFFERS) in OFFERS

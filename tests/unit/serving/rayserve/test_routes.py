from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyhead.serving.rayserve.routes import Wanted, wanted

NAMES = st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/predictions/digits", Wanted("digits")),
        ("/predictions/digits/", Wanted("digits")),
        ("/predictions/digits/1.0", Wanted("digits", "1.0")),
        ("/predictions/digits/1.0/openapi.json", Wanted("digits", "1.0", "openapi.json")),
        ("/predictions/digits/1.0/a/b", Wanted("digits", "1.0", "a/b")),
        ("/predictions/my%2Dmodel", Wanted("my-model")),
        ("/v1/models/digits:predict", Wanted("digits")),
        ("/v2/models/digits/infer", Wanted("digits")),
        ("/v2/models/digits/versions/1.0/infer", Wanted("digits", "1.0")),
        # A model may be called what the protocol calls its verbs.
        ("/v2/models/infer/infer", Wanted("infer")),
        ("/predictions", None),
        ("/predictions/", None),
        ("/v1/models/digits", None),
        ("/v1/models/:predict", None),
        ("/v1/models/a/b:predict", None),
        ("/v1/models/digits:explain", None),
        ("/v2/models/digits", None),
        ("/v2/models/digits/ready", None),
        ("/v2/models//infer", None),
        ("/v2/models/digits/1.0/infer", None),
        ("/v2/health/ready", None),
        ("/", None),
        ("", None),
    ],
)
def test_a_path_names_a_model_or_none(path: str, expected: Wanted | None) -> None:
    assert wanted(path) == expected


@given(model=NAMES, version=NAMES)
def test_every_form_names_the_same_model(model: str, version: str) -> None:
    assert wanted(f"/predictions/{model}/{version}") == wanted(f"/v2/models/{model}/versions/{version}/infer")
    short = wanted(f"/predictions/{model}")
    assert short == wanted(f"/v2/models/{model}/infer") == wanted(f"/v1/models/{model}:predict")

"""Head kinds that the spec knows, and models, losses and metrics do not yet."""

import pytest

EACH_KIND_WITHOUT_A_MODULE = pytest.mark.parametrize(
    "content",
    [
        {"kind": "tokens", "labels": ["O", "B"]},
        {"kind": "segmentation", "labels": ["a", "b"]},
        {"kind": "oneshot", "dim": 2},
    ],
    ids=lambda content: content["kind"],
)

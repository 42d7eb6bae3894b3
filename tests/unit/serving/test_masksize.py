"""How large a mask becomes: told by the lengths of the row."""

from __future__ import annotations

import pytest

from polyhead.serving.masksize import MaskSize

HALF = MaskSize((3, 8, 10), {"height": 16, "width": 20}, {"height": (0, 0.5, 0), "width": (0, 0, 0.5)})


def test_a_mask_of_a_fixed_size_is_its_shape():
    assert MaskSize((2, 6, 10), {}, {}).bytes({}) == 2 * 6 * 10 * 4


@pytest.mark.parametrize(
    ("height", "width", "shape"), [(16, 20, (3, 8, 10)), (32, 20, (3, 16, 10)), (17, 4, (3, 9, 2)), (1, 1, (3, 1, 1))]
)
def test_a_mask_follows_its_row(height: int, width: int, shape: tuple[int, int, int]):
    assert HALF.bytes({"height": height, "width": width}) == 4 * shape[0] * shape[1] * shape[2]


def test_a_dimension_that_the_mask_does_not_follow_counts_nothing():
    mask = MaskSize((2, 6, 10), {"steps": 3}, {"steps": (0, 0, 0)})
    assert mask.bytes({"steps": 1000}) == mask.bytes({"steps": 1})


def test_one_dimension_may_be_both_axes():
    assert MaskSize((2, 4, 4), {"n": 4}, {"n": (0, 1, 1)}).bytes({"n": 10}) == 2 * 10 * 10 * 4

"""Answers of one structure whose numbers are close: batches of other sizes are summed in another order."""

from __future__ import annotations

import pytest

__all__ = ["assert_alike"]


def assert_alike(one: object, other: object, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """JSON of the same keys in the same order, the same words, and numbers that are close: as of `pytest.approx`."""
    assert type(one) is type(other)
    if isinstance(one, dict) and isinstance(other, dict):
        assert list(one) == list(other)
        assert_alike(list(one.values()), list(other.values()), rtol, atol)
    elif isinstance(one, list) and isinstance(other, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_alike(left, right, rtol, atol)
    elif isinstance(one, float):
        assert one == pytest.approx(other, rel=rtol, abs=atol)
    else:
        assert one == other

"""Bundles exported once for these tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyhead.serving.bundle import Bundle
from tests.unit.export.triton.models import field_bundle, text_bundle, two_input_bundle


@pytest.fixture(scope="session")
def bundles(digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """An image, a text, three tensors, and pictures of any size."""
    folder = tmp_path_factory.mktemp("triton")
    return {
        "digits": Bundle.open(digits_bundle),
        "texts": text_bundle(folder / "texts"),
        "field": field_bundle(folder / "field"),
        "two": two_input_bundle(folder / "two"),
    }

from __future__ import annotations

import importlib.metadata

from polyhead.export.timing.machine import machine
from polyhead.serving.settings import available_cores


def test_a_processor_is_told_with_its_cores_and_what_ran_there():
    text = machine("cpu")
    assert f", {available_cores()} core" in text
    assert f"torch {importlib.metadata.version('torch')}" in text
    assert not text.startswith(",")

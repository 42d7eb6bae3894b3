"""The engine of Ray, as far as it needs none running; with one: tests/e2e/test_scoring_ray.py."""

from __future__ import annotations

import sys

import pytest

from polyhead.serving.errors import RuntimeUnavailable
from polyhead.serving.scoring.engines.ray import RayEngine
from polyhead.serving.scoring.settings import ScoreSettings


def test_where_ray_is_missing_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_BACKEND_LOG_LEVEL", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.setenv(name, "")
    with pytest.raises(RuntimeUnavailable, match=r"ray is missing.*pip install 'polyhead\[ray\]'"):
        RayEngine(ScoreSettings())

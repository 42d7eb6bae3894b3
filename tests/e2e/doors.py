"""Servers with a front door, where there is what it is made of."""

from __future__ import annotations

import pytest

from polyhead.serving.errors import LaunchError
from polyhead.serving.frontdoor.nginx import find_nginx


def require_nginx() -> None:
    """Skip what needs nginx, and say what is missing."""
    try:
        find_nginx()
    except LaunchError:
        pytest.skip("nginx is not here: apt-get install nginx-light (Debian), and the front door is tested too")

"""Asks a side server, as `polyhead deploy` does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from polyhead.serving.errors import DeployError
from polyhead.serving.side.control import HEADER

__all__ = ["call"]

# A version may take long to load; the server itself bounds how long (polyhead_startup_timeout).
SECONDS = 3600.0
CONNECT_SECONDS = 5.0


def call(server: str, method: str, path: str, order: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The JSON that a side server answers.

    Args:
        server: its address.
        method, path: of the request.
        order: the body; None sends none.

    Raises:
        DeployError: the server is not there, or did not do it; its own words.
    """
    timeout = httpx.Timeout(SECONDS, connect=CONNECT_SECONDS)
    try:
        response = httpx.request(
            method, f"{server.rstrip('/')}{path}", json=order, headers={HEADER: "1"}, timeout=timeout, trust_env=False
        )
        content = response.json()
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise DeployError(
            f"no server at {server} ({error or type(error).__name__}): give the address it named as side, by --server"
        ) from None
    except ValueError:
        raise DeployError(f"{server} is no side server of polyhead serve: give the port + 2, by --server") from None
    if response.is_success and isinstance(content, dict):
        return content
    raise DeployError(str(content.get("error", content)) if isinstance(content, dict) else f"{server} answers nonsense")

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from polyhead.serving.errors import RequestError
from polyhead.serving.rayserve.proxied import middlewares

TOLD = (200, "application/json", b"{}", dict[str, str]())


@pytest.fixture(scope="module")
def rays() -> SimpleNamespace:
    """What Ray raises, and `in_time`: imported here, for it takes seconds, and warns of Ray's own use of pydantic."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ray.exceptions
        import ray.serve.exceptions

        from polyhead.serving.rayserve.ingress import in_time
    known = {**vars(ray.exceptions), "BackPressureError": ray.serve.exceptions.BackPressureError, "in_time": in_time}
    raised = ray.exceptions.RayTaskError("answer", "a page about our code", ValueError("secret"))
    return SimpleNamespace(**known, raised=raised)


def told(rays: SimpleNamespace, error: BaseException | None, wait: float = 0.0) -> Any:
    async def answer() -> Any:
        await asyncio.sleep(wait)
        if error is not None:
            raise error
        return TOLD

    async def asked() -> Any:
        return await rays.in_time(answer(), 0.05, "nobody answers")

    try:
        return asyncio.run(asked())
    except RequestError as refused:
        return refused


@pytest.mark.parametrize(
    ("made", "status", "kind"),
    [
        (lambda rays: rays.BackPressureError(num_queued_requests=1, max_queued_requests=1), 503, "overloaded"),
        (lambda rays: rays.raised, 500, "internal_error"),
        (lambda rays: rays.raised.as_instanceof_cause(), 500, "internal_error"),
        (lambda rays: rays.ActorDiedError(), 503, "not_ready"),
        (lambda rays: rays.OutOfMemoryError("the node has no memory left"), 503, "not_ready"),
        (lambda rays: rays.ObjectStoreFullError("full"), 503, "not_ready"),
        (lambda rays: rays.ObjectLostError("00" * 28, None, ""), 503, "not_ready"),
    ],
    ids=["full queue", "raised", "raised, typed", "actor died", "out of memory", "store full", "object lost"],
)
def test_what_fails_in_ray_is_told_in_our_words(
    rays: SimpleNamespace, made: Callable[[SimpleNamespace], Exception], status: int, kind: str
) -> None:
    refused = told(rays, made(rays))
    assert isinstance(refused, RequestError)
    assert (refused.status, refused.type) == (status, kind)
    assert "secret" not in str(refused)


def test_an_answer_comes_or_it_is_late(rays: SimpleNamespace) -> None:
    assert told(rays, None) == TOLD
    late = told(rays, None, wait=5)
    assert isinstance(late, RequestError)
    assert (late.status, late.type) == (504, "timeout")


def test_rays_own_headers_do_not_pass() -> None:
    """A client would have Ray end its request with a text of Ray's."""
    kept: list[tuple[bytes, bytes]] = []

    async def inner(scope: dict[str, Any], receive: object, send: object) -> None:
        kept.extend(Request(scope).headers.raw)

    (wrapping,) = middlewares()
    headers = [(b"x-request-timeout-seconds", b"0.001"), (b"X-Request-Disconnect-Disabled", b"?1"), (b"accept", b"*/*")]
    scope = {"type": "http", "headers": headers}
    asyncio.run(wrapping.cls(inner)(scope, PlainTextResponse, PlainTextResponse))
    assert kept == [(b"accept", b"*/*")]

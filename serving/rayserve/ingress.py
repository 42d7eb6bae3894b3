"""The HTTP side, in an actor of its own: a prediction goes to the model that it names, all else to the site."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import Response

from polyhead.serving.decoding import PATH_HEADER
from polyhead.serving.errors import InternalError, RequestError
from polyhead.serving.rayserve.bodies import Bodies
from polyhead.serving.rayserve.refusals import Late, NotReady, QueueFull
from polyhead.serving.rayserve.replica import MODEL, Asked, Told
from polyhead.serving.rayserve.routes import Wanted, wanted
from polyhead.serving.side.exchange import MethodNotAllowed, NotFound, refusal

__all__ = ["Ingress", "in_time"]

POLL_SECONDS = 0.05
STOPPING = "the server is about to stop: ask again elsewhere"
NO_REPLICA = "no replica of the model answers: send the request again a little later"

logger = logging.getLogger(__name__)


class Ingress:
    """Routes requests.

    Args:
        models: name, version and application of each model version; the first version of a name is the one that answers
            where a request names none.
        site: name and namespace of the actor that tells about them.
        max_body_bytes: of a request.
        seconds: until the model has to answer, once the request is here.
    """

    def __init__(
        self, models: Sequence[tuple[str, str, str]], site: tuple[str, str], max_body_bytes: int, seconds: float
    ) -> None:
        self._models: dict[str, dict[str, DeploymentHandle[Any]]] = {}
        for name, version, application in models:
            self._models.setdefault(name, {})[version] = serve.get_deployment_handle(MODEL, application)
        name, namespace = site
        self._site: Any = ray.get_actor(name, namespace=namespace)
        self._bodies, self._seconds = Bodies(max_body_bytes, seconds), seconds
        self._in_flight, self._closed = 0, False

    async def close(self) -> None:
        """Take no more predictions; returns when those that were accepted are answered."""
        self._closed = True
        while self._in_flight:
            await asyncio.sleep(POLL_SECONDS)

    async def __call__(self, request: Request) -> Response:
        """One answer. It raises nothing: Ray would tell the client about our code."""
        self._in_flight += 1
        try:
            return await self._answer(request)
        finally:
            self._in_flight -= 1

    async def _answer(self, request: Request) -> Response:
        try:
            path = request.url.path
            found = wanted(path)
            if found is None:
                return response(await self._told(request.method, path, named(request)))
            if request.method != "POST":
                raise MethodNotAllowed(f"{path:.200} knows POST, got {request.method}", ("POST",))
            if self._closed:
                raise NotReady("the server is about to stop: send the request to another")
            return response(await self._predicted(request, found))
        except RequestError as error:
            reply = refusal(error)
            return response((reply.status, reply.content_type, reply.body, dict(reply.headers)))

    async def _told(self, method: str, path: str, headers: Mapping[str, str]) -> Told:
        return await in_time(self._site.answer.remote(method, path, dict(headers)), self._seconds, STOPPING)

    async def _predicted(self, request: Request, found: Wanted) -> Told:
        handle = self._find(found)
        headers = named(request)
        headers.pop(PATH_HEADER, None)  # ours to say
        if found.extra:
            headers[PATH_HEADER] = found.extra
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        async with self._bodies.of(request) as body:
            asked: Asked = (body, media_type, headers)
            return await in_time(handle.answer.remote(asked), self._seconds, NO_REPLICA)

    def _find(self, found: Wanted) -> DeploymentHandle[Any]:
        versions = self._models.get(found.model, {})
        handle = versions.get(found.version or next(iter(versions), ""))
        if handle is None:
            there = ", ".join(f"{name}/{version}" for name, known in self._models.items() for version in known)
            name = f"{found.model}/{found.version}" if found.version else found.model
            raise NotFound(f"model {name:.80} is not served here: there are {there}")
        return handle


async def in_time(answer: Awaitable[Told], seconds: float, gone: str) -> Told:
    """What an actor answers.

    Args:
        gone: said where it, its machine or its answer is lost.

    Raises:
        RequestError: why there is none, in the words of the server.
    """
    try:
        async with asyncio.timeout(seconds):
            return await answer
    except TimeoutError:
        raise Late("the model did not answer in time: send fewer rows, or again later") from None
    except BackPressureError:
        raise QueueFull("as many requests wait as may: send this one again a little later") from None
    except RayTaskError:  # it raised: Ray would tell the client about our code
        logger.exception("a request failed")
        raise InternalError("the server failed on this request and has logged it") from None
    except (RayError, RayServeException):
        raise NotReady(gone) from None


def named(request: Request) -> dict[str, str]:
    """A request's headers by name in lower case; of several of one name the last."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in request.scope["headers"]}


def response(told: Told) -> Response:
    """As Starlette sends it."""
    status, content_type, body, headers = told
    return Response(body, status, {**headers, "Content-Type": content_type})

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from starlette.requests import Request

from polyhead.serving.errors import PayloadTooLarge, RequestError
from polyhead.serving.rayserve.bodies import Bodies
from polyhead.serving.rayserve.refusals import NotReady, QueueFull, Slow

MOST = 100


def request(parts: Sequence[bytes], announced: int | None = None, ends: bool = True) -> Request:
    """A request whose body comes in these parts; where it does not end, the rest never comes."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    if ends:
        messages[-1]["more_body"] = False
    coming = iter(messages)

    async def receive() -> dict[str, object]:
        for message in coming:
            return message
        return await asyncio.Future()

    headers = [] if announced is None else [(b"content-length", str(announced).encode())]
    return Request({"type": "http", "method": "POST", "headers": headers}, receive)


async def read(bodies: Bodies, *asked: Request) -> list[bytes | RequestError]:
    """What is read of each, all of them held at once."""
    together = asyncio.Barrier(len(asked))

    async def one(each: Request) -> bytes | RequestError:
        try:
            async with bodies.of(each) as body:
                await together.wait()
                return body
        except RequestError as error:
            await together.wait()
            return error

    return await asyncio.gather(*map(one, asked))


def test_a_body_is_whole_and_counts_until_it_is_answered() -> None:
    async def counted() -> None:
        bodies = Bodies(MOST, 5)
        async with bodies.of(request([b"ab", b"", b"cde"], 5)) as body:
            assert (body, bodies.held) == (b"abcde", 5)
        assert bodies.held == 0

    asyncio.run(counted())


@pytest.mark.parametrize(
    ("asked", "kind", "status"),
    [
        (request([b"a" * 60, b"a" * 41]), PayloadTooLarge, 413),
        (request([], MOST + 1, ends=False), PayloadTooLarge, 413),  # at once: nothing of it is waited for
        (request([b"a"], ends=False), Slow, 408),
    ],
)
def test_what_is_too_long_or_too_slow_is_refused_and_counts_no_more(
    asked: Request, kind: type[RequestError], status: int
) -> None:
    bodies = Bodies(MOST, 0.05)
    (error,) = asyncio.run(read(bodies, asked))
    assert isinstance(error, kind)
    assert (error.status, bodies.held) == (status, 0)


def test_beyond_the_room_for_all_of_them_bodies_are_refused() -> None:
    bodies = Bodies(MOST, 5, room=150)
    answers = asyncio.run(read(bodies, *(request([b"a" * 60], 60) for _ in range(3))))
    assert [answer for answer in answers if isinstance(answer, bytes)] == [b"a" * 60] * 2
    (refused,) = [answer for answer in answers if isinstance(answer, RequestError)]
    assert isinstance(refused, QueueFull)
    assert (refused.status, refused.type, bodies.held) == (503, "overloaded", 0)


def test_what_is_only_announced_takes_no_room() -> None:
    async def asked() -> bytes:
        bodies = Bodies(MOST, 5, room=150)
        idle = [asyncio.create_task(read(bodies, request([b"a"], MOST, ends=False))) for _ in range(20)]
        await asyncio.sleep(0)
        async with bodies.of(request([b"a" * MOST], MOST)) as body:
            for task in idle:
                task.cancel()
            return body

    assert asyncio.run(asked()) == b"a" * MOST


def test_a_client_that_goes_is_no_fault_of_ours() -> None:
    async def gone() -> dict[str, str]:
        return {"type": "http.disconnect"}

    asked = Request({"type": "http", "method": "POST", "headers": []}, gone)
    (error,) = asyncio.run(read(Bodies(MOST, 5), asked))
    assert isinstance(error, NotReady)

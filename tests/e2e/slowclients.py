"""Clients that take their time: `python -m tests.e2e.slowclients HOST PORT PATH EACH SECONDS`.

EACH of four kinds, in a process of their own: those that connect and say nothing, those that send a byte of a header
a second, those that send a byte of a body a second, and those that read a byte of an answer a second. Whoever is
hung up on comes back. Prints one JSON object when all are there, and one at the end: by kind, how many were hung up on.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections import Counter
from collections.abc import Sequence

KINDS = ("silent", "header", "body", "reader")
DOCUMENT = "/1.0/openapi.json"  # behind PATH: an answer of TorchServe's that costs it little
ADDRESS = "127.0.0.2"  # not that of the clients which are measured
PACE = 1.0  # seconds between two bytes


async def client(kind: str, host: str, port: int, path: str, hung_up: Counter[str], there: asyncio.Semaphore) -> None:
    """One client, for ever."""
    first = True
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port, local_addr=(ADDRESS, 0))
            start = f"POST {path} HTTP/1.1\r\nHost: slow\r\n"
            start += {"silent": "", "header": "X-Slow: ", "body": "Content-Length: 100000\r\n\r\n"}[kind]
            if kind != "silent":
                writer.write(start.encode())
            if first:
                there.release()
                first = False
            ended = asyncio.create_task(reader.read())
            while not ended.done():
                await asyncio.wait([ended], timeout=PACE)
                if kind != "silent" and not ended.done():
                    writer.write(b"a")
            await asyncio.gather(ended, return_exceptions=True)
            hung_up[kind] += 1
            writer.close()
        except OSError:
            hung_up[kind] += 1
            await asyncio.sleep(PACE)


async def reader(_: str, host: str, port: int, path: str, hung_up: Counter[str], there: asyncio.Semaphore) -> None:
    """One that asks as all do, and then takes its time, for ever."""
    loop = asyncio.get_running_loop()
    first = True
    while True:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.bind((ADDRESS, 0))
            connection.setblocking(False)
            try:
                await loop.sock_connect(connection, (host, port))
                await loop.sock_sendall(connection, f"GET {path}{DOCUMENT} HTTP/1.1\r\nHost: slow\r\n\r\n".encode())
                if first:
                    there.release()
                    first = False
                while await loop.sock_recv(connection, 1):
                    await asyncio.sleep(PACE)
            except OSError:
                await asyncio.sleep(PACE)
            hung_up["reader"] += 1


async def run(host: str, port: int, path: str, each: int, seconds: float) -> Counter[str]:
    """All of them, for a while."""
    hung_up: Counter[str] = Counter()
    there = asyncio.Semaphore(0)
    tasks = []
    for _ in range(each):
        for kind in KINDS:
            slow = reader if kind == "reader" else client
            tasks.append(asyncio.create_task(slow(kind, host, port, path, hung_up, there)))
        await asyncio.sleep(0.001)
    for _ in tasks:
        await there.acquire()
    print(json.dumps({"there": len(tasks)}), flush=True)
    await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return hung_up


def main(arguments: Sequence[str]) -> None:
    host, port, path, each, seconds = arguments
    print(json.dumps(asyncio.run(run(host, int(port), path, int(each), float(seconds)))))


if __name__ == "__main__":
    main(sys.argv[1:])

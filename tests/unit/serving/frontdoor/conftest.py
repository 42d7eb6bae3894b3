from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from polyhead.serving.errors import LaunchError
from polyhead.serving.frontdoor.door import FrontDoor
from polyhead.serving.frontdoor.nginx import find_nginx
from polyhead.serving.frontdoor.settings import FrontDoorSettings
from tests.unit.serving.frontdoor.upstream import Upstream


@pytest.fixture(scope="session")
def nginx() -> Path:
    """nginx; without it these tests say what is missing."""
    try:
        return find_nginx()
    except LaunchError:
        pytest.skip("nginx is not here: apt-get install nginx-light (Debian), and the front door is tested too")


@dataclass
class Opened:
    """A door, and what stands behind it."""

    door: FrontDoor
    torchserve: Upstream
    side: Upstream
    http: httpx.Client
    lines: list[str] = field(default_factory=list)

    def predict(self, path: str = "/predictions/digits", content: bytes = b"{}", **options: object) -> httpx.Response:
        return self.http.post(path, content=content, **options)


@pytest.fixture(scope="module")
def doors(nginx: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Opened]]:
    """Every door of a module, by its settings: starting one takes longer than asking it."""
    made: dict[str, Opened] = {}
    yield made
    for one in made.values():
        one.http.close()
        one.door.kill()
        one.torchserve.close()
        one.side.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "front door files" and _alive(thread)]


@pytest.fixture
def opened(doors: dict[str, Opened], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Opened]:
    """A door with these settings, `fresh` for a test that breaks it; `verify` is the client's."""

    def make(
        access_log: bool = False,
        log_format: str = "text",
        verify: object = True,
        fresh: bool = False,
        **settings: object,
    ) -> Opened:
        name = repr((access_log, log_format, sorted(settings.items()), len(doors) if fresh else None))
        if name not in doors:
            torchserve, side, lines = Upstream(), Upstream(), []
            door = FrontDoor(
                FrontDoorSettings.parse(settings, "test"),
                "127.0.0.1",
                0,
                torchserve.port,
                side.port,
                tmp_path_factory.mktemp("door") / "door",
                lines.append,
                access_log=access_log,
                log_format=log_format,
            )
            door.start()
            http = httpx.Client(base_url=door.url, trust_env=False, timeout=20, verify=verify)
            doors[name] = Opened(door, torchserve, side, http, lines)
        one = doors[name]
        for upstream in (one.torchserve, one.side):
            upstream.seen.clear()
            upstream.answers.clear()
        one.lines.clear()
        return one

    return make


def _alive(thread: threading.Thread) -> bool:
    thread.join(5)
    return thread.is_alive()


@pytest.fixture(scope="session")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of two keys that no test changes."""
    return _keys(tmp_path_factory.mktemp("known") / "keys")


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """The same in a file of the test's own."""
    return _keys(tmp_path / "keys")


def _keys(path: Path) -> Path:
    path.write_text("# who may ask\nalice AliceAliceAliceAlice\nbob BobBobBobBobBobBob+/==\n")
    path.chmod(0o600)
    return path

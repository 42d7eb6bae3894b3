"""The image and what runs of it. All of it is `make container-test`: it takes minutes, and a machine to itself."""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.command import run_polyhead
from tests.container import building
from tests.container.sandbox import Container, Image, Network


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip all, and say why, where it was not asked for or cannot be done."""
    reason = None
    if os.environ.get("POLYHEAD_CONTAINER_TESTS") != "1":
        reason = "builds and runs the image, which takes minutes: make container-test"
    elif missing := sorted(package for name, package in building.PROGRAMS.items() if shutil.which(name) is None):
        reason = f"needs Debian's packages {', '.join(missing)}"
    elif os.geteuid() != 0:
        reason = "needs root: mounts, network namespaces"
    for item in items:
        if reason is not None and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


# Of networks: other runs of these tests on the machine have others.
numbers = itertools.cycle(range(os.getpid() % 200 + 1, os.getpid() % 200 + 50))


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Image]:
    tag = os.environ.get("POLYHEAD_CONTAINER_IMAGE")  # one that was built before
    built = Image(tag or building.build(building.checkout(tmp_path_factory.mktemp("checkout"))))
    yield built
    built.close()


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    made = Network(next(numbers))
    yield made
    made.close()


@pytest.fixture(scope="session")
def models(digits_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as an operator mounts it: digits and smarthome."""
    folder = tmp_path_factory.mktemp("models")
    given = os.environ.get("POLYHEAD_SMARTHOME_BUNDLE")
    if given is None:
        run = folder.parent / "smarthome-run"
        run_polyhead("train", "smarthome", "--out", run, timeout=1500)
        run_polyhead("export", run, "--out", folder / "smarthome")
    else:
        shutil.copytree(given, folder / "smarthome")
    shutil.copytree(digits_bundle, folder / "digits")
    opened(folder)
    return folder


def opened(folder: Path) -> None:
    """Let every user read a folder: pytest makes them for its own alone."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    for parent in folder.parents:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)


@pytest.fixture
def start(image: Image, tmp_path: Path) -> Iterator[Callable[..., Container]]:
    """Start containers, each in a network of its own; they are gone when the test is over."""
    started: list[Container] = []

    def begin(mounts: dict[str, Path], *, of: Image | None = None, **options: object) -> Container:
        container = Container(of or image, Network(next(numbers)), tmp_path, mounts, **options)
        started.append(container)
        return container

    yield begin
    for container in started:
        container.close()
        container.network.close()


@pytest.fixture(scope="module")
def running(
    image: Image, network: Network, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Container]:
    """One container for all tests that leave it as it is."""
    container = Container(image, network, tmp_path_factory.mktemp("running"), {"/models": models})
    container.wait_until_ready()
    yield container
    container.close()


@pytest.fixture(scope="session")
def bill(image: Image) -> dict[str, object]:
    return json.loads((image.root / "usr/share/polyhead/sbom.cdx.json").read_text())

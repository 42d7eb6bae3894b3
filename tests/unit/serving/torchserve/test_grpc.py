"""The class that opens TorchServe's gRPC is changed in one name, and no other class is taken for it."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest

from polyhead.serving.errors import LaunchError
from polyhead.serving.torchserve.grpc import CLASS, JAR, write_without_management
from polyhead.serving.torchserve.java import torchserve_home


def test_the_management_service_is_named_no_more_and_nothing_else_is_changed(tmp_path: Path) -> None:
    frontend = torchserve_home() / "ts" / "frontend"
    write_without_management(frontend, tmp_path)
    with ZipFile(frontend / JAR) as jar:
        known = jar.read(CLASS)
    written = (tmp_path / CLASS).read_bytes()
    assert b"ManagementImpl" in known
    assert b"ManagementImpl" not in written
    assert written == known.replace(
        b"\x01\x00\x29org/pytorch/serve/grpcimpl/Management", b"\x01\x00\x28org/pytorch/serve/grpcimpl/Inference"
    )


@pytest.mark.parametrize("content", [None, b"another class"])
def test_another_torchserve_is_refused(tmp_path: Path, content: bytes | None) -> None:
    with ZipFile(tmp_path / JAR, "w") as jar:
        if content is not None:
            jar.writestr(CLASS, content)
    with pytest.raises(LaunchError, match="install torchserve"):
        write_without_management(tmp_path, tmp_path / "classes")

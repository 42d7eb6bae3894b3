"""TorchServe's gRPC without its management half, which anybody on this machine could give orders to.

TorchServe opens both gRPC ports whatever it is told, and looks at no key there: whoever reaches the port of management
unregisters models. Its front end is Java, frozen at 0.12.0: the class that chooses what a port serves is put before the
jar with one name changed, so that the port of management serves predictions as the other does, and no order is known.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from polyhead.serving.errors import LaunchError

__all__ = ["write_without_management"]

JAR = "model-server.jar"
CLASS = "org/pytorch/serve/grpcimpl/GRPCServiceFactory.class"
SHA256 = "861b6fe0f5e128fd28731d85ec35aa9190809d1c343b417024201ca4fab5da5f"
MANAGEMENT, INFERENCE = "org/pytorch/serve/grpcimpl/ManagementImpl", "org/pytorch/serve/grpcimpl/InferenceImpl"


def write_without_management(frontend: Path, folder: Path) -> None:
    """Write the changed class where the class path begins.

    Args:
        frontend: the folder of TorchServe's jar.
        folder: to be the first on the class path.

    Raises:
        LaunchError: the class is another than the one we know.
    """
    try:
        with ZipFile(frontend / JAR) as jar:
            known = jar.read(CLASS)
    except (OSError, KeyError, BadZipFile) as error:
        raise LaunchError(f"{frontend / JAR}: cannot be read ({error}): install torchserve anew") from None
    if hashlib.sha256(known).hexdigest() != SHA256:
        raise LaunchError(
            f"{frontend / JAR}: {CLASS} is not TorchServe 0.12.0's, so its gRPC management cannot be closed: "
            "install torchserve==0.12.0 anew"
        )
    path = folder / CLASS
    path.parent.mkdir(parents=True)
    path.write_bytes(known.replace(_constant(MANAGEMENT), _constant(INFERENCE)))


def _constant(text: str) -> bytes:
    """A text in a class file's table of constants: its kind, its length, itself."""
    return b"\x01" + len(text).to_bytes(2, "big") + text.encode()

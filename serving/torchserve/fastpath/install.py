"""Putting the fast path into TorchServe's worker, where it is the very worker that the fast path was written for."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from polyhead.serving.errors import LaunchError
from polyhead.serving.request import HttpResponse
from polyhead.serving.torchserve.fastpath.garbage import BetweenBatches
from polyhead.serving.torchserve.fastpath.reader import Batch, Reader
from polyhead.serving.torchserve.fastpath.writer import Writer
from polyhead.serving.torchserve.incoming import Incoming, tags

__all__ = ["SOURCES", "VERSION", "in_worker", "install", "require_known"]

VERSION = "0.12.0"
# SHA-256 of the sources whose functions are replaced, or rely on those that are.
SOURCES = {
    "ts.model_service_worker": "3640d5ae3d03e229cc1980f8bfbb3642865cb49f9ead1769bf41a30aa4e75343",
    "ts.protocol.otf_message_handler": "83e82dc62b4a95a362efe4518786c6b389b895b85acaf37721aaff042ec9989a",
    "ts.service": "f18259269551299d25f4e9d2bdc916c8308c10233501df08196cc7cfa2d0d291",
}
FIX = "install torchserve==0.12.0, or set polyhead_fast_path=false for TorchServe's own, slower protocol"

Answer = Callable[[Sequence[Incoming]], list[HttpResponse]]


def in_worker() -> bool:
    """Whether this process is TorchServe's worker, and not one that calls a handler for itself, as a test does."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    return file is not None and Path(file).parts[-2:] == ("ts", "model_service_worker.py")


def require_known(version: str, files: Mapping[str, Path]) -> None:
    """Refuse a TorchServe that is not the one this was written for.

    Args:
        version: TorchServe's.
        files: by module, its source.

    Raises:
        LaunchError: it is another version, or a source was changed.
    """
    if version != VERSION:
        raise LaunchError(f"the fast path is for TorchServe {VERSION}, this is {version}: {FIX}")
    for name, digest in SOURCES.items():
        if hashlib.sha256(files[name].read_bytes()).hexdigest() != digest:
            raise LaunchError(f"the fast path is for TorchServe {VERSION} as published, {name} was changed: {FIX}")


def install(answer: Answer, entry_point: object, headers: Sequence[tuple[str, str]]) -> None:
    """From the next message on, this worker reads and writes by the fast path.

    Args:
        answer: requests of a batch to as many responses.
        entry_point: what TorchServe would call for a batch: the handler's `handle`.
        headers: of every response.

    Raises:
        LaunchError: the worker is not the one this was written for.
    """
    main: Any = sys.modules["__main__"]
    service, protocol = sys.modules["ts.service"], sys.modules["ts.protocol.otf_message_handler"]
    files = {name: _source(name) for name in SOURCES} | {"ts.model_service_worker": Path(str(main.__file__))}
    require_known(sys.modules["ts"].__version__, files)
    if main.worker.async_comm:
        raise LaunchError("the fast path and asyncCommunication do not go together: remove asyncCommunication")
    if main.retrieve_msg is not protocol.retrieve_msg and not isinstance(main.retrieve_msg, Messages):
        raise LaunchError(
            f"the fast path is for TorchServe {VERSION} as published, its retrieve_msg was replaced: {FIX}"
        )
    writer = Writer(headers)

    def predict(service: Any, batch: Batch) -> bytes:
        if service._entry_point != entry_point:  # an envelope, which would be passed over
            raise RuntimeError("the fast path and a service envelope do not go together: remove service_envelope")
        return writer.message(batch.ids, answer(batch.requests), tags(batch.requests))

    if not isinstance(main.retrieve_msg, Messages):  # a second model in this worker: what was read ahead must stay
        main.retrieve_msg = Messages()
    service.Service.predict = predict


def _source(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise LaunchError(f"the fast path is for TorchServe {VERSION}, which has {name}; this one has not: {FIX}")
    return Path(spec.origin)


class Messages:
    """In place of `ts.protocol.otf_message_handler.retrieve_msg`."""

    def __init__(self) -> None:
        self._reader: Reader | None = None  # of the one connection that a worker has at a time
        self._collection = BetweenBatches()

    def __call__(self, connection: Any) -> tuple[bytes, Any]:
        """The next message; see `Reader.message`."""
        if self._reader is None or self._reader.connection is not connection:
            self._reader = Reader(connection)
        self._collection.pause()
        return self._reader.message()

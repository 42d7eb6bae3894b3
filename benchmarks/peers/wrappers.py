"""How a contender's protocol carries the same bytes: nearly always as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.contenders import CONTENDERS, request

__all__ = ["WRAPPERS", "Bare", "Choosing", "Plain", "Triton"]


@dataclass(frozen=True)
class Plain:
    """The body as it is, its media type in the header; the answer as it is.

    Attributes:
        chooses: heads can be asked for; else every head is answered.
    """

    chooses: bool = False

    def request(self, path: str, task: Mapping[str, Any], body: bytes, _heads: Sequence[str] | None) -> bytes:
        """A whole HTTP request."""
        return request(path, task["content_type"], body)

    def answer(self, body: bytes) -> bytes:
        """The JSON of an answer's body."""
        return body


@dataclass(frozen=True)
class Choosing(Plain):
    """Polyhead's header names the heads wanted."""

    chooses: bool = True

    def request(self, path: str, task: Mapping[str, Any], body: bytes, heads: Sequence[str] | None) -> bytes:
        """A whole HTTP request."""
        return request(path, task["content_type"], body, {"X-Polyhead-Heads": ",".join(heads)} if heads else None)


@dataclass(frozen=True)
class Bare(Plain):
    """The answer is the list alone: BentoML's batches are lists, and it writes them as they are."""

    def answer(self, body: bytes) -> bytes:
        """The JSON of an answer's body."""
        return b'{"predictions":%s}' % body


@dataclass(frozen=True)
class Triton(Plain):
    """Open Inference Protocol with binary tensors: one element of BYTES in, one out, a length before each."""

    def request(self, path: str, _task: Mapping[str, Any], body: bytes, _heads: Sequence[str] | None) -> bytes:
        """A whole HTTP request."""
        payload = len(body).to_bytes(4, "little") + body
        head = json.dumps(
            {
                "inputs": [
                    {
                        "name": "body",
                        "shape": [1, 1],
                        "datatype": "BYTES",
                        "parameters": {"binary_data_size": len(payload)},
                    }
                ],
                "outputs": [{"name": "answer", "parameters": {"binary_data": True}}],
            }
        ).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        return request(path, "application/octet-stream", head + payload, headers)

    def answer(self, body: bytes) -> bytes:
        """The JSON of an answer's body."""
        end = json.JSONDecoder().raw_decode(body.decode("latin-1"))[1]
        return body[end + 4 :]


SPECIAL = {"polyhead": Choosing(), "bentoml": Bare(), "pytriton": Triton()}
WRAPPERS: Mapping[str, Plain] = {name: SPECIAL.get(name, Plain()) for name in CONTENDERS}

"""Answers of the Open Inference Protocol: each head's raw numbers as a tensor, or its best classes as strings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from polyhead.models.spec import OneShotHead
from polyhead.serving.golden import Array
from polyhead.serving.protocol.rawnumbers import raw_numbers
from polyhead.serving.request import HttpResponse, Query

if TYPE_CHECKING:
    from polyhead.serving.answers import HeadAnswers

__all__ = ["Output", "Reply"]


@dataclass(frozen=True, slots=True)
class Output:
    """How one head is wanted.

    Attributes:
        binary: as bytes behind the JSON.
        classes: this many of the best classes as `score:index:label`; the raw numbers where 0.
    """

    binary: bool = False
    classes: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """Writes the answer to one request; see `polyhead.serving.request.Encode`.

    Attributes:
        model, version: of what answers.
        id: of the request, given back.
        outputs: by head, in the order of the answer.
    """

    model: str
    version: str
    id: str | None
    outputs: Mapping[str, Output]

    def __call__(self, query: Query, answers: Mapping[str, HeadAnswers], parts: Mapping[str, slice]) -> HttpResponse:
        """JSON; or JSON and the bytes of tensors behind it, its length in a header."""
        del query  # all that counts was read from it when this was made
        tensors: list[dict[str, Any]] = []
        data: list[bytes] = []
        for head, output in self.outputs.items():
            described, values = _tensor(head, answers[head], parts[head], output)
            tensors.append(described)
            data += values
        content: dict[str, Any] = {"model_name": self.model, "model_version": self.version}
        if self.id is not None:
            content["id"] = self.id
        head_bytes = orjson.dumps(content | {"outputs": tensors}, option=orjson.OPT_SERIALIZE_NUMPY)
        if not data:
            return HttpResponse(200, "OK", head_bytes)
        length = ("Inference-Header-Content-Length", str(len(head_bytes)))
        return HttpResponse(200, "OK", b"".join((head_bytes, *data)), "application/octet-stream", (length,))


def _tensor(head: str, answers: HeadAnswers, part: slice, output: Output) -> tuple[dict[str, Any], list[bytes]]:
    if output.classes:
        strings = _classes(answers, part, output.classes)
        shape, datatype = [len(strings), len(strings[0])], "BYTES"
        flat: Any = [text for row in strings for text in row]
        packed = b"".join(len(text).to_bytes(4, "little") + text for text in map(str.encode, flat))
    else:
        array = raw_numbers(head, answers, part)
        shape, datatype = list(array.shape), "FP32"
        flat = np.ascontiguousarray(array, "<f4").reshape(-1)
        packed = flat.tobytes() if output.binary else b""
    described = {"name": head, "datatype": datatype, "shape": shape}
    if not output.binary:
        return described | {"data": flat}, []
    return described | {"parameters": {"binary_data_size": len(packed)}}, [packed]


def _classes(answers: HeadAnswers, part: slice, count: int) -> list[list[str]]:
    """The best classes of each row, as Triton writes them. A oneshot head's are the nearest."""
    scores = answers.scores[part]
    ranks: Array = answers.distances[part] if isinstance(answers.spec, OneShotHead) else -scores
    order = np.argsort(ranks, axis=1, kind="stable")[:, :count]
    return [
        [f"{float(row[i]):.9g}:{i}:{answers.labels[i]}" for i in best]
        for row, best in zip(scores, order.tolist(), strict=True)
    ]

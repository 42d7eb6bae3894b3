"""`application/octet-stream`: rows of the model's only tensor input, little-endian, one after the other.

Their bytes are joined with those of the other requests before anyone looks at a number; see `polyhead.serving.collate`.
"""

from __future__ import annotations

import numpy as np

from polyhead.models.spec import ModelSpec, TensorInput
from polyhead.serving.errors import InvalidInstance, PayloadTooLarge
from polyhead.serving.protocol import rows
from polyhead.serving.protocol.headsheader import HEADS_HEADER, named_heads
from polyhead.serving.request import PLAIN, HttpRequest, Query
from polyhead.serving.settings import Settings

__all__ = ["Octets"]


class Octets:
    """The decoder of one model whose only input is a tensor of a fixed shape.

    Args:
        spec: the model's.
        settings: the bounds of a request.
    """

    def __init__(self, spec: ModelSpec, settings: Settings) -> None:
        ((self._name, tensor),) = spec.inputs.items()
        assert isinstance(tensor, TensorInput)
        assert not tensor.free
        self._spec, self._tensor, self._settings = spec, tensor, settings
        self._all = tuple(spec.heads)
        self._row = rows.row_bytes(tensor)
        # Most bodies are one row of numbers of which only a look at all of them can tell whether they are in order.
        self._plain = self._row if tensor.dtype != "bool" else -1

    def decode(self, request: HttpRequest, spec: ModelSpec, settings: Settings) -> Query:  # noqa: ARG002 - as all decoders
        """A body that is one row, or several.

        Raises:
            RequestError: it does not fit the input, or the heads are not the model's.
        """
        body, headers = request.body, request.headers
        heads = self._all if HEADS_HEADER not in headers else named_heads(self._spec, headers)
        if len(body) == self._plain:
            return Query(1, {self._name: body}, heads, PLAIN, True)
        if len(body) <= self._row or len(body) % self._row:
            return Query(1, {self._name: rows.from_bytes(self._name, self._tensor, body, ())}, heads, PLAIN, True)
        count = len(body) // self._row
        if count > self._settings.max_rows:
            raise PayloadTooLarge(f"{count} rows, allowed are {self._settings.max_rows} a request")
        if len(body) > self._settings.max_input_bytes:
            raise PayloadTooLarge(
                f"{count} rows are {len(body)} bytes, allowed are {self._settings.max_input_bytes} a request: "
                "send fewer rows at a time"
            )
        if self._tensor.dtype == "bool" and np.frombuffer(body, np.uint8).max() > 1:
            raise InvalidInstance(f"input {self._name!r}: bytes of a bool are 0 or 1")
        return Query(count, {self._name: body}, heads)

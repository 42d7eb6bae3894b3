"""JSON bodies that are lists of numbers, read without a Python object for each number.

Nothing is refused here: a body with anything out of the ordinary is left to `protocol.json`, which says what is wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import simdjson

from polyhead.models.spec import ModelSpec, TensorInput
from polyhead.serving.golden import Array
from polyhead.serving.protocol import json, rows
from polyhead.serving.request import Body, HttpRequest, Query, choose_heads, parse_options
from polyhead.serving.settings import Settings

__all__ = ["FlatNumbers"]

# Beyond it a 64-bit integer is not a double, and would be rounded twice on its way to a float32.
EXACT = 2.0**53
KEYS = {"instances", "heads", "options"}


class FlatNumbers:
    """Reads bodies of a model whose only input is a list of floating-point numbers, all rows of one length.

    Args:
        spec: the model's; see `fits`.
        settings: the bounds of a request.
    """

    def __init__(self, spec: ModelSpec, settings: Settings) -> None:
        ((name, tensor),) = spec.inputs.items()
        self._names = [name]
        assert isinstance(tensor, TensorInput)
        self._dtype = np.dtype(tensor.dtype)
        (self._length,) = tensor.shape
        self._most = min(settings.max_rows, settings.max_input_bytes // rows.row_bytes(tensor))
        self._parser = simdjson.Parser()

    @staticmethod
    def fits(spec: ModelSpec) -> bool:
        """Whether this is a model of such an input."""
        only = next(iter(spec.inputs.values()))
        flat = len(spec.inputs) == 1 and isinstance(only, TensorInput) and len(only.shape) == 1 and not only.free
        return flat and only.dtype.startswith("float")  # type: ignore[union-attr]

    def decode(self, request: HttpRequest, spec: ModelSpec, settings: Settings) -> Query:
        """A JSON body to a query, exactly as `protocol.json` would decode it.

        Raises:
            RequestError: naming the place in the body.
        """
        found = self.read(request.body)
        if found is None:
            return json.decode(request, spec, settings)
        numbers, rest = found
        heads, options = choose_heads(spec, rest.get("heads")), parse_options(rest.get("options"))
        return Query(len(numbers), {self._names[0]: numbers}, heads, options)

    def read(self, body: Body) -> tuple[Array, Mapping[str, Any]] | None:
        """The rows `[rows, length]`, and the rest of the document; None where the body is to be read with care."""
        data = bytes(body)
        if data[:1] != b"{":  # white space, or a mark that only some parsers pass over
            return None
        try:
            return self._rows(self._parser.parse(data), data)
        except (
            ValueError,
            TypeError,
            KeyError,
            RuntimeError,
            AttributeError,
        ):  # of a document that is not of this form
            return None

    def _rows(self, document: Any, data: bytes) -> tuple[Array, Mapping[str, Any]] | None:
        keys = list(document.keys())
        instances = document["instances"]
        count = len(instances)
        rest = {key: _plain(document[key]) for key in keys if key != "instances"}
        lists = 1 + count + sum(isinstance(value, list) for value in rest.values())
        # A list in a row would be flattened: there must be no more of them than rows. One in a string only looks odd.
        if len(set(keys)) < len(keys) or not KEYS.issuperset(keys) or not 0 < count <= self._most:
            return None
        if data.count(b"[") != lists:
            return None
        numbers = [np.frombuffer(self._row(row)) for row in instances]
        if any(len(row) != self._length for row in numbers):
            return None
        with np.errstate(over="ignore"):
            array = np.asarray(numbers, self._dtype)
        if not np.abs(array).max() < min(EXACT, float(np.finfo(self._dtype).max)):  # nor where one is not finite
            return None
        return array, rest

    def _row(self, row: Any) -> Any:
        if isinstance(row, simdjson.Object):
            if list(row.keys()) != self._names:
                raise KeyError(self._names[0])
            row = row[self._names[0]]
        return row.as_buffer(of_type="d")


def _plain(value: Any) -> Any:
    """A part of the document as Python has it."""
    if isinstance(value, simdjson.Array):
        return value.as_list()
    return value.as_dict() if isinstance(value, simdjson.Object) else value

"""How large the outputs of one value per token or pixel become, so that no batch of small requests exhausts memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from polyhead.models.spec import ModelSpec, SegmentationHead, TensorInput, TokensHead
from polyhead.serving.engine import Engine
from polyhead.serving.errors import PayloadTooLarge
from polyhead.serving.masksize import measured
from polyhead.serving.request import Query

__all__ = ["DenseOutputs"]

ITEM = 4  # bytes of a float32


class DenseOutputs:
    """The dense heads of one model.

    Args:
        engine: its bundle's golden samples tell the size of a mask; where dimensions are free, a row of other lengths
            is run to see how the mask follows.
        limit: bytes of dense outputs, of one request and of what is answered together.

    Attributes:
        any: whether there are such heads.
    """

    def __init__(self, engine: Engine, limit: int) -> None:
        spec = engine.bundle.spec
        heads = spec.heads.items()
        self.limit = limit
        self._tokens = {n: (spec.text_of(h), len(h.labels) * ITEM) for n, h in heads if isinstance(h, TokensHead)}
        self._places = _places(spec)
        masks = [name for name, head in heads if isinstance(head, SegmentationHead)]
        self._masks = measured(engine, masks) if masks else {}
        self.any = bool(self._tokens or self._masks)

    def require_room(self, query: Query) -> None:
        """Refuse a request whose dense outputs alone are beyond the limit.

        Raises:
            PayloadTooLarge: naming the size and the limit.
        """
        size = self._size([query], [self._pixels(query)])
        if size > self.limit:
            raise PayloadTooLarge(
                f"{query.rows} rows of heads with a value per token or pixel are {size} bytes, "
                f"allowed are {self.limit} a request: send fewer rows, or leave such heads out"
            )

    def groups(self, queries: Sequence[Query]) -> Iterator[Sequence[Query]]:
        """Queries to answer together: all of them, where their dense outputs are within the limit."""
        if not queries:
            return
        if not self.any:
            yield queries
            return
        pixels = [self._pixels(query) for query in queries]
        if self._size(queries, pixels) <= self.limit:
            yield queries
            return
        start = 0
        for end in range(1, len(queries)):
            if self._size(queries[start : end + 1], pixels[start : end + 1]) > self.limit:
                yield queries[start:end]
                start = end
        yield queries[start:]

    def _size(self, queries: Sequence[Query], pixels: Sequence[Mapping[str, int]]) -> int:
        """Bytes of the dense outputs of these queries in one batch: every row is as long as the longest text."""
        rows = sum(query.rows for query in queries)
        wanted = {head for query in queries for head in query.heads}
        size = sum(masks[head] for masks in pixels for head in masks if head in wanted)
        for head in wanted & self._tokens.keys():
            source, token = self._tokens[head]
            longest = max(len(text.ids) for query in queries for text in query.inputs[source])  # type: ignore[union-attr]
            size += int(rows * longest * token)
        return size

    def _pixels(self, query: Query) -> dict[str, int]:
        """Bytes of the masks of all rows, by head."""
        if not self._masks:
            return {}
        if not self._places:
            return {head: query.rows * mask.bytes({}) for head, mask in self._masks.items()}
        columns = [
            [row.shape[axis] for row in query.inputs[name]]  # type: ignore[union-attr]
            for name, axis in self._places.values()
        ]
        shapes = Counter(zip(*columns, strict=True))
        return {
            head: sum(n * mask.bytes(dict(zip(self._places, shape, strict=True))) for shape, n in shapes.items())
            for head, mask in self._masks.items()
        }


def _places(spec: ModelSpec) -> dict[str, tuple[str, int]]:
    """By free dimension, an input that has it and the axis in a row of it."""
    return {
        dimension: (name, axis)
        for name, value in spec.inputs.items()
        if isinstance(value, TensorInput)
        for axis, dimension in enumerate(value.shape)
        if isinstance(dimension, str)
    }

"""How large the outputs of one value per token or pixel become, so that no batch of small requests exhausts memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from polyhead.models.spec import SegmentationHead, TokensHead
from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import PayloadTooLarge
from polyhead.serving.request import Query

__all__ = ["DenseOutputs"]

ITEM = 4  # bytes of a float32


class DenseOutputs:
    """The dense heads of one model.

    Args:
        bundle: its golden samples tell the size of a mask.
        limit: bytes of dense outputs, of one request and of what is answered together.
    """

    def __init__(self, bundle: Bundle, limit: int) -> None:
        spec = bundle.spec
        heads = spec.heads.items()
        self.limit = limit
        self._tokens = {n: (spec.text_of(h), len(h.labels) * ITEM) for n, h in heads if isinstance(h, TokensHead)}
        masks = [name for name, head in heads if isinstance(head, SegmentationHead)]
        golden = bundle.golden().outputs if masks else {}
        self._pixels = {name: int(golden[name][0].size) * ITEM for name in masks}

    def require_room(self, query: Query) -> None:
        """Refuse a request whose dense outputs alone are beyond the limit.

        Raises:
            PayloadTooLarge: naming the size and the limit.
        """
        size = self._size([query])
        if size > self.limit:
            raise PayloadTooLarge(
                f"{query.rows} rows of heads with a value per token or pixel are {size} bytes, "
                f"allowed are {self.limit} a request: send fewer rows, or leave such heads out"
            )

    def groups(self, queries: Sequence[Query]) -> Iterator[Sequence[Query]]:
        """Queries to answer together: all of them, where their dense outputs are within the limit."""
        if not queries:
            return
        if not (self._tokens or self._pixels) or self._size(queries) <= self.limit:
            yield queries
            return
        group: list[Query] = []
        for query in queries:
            if group and self._size([*group, query]) > self.limit:
                yield group
                group = []
            group.append(query)
        yield group

    def _size(self, queries: Sequence[Query]) -> int:
        """Bytes of the dense outputs of these queries in one batch: every row is as long as the longest text."""
        rows = sum(query.rows for query in queries)
        wanted = {head for query in queries for head in query.heads}
        size = sum(rows * row for head, row in self._pixels.items() if head in wanted)
        for head in wanted & self._tokens.keys():
            source, token = self._tokens[head]
            longest = max(len(text.ids) for query in queries for text in query.inputs[source])  # type: ignore[union-attr]
            size += int(rows * longest * token)
        return size

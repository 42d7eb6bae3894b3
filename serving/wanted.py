"""Which rows of a batch want which heads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from polyhead.serving.golden import Array
from polyhead.serving.request import Query

__all__ = ["Wanted"]


class Wanted:
    """The heads that some queries want, and of heads apart the rows.

    Args:
        queries: of one batch; their rows are numbered one after the other.
        apart: heads that run on the rows that ask for them alone; the others run on all rows.

    Attributes:
        heads: that any query wants.
        total: rows of all queries.
        rows: of each head apart that not all rows want, those that do, `[rows]` `int64`, ascending.
    """

    def __init__(self, queries: Sequence[Query], apart: Collection[str] = ()) -> None:
        self.queries = queries
        sets = dict.fromkeys([query.heads for query in queries])  # most queries want the same
        self.heads = tuple(dict.fromkeys(head for heads in sets for head in heads))
        self.total = sum([query.rows for query in queries])
        self.rows: dict[str, Array] = {}
        if len(sets) > 1 and apart:
            for head in self.heads:
                if head in apart:
                    self._take(head)

    def _take(self, head: str) -> None:
        rows, start = [], 0
        for query in self.queries:
            if head in query.heads:
                rows.append(np.arange(start, start + query.rows))
            start += query.rows
        found = np.concatenate(rows)
        if len(found) < self.total:
            self.rows[head] = found

    def parts(self) -> Iterator[tuple[Query, slice, Mapping[str, slice]]]:
        """Each query with its rows among all rows, and with those of its heads whose rows are counted apart."""
        start, ends = 0, dict.fromkeys(self.rows, 0)
        none: dict[str, slice] = {}
        for query in self.queries:
            part = slice(start, start + query.rows)
            start += query.rows
            own = none
            if ends:
                own = {head: slice(ends[head], ends[head] + query.rows) for head in query.heads if head in ends}
                for head, place in own.items():
                    ends[head] = place.stop
            yield query, part, own

"""What one batch was and how long each of its stages took: what metrics are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from polyhead.serving.answers import HeadAnswers
from polyhead.serving.request import Query
from polyhead.serving.wanted import Wanted

__all__ = ["STAGES", "Record"]

STAGES = ("decode", "collate", "forward", "answer", "encode")


@dataclass(slots=True)
class Record:
    """One batch of requests, answered.

    Attributes:
        seconds: by stage, of the whole batch; stages that were not reached are 0.
        queries: that were decoded; a refused request has none.
        answered: one entry for all that was answered together: who wanted what, and by head the answers to every row
            that the head was run on.
        failures: by type of error, requests that were refused.
        requests: of the batch.
    """

    seconds: dict[str, float]
    queries: Sequence[Query]
    answered: list[tuple[Wanted, Mapping[str, HeadAnswers]]]
    failures: dict[str, int]
    requests: int

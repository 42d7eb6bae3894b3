"""One line of the log per request, for those who want it (`access_log`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from polyhead.serving.request import HttpRequest, HttpResponse, Query
from polyhead.serving.tracing import request_id

__all__ = ["AccessLog"]

logger = logging.getLogger("polyhead.access")


class AccessLog:
    """Writes what was asked and how it was answered, never what was sent."""

    def __init__(self) -> None:
        logger.setLevel(logging.INFO)  # a worker's other loggers are quieter

    def __call__(
        self,
        requests: Sequence[object],
        outcomes: Sequence[object],
        responses: Sequence[HttpResponse],
        seconds: float,
    ) -> None:
        """Write one batch.

        Args:
            requests: as they came; one that is no `HttpRequest` has no id.
            outcomes: of each, what it was decoded to; only of a `Query` rows and heads are known.
            responses: to each.
            seconds: that the batch took.
        """
        for request, outcome, response in zip(requests, outcomes, responses, strict=True):
            name = request_id(request.headers, "-") if isinstance(request, HttpRequest) else "-"
            rows, heads = (outcome.rows, outcome.heads) if isinstance(outcome, Query) else (0, ())
            about = {"request": name, "status": response.status, "rows": rows, "heads": list(heads)}
            logger.info(
                "request %s: %d, %d rows, heads %s, %.1f ms",
                *(name, response.status, rows, ",".join(heads) or "-", seconds * 1e3),
                extra={**about, "milliseconds": round(seconds * 1e3, 3)},
            )

"""One batch of requests to one batch of responses.

decode each request on its own -> collate the good rows -> one forward pass, one copy off the device -> answers over the
whole batch -> bytes. A request that fails, at any stage, fails alone.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from polyhead.models.spec import SegmentationHead, TokensHead
from polyhead.models.tokenizer import Encoding
from polyhead.serving.answers import HeadAnswers, Output
from polyhead.serving.collate import collate
from polyhead.serving.dense import DenseOutputs
from polyhead.serving.engine import Engine
from polyhead.serving.errors import AnswerNotFinite, InternalError, RequestError, UnsupportedMediaType
from polyhead.serving.golden import Array
from polyhead.serving.protocol import json, media
from polyhead.serving.request import HttpRequest, HttpResponse, Query
from polyhead.serving.settings import Settings
from polyhead.serving.texts import Texts

__all__ = ["Responder"]

logger = logging.getLogger(__name__)


class Responder:
    """Answers batches of requests with one engine.

    Attributes:
        batches: batches answered.
        requests: requests answered, the failed ones counted.
        failures: requests answered with an error.
    """

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.engine = engine
        self.texts = Texts.of(engine.bundle)
        self.dense = DenseOutputs(engine, settings.max_dense_bytes)
        self.prototypes = engine.bundle.prototypes()
        self.settings = settings
        self.spec = engine.bundle.spec
        self.batches = self.requests = self.failures = 0
        self._decoders = dict.fromkeys(json.MEDIA_TYPES, json.decode) | dict.fromkeys(media.MEDIA_TYPES, media.decode)

    def respond(self, requests: Sequence[HttpRequest | RequestError]) -> list[HttpResponse]:
        """One response per request, in their order. A request may already have failed before it came here."""
        outcomes = [self._decode(entry) if isinstance(entry, HttpRequest) else entry for entry in requests]
        queries = [outcome for outcome in outcomes if isinstance(outcome, Query)]
        answers = (answer for group in self.dense.groups(queries) for answer in self._answer(group))
        self.batches += 1
        self.requests += len(requests)
        return [next(answers) if isinstance(outcome, Query) else self._failure(outcome) for outcome in outcomes]

    def _decode(self, request: HttpRequest) -> Query | RequestError:
        try:
            decoder = self._decoders.get(request.content_type)
            if decoder is None:
                known = ", ".join((*json.MEDIA_TYPES, *media.media_types(self.spec)))
                raise UnsupportedMediaType(
                    f"media type {request.content_type or 'none'!r:.80} is not read here: "
                    f"set Content-Type to one of {known}"
                )
            query = self.texts.encode(decoder(request, self.spec, self.settings))
            self.dense.require_room(query)
            return query
        except RequestError as error:
            return error
        except Exception:  # a fault of ours must not reach the neighbours in this batch
            logger.exception("decoding a request failed")
            return InternalError("the request could not be read: a fault of the server, which has logged it")

    def _answer(self, queries: Sequence[Query]) -> list[HttpResponse]:
        try:
            return self._answer_together(queries)
        except Exception:  # the runtime raised: find out for whom
            logger.exception("a forward pass of %d requests failed", len(queries))
            if len(queries) == 1:
                return [self._failure(InternalError("the model failed on this request: the server has logged it"))]
            return [response for query in queries for response in self._answer([query])]

    def _answer_together(self, queries: Sequence[Query]) -> list[HttpResponse]:
        wanted = dict.fromkeys(head for query in queries for head in query.heads)
        outputs = self._forward(queries, wanted)
        finite = {head: _finite_rows(output) for head, output in outputs.items()}
        with np.errstate(all="ignore"):  # rows that are not finite are refused below; their neighbours are exact
            answers = {head: self._answers(head, outputs[head], queries) for head in wanted}
        ends = list(accumulate(query.rows for query in queries))
        return [
            self._response(query, slice(end - query.rows, end), answers, finite)
            for query, end in zip(queries, ends, strict=True)
        ]

    def _answers(self, name: str, output: Output, queries: Sequence[Query]) -> HeadAnswers:
        head = self.spec.heads[name]
        texts: list[Encoding] = []
        if isinstance(head, TokensHead):
            source = self.spec.text_of(head)
            texts = [encoding for query in queries for encoding in query.inputs[source]]  # type: ignore[misc]
        return HeadAnswers(head, output, texts, self.prototypes.get(name))

    def _forward(self, queries: Sequence[Query], heads: Collection[str]) -> Mapping[str, Output]:
        """Every wanted head's raw output for every row, in the order of the queries."""
        bounds = self.settings
        batches = collate(
            self.spec, queries, bounds.max_rows_per_forward, bounds.max_tokens_per_forward, bounds.max_input_bytes
        )
        if len(batches) == 1:  # positions are in order already
            return self.engine.run(batches[0].inputs, heads)
        parts = [self.engine.run(batch.inputs, heads) for batch in batches]
        places = [batch.positions for batch in batches]
        found: dict[str, Output] = {}
        for head in parts[0]:
            outputs = [part[head] for part in parts]
            masks = isinstance(self.spec.heads[head], SegmentationHead)
            sizes = {output.shape[1:] for output in outputs}
            found[head] = _in_order(outputs, places) if masks and len(sizes) > 1 else _restored(outputs, places)
        return found

    def _response(
        self,
        query: Query,
        part: slice,
        answers: Mapping[str, HeadAnswers],
        finite: Mapping[str, Array | None],
    ) -> HttpResponse:
        for head in query.heads:
            rows = finite[head]
            if rows is not None and not rows[part].all():
                row = int(np.argmin(rows[part]))
                return self._failure(
                    AnswerNotFinite(
                        f"head {head!r} answered NaN or infinity for this row: "
                        "its values are beyond what the model can take",
                        () if query.single else ("instances", row),
                    )
                )
        columns = [answers[head].rows(part, query.options) for head in query.heads]
        rows_by_head = [dict(zip(query.heads, row, strict=True)) for row in zip(*columns, strict=True)]
        return HttpResponse(200, "OK", json.encode(rows_by_head, query.single))

    def _failure(self, error: RequestError) -> HttpResponse:
        self.failures += 1
        return HttpResponse(error.status, error.phrase, json.encode_error(error))


def _restored(parts: Sequence[Array], positions: Sequence[Array]) -> Array:
    """The outputs of several batches in the order of the rows; those of shorter texts filled up with zeros."""
    shape = tuple(max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True))
    whole = np.zeros((sum(len(part) for part in parts), *shape), dtype=parts[0].dtype)
    for part, rows in zip(parts, positions, strict=True):
        place: tuple[Any, ...] = (rows, *(slice(0, n) for n in part.shape[1:]))
        whole[place] = part
    return whole


def _in_order(parts: Sequence[Array], positions: Sequence[Array]) -> list[Array]:
    """The outputs of several batches row by row in the order of the rows, each of the size it has."""
    rows = {
        int(place): row
        for part, places in zip(parts, positions, strict=True)
        for place, row in zip(places, part, strict=True)
    }
    return [rows[place] for place in range(len(rows))]


def _finite_rows(output: Output) -> Array | None:
    """Which rows are finite; None where all are, which one sum can tell."""
    if isinstance(output, list):
        return np.array([_finite_rows(row[None]) is None for row in output])
    with np.errstate(invalid="ignore"):  # infinities of both signs
        if np.isfinite(output.sum(dtype=np.float64)):
            return None
    return np.asarray(np.isfinite(output).reshape(len(output), -1).all(axis=1))

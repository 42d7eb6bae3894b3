"""One batch of requests to one batch of responses.

decode each request on its own -> collate the good rows -> one forward pass, one copy off the device -> answers over the
whole batch -> bytes. A request that fails, at any stage, fails alone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

import numpy as np

from polyhead.models.spec import ImageInput, TokensHead
from polyhead.models.tokenizer import Encoding
from polyhead.serving.access import AccessLog
from polyhead.serving.answers import HeadAnswers, Output
from polyhead.serving.collate import Collator, RowsNotFinite
from polyhead.serving.decoding import Decoding
from polyhead.serving.engine import Engine
from polyhead.serving.errors import AnswerNotFinite, InputNotFinite, InternalError, RequestError
from polyhead.serving.finite import all_finite, infinite, not_finite
from polyhead.serving.forward import Forward
from polyhead.serving.golden import Array
from polyhead.serving.protocol import json
from polyhead.serving.protocol.rowjson import PlainRows, RowWriter
from polyhead.serving.record import STAGES, Record
from polyhead.serving.request import PLAIN, HttpRequest, HttpResponse, Query
from polyhead.serving.settings import Settings
from polyhead.serving.wanted import Wanted

__all__ = ["Responder"]

logger = logging.getLogger(__name__)

# What a request was decoded to; the response itself where no forward pass is needed; or why it is refused.
Outcome = Query | HttpResponse | RequestError


class Responder:
    """Answers batches of requests with one engine.

    Args:
        engine: loaded.
        settings: the bounds of a request and of a forward pass.
        observe: told of every batch that was answered.
        pass_tokens: see `polyhead.serving.passes`.

    Attributes:
        batches: batches answered.
        requests: requests answered, the failed ones counted.
        failures: requests answered with an error.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        observe: Callable[[Record], None] | None = None,
        pass_tokens: float | None = None,
    ) -> None:
        self.engine = engine
        self.decoding = Decoding(engine, settings)
        self.prototypes = engine.bundle.prototypes()
        self.spec = engine.bundle.spec
        collator = Collator(
            self.spec,
            settings.max_rows_per_forward,
            settings.max_tokens_per_forward,
            settings.max_input_bytes,
            pass_tokens,
        )
        self.forward = Forward(engine, collator)
        # Pillow lets go of the interpreter while it decodes, and the runtime's threads have nothing to do until then.
        images = any(isinstance(value, ImageInput) for value in self.spec.inputs.values())
        threads = settings.decode_threads or settings.threads_per_worker()
        self._pool = ThreadPoolExecutor(threads, "decode") if images and threads > 1 else None
        self._writers = {name: RowWriter(name, head) for name, head in self.spec.heads.items()}
        self.batches = self.requests = self.failures = 0
        self.observe = observe
        self._access = AccessLog() if settings.access_log else None
        self._record = Record({}, (), [], {}, 0)

    def respond(self, requests: Sequence[HttpRequest | RequestError]) -> list[HttpResponse]:
        """One response per request, in their order. A request may already have failed before it came here."""
        start = perf_counter()
        outcomes = self._decoded(requests)
        queries = [outcome for outcome in outcomes if isinstance(outcome, Query)]
        seconds = dict.fromkeys(STAGES, 0.0) | {"decode": perf_counter() - start}
        self._record = Record(seconds, queries, [], {}, len(requests))
        self.batches += 1
        self.requests += len(requests)
        answers = [answer for group in self.decoding.dense.groups(queries) for answer in self._answer(group)]
        responses = answers if len(queries) == len(outcomes) else self._in_order(outcomes, answers)
        if self.observe is not None:
            self.observe(self._record)
        if self._access is not None:
            self._access(requests, outcomes, responses, perf_counter() - start)
        return responses

    def _decoded(self, requests: Sequence[HttpRequest | RequestError]) -> list[Outcome]:
        decode = self.decoding.decode
        if self._pool is None or len(requests) == 1:
            return [decode(entry) if isinstance(entry, HttpRequest) else entry for entry in requests]
        return list(self._pool.map(lambda entry: decode(entry) if isinstance(entry, HttpRequest) else entry, requests))

    def _in_order(self, outcomes: Sequence[Outcome], answers: Sequence[HttpResponse]) -> list[HttpResponse]:
        """The answers to queries, among them the failures of requests that are none."""
        answered = iter(answers)
        responses = []
        for outcome in outcomes:
            if isinstance(outcome, Query):
                responses.append(next(answered))
            else:
                responses.append(self._failure(outcome) if isinstance(outcome, RequestError) else outcome)
        return responses

    def _answer(self, queries: Sequence[Query]) -> list[HttpResponse]:
        try:
            return self._answer_together(queries)
        except RowsNotFinite as error:
            return self._answer_the_finite(queries, error)
        except Exception:  # the runtime raised: find out for whom
            logger.exception("a forward pass of %d requests failed", len(queries))
            if len(queries) == 1:
                return [self._failure(InternalError("the model failed on this request: the server has logged it"))]
            return [response for query in queries for response in self._answer([query])]

    def _answer_together(self, queries: Sequence[Query]) -> list[HttpResponse]:
        wanted = Wanted(queries, self.engine.apart)
        seconds = self._record.seconds
        outputs = self.forward.run(wanted, seconds)
        start = perf_counter()
        unsound = {} if all_finite(outputs) else infinite(outputs)
        with np.errstate(all="ignore"):  # rows that are not finite are refused below; their neighbours are exact
            answers = {head: self._answers(head, outputs[head], wanted) for head in wanted.heads}
        answered = perf_counter()
        plain = PlainRows(answers, self._writers, wanted.rows, wanted.total)
        responses = []
        for query, part, own in wanted.parts():
            if unsound and (refused := self._refused(query, part, own, unsound)) is not None:
                responses.append(refused)
            elif query.encode is None and query.options is PLAIN:
                responses.append(HttpResponse(200, "OK", plain.body(query.heads, part, query.single)))
            else:
                encode = query.encode or json.encode
                try:
                    response = encode(query, answers, {head: own.get(head, part) for head in query.heads})
                except RequestError as error:  # a format that cannot hold these answers
                    response = self._failure(error)
                responses.append(response)
        seconds["answer"] += answered - start
        seconds["encode"] += perf_counter() - answered
        self._record.answered.append((wanted, answers))
        return responses

    def _answers(self, name: str, output: Output, wanted: Wanted) -> HeadAnswers:
        head = self.spec.heads[name]
        texts: list[Encoding] = []
        if isinstance(head, TokensHead):
            source, apart = self.spec.text_of(head), name in wanted.rows
            queries = [query for query in wanted.queries if not apart or name in query.heads]
            texts = [encoding for query in queries for encoding in query.inputs[source]]  # type: ignore[misc]
        return HeadAnswers(head, output, texts, self.prototypes.get(name))

    def _answer_the_finite(self, queries: Sequence[Query], error: RowsNotFinite) -> list[HttpResponse]:
        """Refuse each request that has a row of NaN or infinity, and answer the others without them."""
        refused: dict[int, HttpResponse] = {}
        end = 0
        for index, query in enumerate(queries):
            start, end = end, end + query.rows
            row = next((row for row in error.rows if start <= row < end), None)
            if row is not None:
                loc = () if query.single else ("instances", row - start, error.name)
                refused[index] = self._failure(InputNotFinite(error.text(row), loc))
        left = [query for index, query in enumerate(queries) if index not in refused]
        answered = iter(self._answer(left) if left else ())
        return [refused[index] if index in refused else next(answered) for index in range(len(queries))]

    def _refused(
        self, query: Query, part: slice, own: Mapping[str, slice], unsound: Mapping[str, Array]
    ) -> HttpResponse | None:
        """The refusal of a query one of whose answers is not finite."""
        for head in query.heads:
            rows, place = unsound.get(head), own.get(head, part)
            if rows is not None and not rows[place].all():
                row = int(np.argmin(rows[place]))
                return self._failure(AnswerNotFinite(not_finite(head), () if query.single else ("instances", row)))
        return None

    def _failure(self, error: RequestError) -> HttpResponse:
        self.failures += 1
        self._record.failures[error.type] = self._record.failures.get(error.type, 0) + 1
        return HttpResponse(error.status, error.phrase, json.encode_error(error))

"""One request to one query: by its media type, texts to tokens, within bounds. A failure is the request's own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property

import orjson

from polyhead.models.spec import TensorInput
from polyhead.serving.dense import DenseOutputs
from polyhead.serving.engine import Engine
from polyhead.serving.errors import (
    InternalError,
    InvalidInstance,
    NotAcceptable,
    RequestError,
    UnknownOption,
    UnsupportedMediaType,
)
from polyhead.serving.protocol import accept, arrow, arrowanswers, coding, json, media, npy, oip, openapi
from polyhead.serving.protocol.numbers import FlatNumbers
from polyhead.serving.protocol.octets import Octets
from polyhead.serving.protocol.optionsheader import OPTIONS_HEADER, named_options
from polyhead.serving.request import Encode, HttpRequest, HttpResponse, Query
from polyhead.serving.settings import Settings
from polyhead.serving.texts import Texts

__all__ = ["Decoding"]

logger = logging.getLogger(__name__)

# Headers that change how a body is read, or its answer written; `Accept` does where it names another format.
PATH_HEADER = "url_path"  # TorchServe's, of what stands behind a model's version
SPECIAL = frozenset([PATH_HEADER, coding.HEADER, oip.LENGTH_HEADER, OPTIONS_HEADER])


class Decoding:
    """Reads the requests of one model.

    Args:
        engine: loaded.
        settings: the bounds of a request.
    """

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self.spec = engine.bundle.spec
        self.settings = settings
        self.texts = Texts.of(engine.bundle)
        self.dense = DenseOutputs(engine, settings.max_dense_bytes)
        self._seen: tuple[Mapping[str, str] | None, bool] = (None, False)
        self._decoders = dict.fromkeys(json.MEDIA_TYPES, json.decode) | dict.fromkeys(media.MEDIA_TYPES, media.decode)
        only = next(iter(self.spec.inputs.values()))
        if len(self.spec.inputs) == 1 and isinstance(only, TensorInput) and not only.free:
            self._decoders[media.TENSOR] = Octets(self.spec, settings).decode
        if FlatNumbers.fits(self.spec):
            self._decoders |= dict.fromkeys(json.MEDIA_TYPES, FlatNumbers(self.spec, settings).decode)
        if npy.fits(self.spec):
            self._decoders[accept.NPY] = npy.decode
        self._decoders[accept.ARROW] = arrow.decode
        self._known = (
            *json.MEDIA_TYPES,
            *media.media_types(self.spec),
            *((accept.NPY,) if npy.fits(self.spec) else ()),
            accept.ARROW,
        )

    def decode(self, request: HttpRequest) -> Query | HttpResponse | RequestError:
        """A query; the response itself where no forward pass is needed; or why it is refused."""
        try:
            if self._is_plain(request.headers):
                query = self._by_media_type(request)
            elif request.headers.get(PATH_HEADER) == openapi.PATH:
                return self._openapi
            else:
                query = self._decoded(request)
            if self.texts.tokenizers:
                query = self.texts.encode(query)
            if self.dense.any:
                self.dense.require_room(query)
            return query
        except RequestError as error:
            return error
        except Exception:  # a fault of ours must not reach the neighbours in this batch
            logger.exception("decoding a request failed")
            return InternalError("the request could not be read: a fault of the server, which has logged it")

    @cached_property
    def _openapi(self) -> HttpResponse:
        return HttpResponse(200, "OK", orjson.dumps(openapi.document(self.spec, self.settings)))

    def _is_plain(self, headers: Mapping[str, str]) -> bool:
        """Whether no header changes how the body is read or the answer written."""
        seen, plain = self._seen  # the fast path hands over one mapping for all requests with the same headers
        if headers is not seen:
            plain = SPECIAL.isdisjoint(headers) and headers.get(accept.HEADER) in accept.PLAIN
            self._seen = (headers, plain)
        return plain

    def _decoded(self, request: HttpRequest) -> Query:
        headers = request.headers
        if coding.HEADER in headers:
            request = coding.inflated(request, self.settings.max_body_bytes)
        if oip.LENGTH_HEADER in headers:
            query = oip.decode(request, self.spec, self.settings)
        else:
            query = self._by_media_type(request)
        if OPTIONS_HEADER in headers:
            if query.encode is not None or request.content_type in json.MEDIA_TYPES:
                raise InvalidInstance("X-Polyhead-Options stands beside bodies that are no JSON: drop it", ("options",))
            query.options = named_options(headers[OPTIONS_HEADER])
        wanted = headers.get(accept.HEADER)
        if wanted not in accept.PLAIN and query.encode is None:
            query.encode = _encode(wanted, query)
        return query

    def _by_media_type(self, request: HttpRequest) -> Query:
        decoder = self._decoders.get(request.content_type)
        if decoder is None:
            if request.content_type or bytes(request.body[:1]) != b"{":  # what Triton's clients send has no type
                raise UnsupportedMediaType(
                    f"media type {request.content_type or 'none'!r:.80} is not read here: "
                    f"set Content-Type to one of {', '.join(self._known)}"
                )
            decoder = json.decode
        try:
            return decoder(request, self.spec, self.settings)
        except UnknownOption as error:
            if request.content_type not in ("", *json.MEDIA_TYPES) or not oip.begins(error.loc[0]):
                raise
            return oip.decode(request, self.spec, self.settings, otherwise=error)


def _encode(wanted: str | None, query: Query) -> Encode | None:
    """What writes the answer in the format that the client takes; None is JSON."""
    offers = [accept.JSON, accept.ARROW, *([accept.NPY] if len(query.heads) == 1 else [])]
    try:
        chosen = accept.choose(wanted, offers)
    except NotAcceptable as error:
        if len(query.heads) > 1 and accept.NPY in str(wanted):
            raise NotAcceptable(
                f"{accept.NPY} holds the numbers of one head, and {len(query.heads)} are wanted: name one in "
                '"heads" or X-Polyhead-Heads'
            ) from None
        raise error
    return {accept.JSON: None, accept.NPY: npy.encode, accept.ARROW: arrowanswers.encode}[chosen]

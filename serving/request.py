"""One request and one answer, whatever carried them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from polyhead.models.spec import ModelSpec
from polyhead.models.tokenizer import Encoding
from polyhead.serving.errors import InvalidInstance, UnknownHead, UnknownOption
from polyhead.serving.golden import Array

if TYPE_CHECKING:
    from polyhead.serving.answers import HeadAnswers

__all__ = [
    "PLAIN",
    "Body",
    "Encode",
    "HttpRequest",
    "HttpResponse",
    "Options",
    "Query",
    "Values",
    "choose_heads",
    "parse_options",
]

Body = bytes | bytearray | memoryview
# One input's values of every row: an array `[rows, …]`, one array per row where shapes may differ, or texts, which are
# strings off the wire and encodings once `Texts` has seen them. Or the bytes of whole rows of a fixed shape, which are
# joined with those of other requests before anyone looks at them: are they finite?
Values = Array | Sequence[Array] | Sequence[str] | Sequence[Encoding] | Body


# By name: what a value must be.
OPTIONS = {
    "top_k": "a whole number of 1 or more",
    "scores": "true or false",
    "raw": "true or false",
    "mask": '"runs" or "png"',
}


@dataclass(slots=True)  # not frozen: that alone would cost a microsecond a request
class HttpRequest:
    """What came over the wire. Nobody changes it.

    Attributes:
        body: as it was sent.
        content_type: lower case, without parameters.
        headers: by name in lower case.
    """

    body: Body
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class HttpResponse:
    """What goes back over the wire.

    Attributes:
        headers: besides the content type; names and values in ASCII.
    """

    status: int
    phrase: str
    body: bytes
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Options:
    """What a request wants to see besides each head's plain answer."""

    top_k: int = 0  # this many labels of a classification, best first
    scores: bool = False  # every label's score
    raw: bool = False  # the graph's own numbers: logits, values, vectors
    mask: Literal["runs", "png"] = "runs"  # how a segmentation is written


PLAIN = Options()  # what a request without options wants: this very object


class Encode(Protocol):
    """Writes one query's answers in the format that it asked for."""

    def __call__(self, query: Query, answers: Mapping[str, HeadAnswers], parts: Mapping[str, slice]) -> HttpResponse:
        """One response.

        Args:
            query: what was asked.
            answers: by head, of the whole batch; at least the heads of the query.
            parts: by head of the query, its rows among the head's answers.

        Raises:
            RequestError: the format cannot hold these answers.
        """
        ...


@dataclass(slots=True)
class Query:
    """A decoded request. Nobody changes it.

    Attributes:
        rows: how many.
        inputs: every input by name.
        heads: the heads wanted, in the order wanted.
        single: the body was one row; its answer stands alone, outside of any list.
        encode: writes the answers; JSON where None.
    """

    rows: int
    inputs: Mapping[str, Values]
    heads: tuple[str, ...]
    options: Options = PLAIN
    single: bool = False
    encode: Encode | None = None


def choose_heads(spec: ModelSpec, wanted: object) -> tuple[str, ...]:
    """The heads a request names, or all of them.

    Raises:
        UnknownHead: one is not the model's; the message lists those that are.
        InvalidInstance: it is no list of names, or empty.
    """
    if wanted is None:
        return tuple(spec.heads)
    if not isinstance(wanted, list) or not wanted or not all(isinstance(name, str) for name in wanted):
        raise InvalidInstance(f'"heads" must be a list of head names (heads: {", ".join(spec.heads)})', ("heads",))
    for index, name in enumerate(wanted):
        if name not in spec.heads:
            raise UnknownHead(
                f"head {name!r:.80} is not in model {spec.name} {spec.version} "
                f'(heads: {", ".join(spec.heads)}): check "heads"',
                ("heads", index),
            )
    return tuple(dict.fromkeys(wanted))


def parse_options(values: object) -> Options:
    """The `options` of a request.

    Raises:
        UnknownOption: a key is not known.
        InvalidInstance: a value is of the wrong type.
    """
    if values is None:
        return PLAIN
    if not isinstance(values, dict):
        raise InvalidInstance(f'"options" must be an object with {", ".join(OPTIONS)}', ("options",))
    for key, value in values.items():
        if key not in OPTIONS:
            raise UnknownOption(f"option {key!r:.80} is not known (options: {', '.join(OPTIONS)})", ("options", key))
        wanted = OPTIONS[key]
        if not _is_option(key, value):
            raise InvalidInstance(f"{key} must be {wanted}, got {value!r:.40}", ("options", key))
    return Options(**values)


def _is_option(key: str, value: object) -> bool:
    if key == "top_k":
        return isinstance(value, int) and not isinstance(value, bool) and value >= 1
    return value in ("runs", "png") if key == "mask" else isinstance(value, bool)

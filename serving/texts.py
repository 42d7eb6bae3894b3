"""Texts of a query to tokens, by the bundle's own tokenizers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from polyhead.models.spec import ModelSpec, SpecError, TextInput, TokensHead
from polyhead.models.tokenizer import Encoding, TextRefused, Tokenizer
from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import BundleError, InvalidInstance, Place, RuntimeUnavailable
from polyhead.serving.request import Query, Values

__all__ = ["Texts"]

# Characters that are looked at, at least and per token that the model takes: no real text has more. A megabyte would
# keep the other requests of its batch waiting for a second, only to be found too long.
MIN_CHARACTERS = 10_000
CHARACTERS_PER_TOKEN = 100


class Texts:
    """The text inputs of one model.

    Args:
        spec: the model's.
        tokenizers: by text input.
    """

    def __init__(self, spec: ModelSpec, tokenizers: Mapping[str, Tokenizer]) -> None:
        self.spec = spec
        self.tokenizers = dict(tokenizers)

    @classmethod
    def of(cls, bundle: Bundle) -> Texts:
        """The tokenizers of a bundle.

        Raises:
            BundleError: a file is no tokenizer.
            RuntimeUnavailable: the tokenizers library is not installed.
        """
        tokenizers = {}
        for name, value in bundle.spec.inputs.items():
            if isinstance(value, TextInput):
                try:
                    tokenizers[name] = Tokenizer(bundle.read(value.tokenizer), value)
                except SpecError as error:
                    raise BundleError(f"bundle {bundle.title}: input {name!r}: {error}") from None
                except ModuleNotFoundError as error:
                    raise RuntimeUnavailable(
                        f"input {name!r} is text, and {error.name} is not installed: pip install 'polyhead[text]'"
                    ) from None
        return cls(bundle.spec, tokenizers)

    def encode(self, query: Query) -> Query:
        """A query whose texts are encoded; words are found where a wanted head labels them.

        Raises:
            InvalidInstance: a text is too long, with its place.
        """
        if not self.tokenizers:
            return query
        heads = [self.spec.heads[name] for name in query.heads]
        labelled = {self.spec.text_of(head) for head in heads if isinstance(head, TokensHead)}
        inputs: dict[str, Values] = dict(query.inputs)
        for name in self.tokenizers:
            inputs[name] = self._encoded(name, query, name in labelled)
        return replace(query, inputs=inputs)

    def _encoded(self, name: str, query: Query, words: bool) -> Sequence[Encoding]:
        try:
            return self.tokenizers[name].encode(self._bounded(name, query), words)
        except TextRefused as error:
            raise InvalidInstance(f"input {name!r}: {error}", _place(name, query, error.row)) from None

    def _bounded(self, name: str, query: Query) -> Sequence[str]:
        """The texts, none longer than is looked at: cut where the spec says so, else refused."""
        texts: Sequence[str] = query.inputs[name]  # type: ignore[assignment]
        spec = self.tokenizers[name].spec
        limit = max(MIN_CHARACTERS, CHARACTERS_PER_TOKEN * spec.max_length)
        if spec.truncate:
            return [text[:limit] for text in texts]
        for index, text in enumerate(texts):
            if len(text) > limit:
                raise InvalidInstance(
                    f"input {name!r}: the text has {len(text)} characters, the model takes {spec.max_length} tokens: "
                    "shorten it, or set truncate: true in the spec",
                    _place(name, query, index),
                )
        return texts


def _place(name: str, query: Query, index: int) -> Place:
    return () if query.single else ("instances", index, name)

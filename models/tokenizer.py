"""Texts to token ids, by a `tokenizer.json` of the tokenizers library. No torch: training and serving share it.

Truncation and padding that the file itself asks for are switched off: the spec says how long a text may be, and padding
is numpy's.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from polyhead.models.spec import SpecError, TextInput

__all__ = ["MISSING_TOKEN", "Encoding", "TextRefused", "TextTooLong", "Tokenizer", "pad"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]

# What is no failure of a text. A panic of the library is a BaseException too, and must end one request, not a worker.
STOPS = (KeyboardInterrupt, SystemExit, GeneratorExit)
JOINERS = ("\u200d", "\ufe0e", "\ufe0f")  # zero-width joiner, text and emoji presentation

MISSING_TOKEN = -1  # the target of a token that no loss counts: special, padding, not a word's first


class TextRefused(ValueError):
    """A text that cannot be tokenised. The message says what, got, and fix.

    Attributes:
        row: its place among the texts given.
    """

    def __init__(self, message: str, row: int) -> None:
        super().__init__(message)
        self.row = row


class TextTooLong(TextRefused):
    """A text of more tokens than the spec allows."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """One text's tokens.

    Attributes:
        text: as it was given.
        ids: `int64 [tokens]`, the special ones included.
        words: `int64 [words]`: the position of each word's first token. Empty where words were not asked for.
        spans: `int64 [words, 2]`: where each word starts and ends in the text, in Unicode code points.
    """

    text: str
    ids: Array
    words: Array
    spans: Array


class Tokenizer:
    """A tokenizer of one text input.

    Args:
        data: the content of `tokenizer.json`.
        spec: how long a text may be.

    Raises:
        SpecError: the content is no tokenizer.
        ModuleNotFoundError: the tokenizers library is not installed.
    """

    def __init__(self, data: bytes, spec: TextInput) -> None:
        import tokenizers  # here, so that a model without texts is served without it

        self.data = data
        self.spec = spec
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(data.decode())
        except Exception as error:  # noqa: BLE001 - the library raises bare Exceptions
            raise SpecError(f"tokenizer {spec.tokenizer}: cannot be read ({error}): give a tokenizer.json") from None
        self._plain: list[str] = []
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        # A user who writes "[SEP]" means these five characters.
        self._tokenizer.encode_special_tokens = True
        special = self._tokenizer.num_special_tokens_to_add(False)
        if spec.max_length <= special:
            raise SpecError(f"max_length {spec.max_length} leaves no room beside {special} special tokens: raise it")
        if spec.truncate:
            self._tokenizer.enable_truncation(spec.max_length)

    @classmethod
    def load(cls, path: Path, spec: TextInput) -> Self:
        """Read a tokenizer file.

        Raises:
            SpecError: it cannot be read.
        """
        try:
            return cls(path.read_bytes(), spec)
        except OSError as error:
            raise SpecError(f"tokenizer {path} cannot be read ({error.strerror}): give a tokenizer.json") from None

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return int(self._tokenizer.get_vocab_size())

    def token_id(self, token: str) -> int | None:
        """The id of a token, None where it has none."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def random_text(self, generator: np.random.Generator, words: int) -> str:
        """Words of the vocabulary drawn at random, to try a network on."""
        if not self._plain:
            vocabulary = self._tokenizer.get_vocab()
            self._plain = sorted(token for token in vocabulary if token.isalnum() and token.isascii())
        if not self._plain:
            raise SpecError(f"tokenizer {self.spec.tokenizer}: has no plain word to make random texts of: give samples")
        return " ".join(self._plain[i] for i in generator.integers(0, len(self._plain), words))

    def encode(self, texts: Sequence[str], words: bool = False) -> list[Encoding]:
        """Encode texts, each on its own.

        Args:
            texts: any Unicode text, also empty.
            words: also find words and their spans, which takes about as long again.

        Raises:
            TextTooLong: a text has more tokens than the spec allows, and is not to be cut.
            TextRefused: the tokenizer knows no token for a part of a text, or it holds half a character.
        """
        run = self._tokenizer.encode_batch if words else self._tokenizer.encode_batch_fast
        try:
            found_all = run(list(texts))
        except BaseException as error:
            if isinstance(error, STOPS):
                raise
            found_all = [self._encoded_alone(row, text) for row, text in enumerate(texts)]
        encodings = []
        for row, (text, found) in enumerate(zip(texts, found_all, strict=True)):
            if len(found.ids) > self.spec.max_length:
                raise TextTooLong(
                    f"the text has {len(found.ids)} tokens, the model takes {self.spec.max_length}: "
                    "shorten it, or set truncate: true in the spec",
                    row,
                )
            first, spans = _words(text, found) if words else ([], [])
            encodings.append(
                Encoding(
                    text,
                    np.array(found.ids, dtype=np.int64),
                    np.array(first, dtype=np.int64),
                    np.array(spans, dtype=np.int64).reshape(-1, 2),
                )
            )
        return encodings

    def _encoded_alone(self, row: int, text: str) -> Any:
        try:
            return self._tokenizer.encode(text)
        except BaseException as error:
            if isinstance(error, STOPS):
                raise
            raise TextRefused(f"the text cannot be tokenised ({error})", row) from None

    @staticmethod
    def align(encoding: Encoding, spans: Iterable[tuple[int, int, str]], labels: Sequence[str]) -> Array:
        """The targets of a text's tokens.

        Args:
            encoding: of the text, with its words.
            spans: (start, end, type) in code points of the text; end is exclusive.
            labels: of the head: `O`, `B-<type>`, `I-<type>`, or plain types where words are labelled one by one.

        Returns:
            `int64 [tokens]`: the label of each word at its first token, `MISSING_TOKEN` elsewhere. A word belongs to a
            span where they overlap.

        Raises:
            SpecError: a span lies outside of the text, shares a word with another, or its type is not among the labels.
        """
        index = {label: i for i, label in enumerate(labels)}
        target = np.full(len(encoding.ids), MISSING_TOKEN, dtype=np.int64)
        taken = np.zeros(len(encoding.ids), dtype=bool)
        if "O" in index:
            target[encoding.words] = index["O"]
        for start, end, kind in spans:
            if not 0 <= start < end <= len(encoding.text):
                raise SpecError(f"span ({start}, {end}, {kind!r}) lies outside of the text {encoding.text!r:.60}")
            inside = (encoding.spans[:, 0] < end) & (encoding.spans[:, 1] > start)
            for place, word in enumerate(encoding.words[inside]):
                if taken[word]:
                    raise SpecError(f"two spans share a word of {encoding.text!r:.60}: labels cannot say both")
                taken[word] = True
                target[word] = _label_index(index, kind, place)
        return target


def _label_index(index: Mapping[str, int], kind: str, place: int) -> int:
    """The label of a span's word: `B-` for the first and `I-` for the others, or the type itself."""
    marked = f"B-{kind}" in index
    label = kind if not marked else f"{'I' if place else 'B'}-{kind}"
    if label not in index or (not marked and (kind == "O" or kind[:2] in ("B-", "I-"))):
        raise SpecError(f"span type {kind!r} has no label {label!r} of its own (labels: {', '.join(index)})")
    return index[label]


def _words(text: str, found: Any) -> tuple[list[int], list[tuple[int, int]]]:
    """Runs of tokens with one word id (special tokens have none): the first token's position, and the span."""
    runs: list[tuple[int, int, int]] = []  # position of the first token, start, end
    last = None
    for position, (word, (start, end)) in enumerate(zip(found.word_ids, found.offsets, strict=True)):
        if word is None:
            continue
        if word == last:
            runs[-1] = (runs[-1][0], runs[-1][1], max(end, runs[-1][2]))
        else:
            runs.append((position, start, end))
        last = word
    if runs and found.overflowing:  # what was cut off may begin within the last word
        rest = found.overflowing[0]
        ends = [end for word, (_, end) in zip(rest.word_ids, rest.offsets, strict=True) if word == last]
        runs[-1] = (*runs[-1][:2], max([runs[-1][2], *ends]))
    first: list[int] = []
    spans: list[tuple[int, int]] = []
    for position, start, end in runs:
        start, end = _whole(text, start, end)
        start = max(start, spans[-1][1]) if spans else start
        if start < end:  # some tokenizers count blanks as words
            first.append(position)
            spans.append((start, end))
    return first, spans


def _whole(text: str, start: int, end: int) -> tuple[int, int]:
    """A span without blanks around it that cuts no character in two: marks and joiners belong to the letter before."""
    piece = text[start:end]
    start, end = start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
    while not text.isascii() and start < end < len(text) and (_continues(text[end]) or text[end - 1] == JOINERS[0]):
        end += 1
    return start, end


def _continues(character: str) -> bool:
    return unicodedata.category(character) in ("Mn", "Me", "Mc") or character in JOINERS


def pad(rows: Sequence[Array], length: int, value: int) -> Array:
    """Rows of different lengths to one array `int64 [rows, length]`."""
    padded = np.full((len(rows), length), value, dtype=np.int64)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded

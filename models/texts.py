"""Texts and their labelled spans to the arrays that a network takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polyhead.models.arrays import array_specs, text_arrays
from polyhead.models.data import Rows
from polyhead.models.spec import ModelSpec, SpecError, TextInput, TokensHead
from polyhead.models.tokenizer import MISSING_TOKEN, Encoding, TextRefused, Tokenizer, pad

__all__ = ["encode", "open_tokenizers"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]


def open_tokenizers(spec: ModelSpec, files: Mapping[str, Path]) -> dict[str, Tokenizer]:
    """The tokenizer of each text input.

    Args:
        spec: says how long a text may be, and under which name a run keeps the file.
        files: a `tokenizer.json` by input name.

    Raises:
        SpecError: a text input has no file, a file is of no text input, or cannot be read, or two inputs name one file
            in the spec and are given different ones.
    """
    texts = {name: value for name, value in spec.inputs.items() if isinstance(value, TextInput)}
    if set(texts) != set(files):
        raise SpecError(
            f"tokenizers are given for {sorted(files) or 'no input'}, the text inputs are {sorted(texts) or 'none'}: "
            "give one tokenizer.json for each"
        )
    opened = {name: Tokenizer.load(files[name], value) for name, value in texts.items()}
    kept: dict[str, bytes] = {}
    for name, value in texts.items():
        if Path(value.tokenizer).is_absolute() or ".." in Path(value.tokenizer).parts:
            raise SpecError(f"input {name!r}: tokenizer {value.tokenizer!r} leads out of the run: give a relative path")
        if kept.setdefault(value.tokenizer, opened[name].data) != opened[name].data:
            raise SpecError(
                f"input {name!r}: {value.tokenizer!r} is another input's tokenizer too: give it its own name"
            )
    return opened


def encode(rows: Rows, spec: ModelSpec, tokenizers: Mapping[str, Tokenizer]) -> Rows:
    """Rows with token ids and masks in place of texts, and a label per token in place of spans.

    Args:
        rows: raw, inputs by input name.
        spec: of the model.
        tokenizers: by text input.

    Returns:
        Inputs by array name (see `polyhead.models.arrays`), in the order in which the network takes them; ids and masks
        `int64 [rows, longest]`. Targets of tokens heads `int64 [rows, longest]`, -1 where no label is. `lengths` holds
        each row's number of tokens.

    Raises:
        SpecError: an input is missing, a text is too long, or a span lies outside of its text or is of an unknown type.
    """
    absent = [name for name in spec.inputs if name not in rows.inputs]
    if absent:
        raise SpecError(f"the data has no input {absent[0]!r} (it has {', '.join(rows.inputs)})")
    labelled = {
        name: spec.text_of(head)
        for name, head in spec.heads.items()
        if isinstance(head, TokensHead) and name in rows.targets
    }
    encodings = {
        name: _encodings(name, tokenizer, rows.inputs[name], name in labelled.values())
        for name, tokenizer in tokenizers.items()
    }
    columns, lengths = _columns(spec, rows, encodings)
    targets = dict(rows.targets)
    for name, text in labelled.items():
        head = spec.heads[name]
        assert isinstance(head, TokensHead)
        aligned = [
            np.full(len(encoding.ids), MISSING_TOKEN, dtype=np.int64)
            if spans is None
            else Tokenizer.align(encoding, spans, head.labels)
            for encoding, spans in zip(encodings[text], rows.targets[name], strict=True)
        ]
        targets[name] = pad(aligned, _longest(encodings[text]), MISSING_TOKEN)
        lengths[name] = _lengths(encodings[text])
    return Rows({name: columns[name] for name in array_specs(spec)}, targets, lengths)


def _columns(
    spec: ModelSpec, rows: Rows, encodings: Mapping[str, Sequence[Encoding]]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Every array by name, and the lengths of those that are padded."""
    columns = {name: rows.inputs[name] for name in spec.inputs if name not in encodings}
    lengths: dict[str, Array] = {}
    for name, found in encodings.items():
        ids, mask = text_arrays(spec, name)
        longest = _longest(found)
        columns[ids] = pad([encoding.ids for encoding in found], longest, int(array_specs(spec)[ids].pad or 0))
        columns[mask] = pad([np.ones_like(encoding.ids) for encoding in found], longest, 0)
        lengths[ids] = lengths[mask] = _lengths(found)
    return columns, lengths


def _encodings(name: str, tokenizer: Tokenizer, texts: Array, words: bool) -> list[Encoding]:
    try:
        return tokenizer.encode(list(texts), words)
    except TextRefused as error:
        raise SpecError(f"input {name!r}, row {error.row}: {error}") from None


def _lengths(encodings: Sequence[Encoding]) -> Array:
    return np.array([len(encoding.ids) for encoding in encodings], dtype=np.int64)


def _longest(encodings: Sequence[Encoding]) -> int:
    return max((len(encoding.ids) for encoding in encodings), default=0)

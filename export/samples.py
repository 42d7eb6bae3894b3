"""Rows to try a network on: read from a file, or random where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from polyhead.export.errors import ExportError
from polyhead.models.inputs import dimensions
from polyhead.models.spec import ImageInput, ModelSpec, TensorInput, TextInput
from polyhead.models.textarray import array_to_texts
from polyhead.models.tokenizer import Tokenizer
from polyhead.serving.errors import InvalidInstance
from polyhead.serving.golden import Array
from polyhead.serving.protocol.files import FileRefused, decode_file
from polyhead.serving.protocol.lengths import require_lengths
from polyhead.serving.request import Values
from polyhead.serving.settings import Settings

__all__ = ["load_samples", "random_samples"]

RANDOM_SAMPLES = 64
SPREAD = 16  # random lengths are the least one and up to this many more: long rows cost time and prove nothing else
SHAPES = 4  # of random rows that run in groups of equal shape


def load_samples(path: Path, spec: ModelSpec) -> dict[str, Values]:
    """Raw inputs by name: safetensors (a text input as `texts_to_array` writes it), or a `.json` list of instances.

    An array holds rows of one shape; rows of differing lengths are written as JSON.

    Raises:
        ExportError: they are not the spec's inputs.
    """
    if path.suffix == ".json":
        return _json_samples(path, spec)
    try:
        arrays = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ExportError(f"samples {path} cannot be read ({error}): write safetensors, one array per input") from None
    if set(arrays) != set(spec.inputs):
        raise ExportError(f"samples {path} hold {sorted(arrays)}, the spec's inputs are {sorted(spec.inputs)}")
    samples: dict[str, Values] = {
        name: _texts(path, name, arrays[name])
        if isinstance(value, TextInput)
        else _rows(path, name, value, arrays[name])
        for name, value in spec.inputs.items()
    }
    rows = {name: len(values) for name, values in samples.items()}
    if len(set(rows.values())) > 1:
        raise ExportError(f"samples {path}: one number of rows for every input is wanted, got {rows}")
    try:
        require_lengths(spec, samples)
    except InvalidInstance as error:
        raise ExportError(f"samples {path}: row {error.loc[1]}: {error}") from None
    return samples


def _rows(path: Path, name: str, spec: ImageInput | TensorInput, array: Array) -> Values:
    """An array as it is; a list of its rows where their shape is free."""
    same = array.ndim == 1 + len(spec.shape) and all(
        isinstance(w, str) or w == g for w, g in zip(spec.shape, array.shape[1:], strict=True)
    )
    if not same or array.dtype != spec.dtype or len(array) < 2:
        raise ExportError(
            f"samples {path}: input {name!r} is {array.dtype}{list(array.shape)}, "
            f"wanted {spec.dtype}[rows, {', '.join(map(str, spec.shape))}] with two rows or more"
        )
    return list(array) if isinstance(spec, TensorInput) and spec.free else array


def _texts(path: Path, name: str, array: Array) -> list[str]:
    try:
        texts = array_to_texts(array)
    except (ValueError, RecursionError) as error:
        raise ExportError(f"samples {path}: input {name!r}: {error}") from None
    if len(texts) < 2:
        raise ExportError(f"samples {path}: input {name!r} has {len(texts)} texts, wanted two or more")
    return texts


def _json_samples(path: Path, spec: ModelSpec) -> dict[str, Values]:
    """Instances as a client would send them."""
    try:
        query = decode_file(path, spec, Settings())
    except (FileRefused, OSError) as error:
        raise ExportError(f"samples {error}") from None
    if query.rows < 2:
        raise ExportError(f"samples {path}: one row, wanted two or more")
    return dict(query.inputs)


def random_samples(
    spec: ModelSpec, rows: int = RANDOM_SAMPLES, seed: int = 0, tokenizers: Mapping[str, Tokenizer] | None = None
) -> dict[str, Values]:
    """Rows of random numbers: floats normal, integers small, pixels any, texts of random words, all seeded.

    Free dimensions are short. Those that are filled up differ from row to row; of the others there are a few shapes,
    and half of the rows are of one. In the largest group no two dimensions have one length, where bounds allow it.
    """
    generator = np.random.default_rng(seed)
    lengths = _random_lengths(spec, rows, generator)
    samples: dict[str, Values] = {}
    for name, value in spec.inputs.items():
        match value:
            case TextInput():
                tokenizer = (tokenizers or {})[name]
                samples[name] = [
                    tokenizer.random_text(generator, int(generator.integers(1, max(2, value.max_length // 4))))
                    for _ in range(rows)
                ]
            case TensorInput() if value.free:
                shapes = [
                    tuple(lengths[row][d] if isinstance(d, str) else d for d in value.shape) for row in range(rows)
                ]
                samples[name] = [_random(value, shape, generator) for shape in shapes]
            case _:
                samples[name] = _random(value, (rows, *(int(d) for d in value.shape)), generator)
    return samples


def _random(spec: ImageInput | TensorInput, shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    dtype: np.dtype[Any] = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return np.asarray(generator.standard_normal(shape)).astype(dtype)
    limit = 2 if dtype.kind == "b" or not isinstance(spec, ImageInput) else 256
    array = np.asarray(generator.integers(0, limit, shape)).astype(dtype)
    if dtype.kind == "b" and isinstance(spec, TensorInput) and spec.free:
        array[(0,) * array.ndim] = True  # a mask of none is no row that a network is ever given
    return array


def _random_lengths(spec: ModelSpec, rows: int, generator: np.random.Generator) -> list[dict[str, int]]:
    """Of each row, the length of every free dimension."""
    bounds = dimensions(spec.inputs)
    if not bounds:
        return []
    ranges = {name: range(low, min(high, low + SPREAD) + 1) for name, (low, high) in bounds.items()}
    tensors = [value for value in spec.inputs.values() if isinstance(value, TensorInput)]
    padded = {name for value in tensors if value.pad is not None for name in value.free}
    shapes = _random_shapes(ranges, generator)
    lengths = []
    for row in range(rows):
        # The first half is of the first shape: a group that is large enough to be cut into batches of every size.
        shape = shapes[0 if row < rows // 2 else row % len(shapes)]
        # The first row is the longest: what the others are filled up to.
        filled = {n: int(generator.integers(ranges[n].start, shapes[0][n] + 1)) for n in sorted(padded)} if row else {}
        lengths.append(shape | filled)
    return lengths


def _random_shapes(ranges: Mapping[str, range], generator: np.random.Generator) -> list[dict[str, int]]:
    """A few different shapes; in the first, lengths are large, and differ where they can."""
    first: dict[str, int] = {}
    for name, found in ranges.items():
        large = [*found][len(found) // 2 :]
        first[name] = int(generator.choice([n for n in large if n not in first.values()] or large))
    shapes = [first]
    for _ in range(8 * SHAPES):
        shape = {name: int(generator.choice(found)) for name, found in ranges.items()}
        if shape not in shapes and len(shapes) < SHAPES:
            shapes.append(shape)
    return shapes

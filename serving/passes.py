"""What a forward pass of texts costs by itself, beside its tokens: how much padding is worth another pass."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from time import perf_counter

import numpy as np

from polyhead.models.arrays import ArraySpec, array_specs
from polyhead.serving.engine import Engine
from polyhead.serving.golden import Array, Golden

__all__ = ["pass_tokens"]

SMALL, LARGE = (1, 8), (16, 32)  # rows and tokens of a row
ROUNDS = 5


def pass_tokens(engine: Engine) -> float | None:
    """Tokens whose computation takes as long as starting a pass does, on this device; None for models without texts.

    The time of a pass is taken as a line over its tokens, through two passes of different size.
    """
    arrays = array_specs(engine.bundle.spec)
    longest = [array.longest for array in arrays.values() if array.longest is not None]
    if not longest:
        return None
    sizes = [(rows, min(tokens, *longest)) for rows, tokens in (SMALL, LARGE)]
    golden = engine.bundle.golden()
    passes = [_inputs(golden, arrays, rows, tokens) for rows, tokens in sizes]
    times: list[list[float]] = [[], []]
    for number in range(ROUNDS + 1):
        for inputs, seconds in zip(passes, times, strict=True):
            start = perf_counter()
            engine.run(inputs)
            if number:  # the first pays for what is done once
                seconds.append(perf_counter() - start)
    small, large = map(median, times)
    (rows, tokens), (more_rows, more_tokens) = sizes
    few, many = rows * tokens, more_rows * more_tokens
    token = (large - small) / (many - few)
    return max(0.0, small / token - few) if token > 0 else None  # None: tokens are free here, so padding is too


def _inputs(golden: Golden, arrays: Mapping[str, ArraySpec], rows: int, tokens: int) -> dict[str, Array]:
    """Golden rows, each text of so many tokens."""
    found = {}
    for name, array in arrays.items():
        given = golden.inputs[name]
        if array.role == "value":
            found[name] = np.ascontiguousarray(given[np.arange(rows) % len(given)])
        elif array.role == "ids":
            found[name] = np.resize(given[0], (rows, tokens))
        else:
            found[name] = np.ones((rows, tokens), given.dtype)
    return found

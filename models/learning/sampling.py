"""In which order rows come, and how often: tasks of unequal size share an epoch. Numpy only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from polyhead.models.learning.seeds import epoch_seed
from polyhead.models.spec import SpecError

__all__ = ["Order", "grouped", "order", "shares"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]
Order = Callable[[int], Array]  # an epoch's positions, `int64 [rows]`; epochs count from 0

Sampling = Literal["shuffle", "proportional", "balanced"]

WINDOW = 16  # batches among which rows are sorted by length: little padding, and yet other batches each epoch


def order(sampling: Sampling, rows: int, labelled: Mapping[str, Array], seed: int, temperature: float = 1.0) -> Order:
    """The order of the rows, epoch by epoch; the same for the same seed and epoch, whatever came before.

    Args:
        sampling: `shuffle`: every row once. Otherwise an epoch draws as many rows as there are, each for one task and
            among the rows with labels for it, none of them again before all have come: `balanced` draws for all tasks
            equally often, `proportional` in proportion to their rows with labels, see `shares`.
        rows: how many there are.
        labelled: by task, which rows have labels for it, `bool [rows]`.
        seed: of the run.
        temperature: of proportional sampling.

    Raises:
        SpecError: sampling by task, and a task has no row with labels.
    """
    if sampling == "shuffle":
        return lambda epoch: _generator(seed, epoch).permutation(rows)
    pools = {task: np.flatnonzero(known) for task, known in labelled.items()}
    empty = [task for task, pool in pools.items() if not len(pool)]
    if empty:
        raise SpecError(f"sampling: {sampling}, but no training row has labels for {empty[0]!r}: leave that head out")
    counts = _apportioned(shares(sampling, {task: len(pool) for task, pool in pools.items()}, temperature), rows)

    def drawn(epoch: int) -> Array:
        generator = _generator(seed, epoch)
        picked = [_cycled(pools[task], count, generator) for task, count in counts.items()]
        return generator.permutation(np.concatenate(picked))

    return drawn


def shares(sampling: Sampling, sizes: Mapping[str, int], temperature: float = 1.0) -> dict[str, float]:
    """How much of an epoch is drawn for each task; the shares sum to 1.

    `balanced`: the same for all. `proportional`: in proportion to size ** (1 / temperature); a temperature above 1
    lifts small tasks (Arivazhagan et al. 2019, "Massively multilingual neural machine translation in the wild").
    """
    power = 0.0 if sampling == "balanced" else 1.0 / temperature
    raised = {task: float(size) ** power for task, size in sizes.items()}
    total = sum(raised.values())
    return {task: value / total for task, value in raised.items()}


def grouped(order: Order, lengths: Array, batch_size: int, seed: int) -> Order:
    """An order in which the rows of a batch are about as long, so that little of it is padding.

    Every `WINDOW` batches of the given order are sorted by length, and the batches shuffled. On the utterances of the
    model `smarthome` it takes away two fifths of the tokens.

    Args:
        order: of which rows are drawn.
        lengths: of each row, `int64 [rows]`.
        batch_size: rows a batch.
        seed: of the run.
    """

    def drawn(epoch: int) -> Array:
        rows = order(epoch)
        generator = np.random.default_rng(epoch_seed(seed, epoch, "group"))
        size = WINDOW * batch_size
        windows = [rows[start : start + size] for start in range(0, len(rows), size)]
        ordered = np.concatenate([window[np.argsort(lengths[window], kind="stable")] for window in windows])
        whole = len(ordered) // batch_size * batch_size
        batches = generator.permutation(ordered[:whole].reshape(-1, batch_size))
        return np.concatenate([batches.reshape(-1), ordered[whole:]])

    return drawn


def _apportioned(wanted: Mapping[str, float], total: int) -> dict[str, int]:
    """Whole numbers that sum to the total; the largest remainders are rounded up."""
    exact = {task: share * total for task, share in wanted.items()}
    counts = {task: int(value) for task, value in exact.items()}
    by_remainder = sorted(exact, key=lambda task: counts[task] - exact[task])
    for task in by_remainder[: total - sum(counts.values())]:
        counts[task] += 1
    return counts


def _cycled(pool: Array, count: int, generator: np.random.Generator) -> Array:
    """So many of a pool, reshuffled each time that it is used up."""
    rounds = [generator.permutation(pool) for _ in range(-(-count // len(pool)))]
    return np.concatenate(rounds)[:count] if rounds else pool[:0]


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng(epoch_seed(seed, epoch, "order"))

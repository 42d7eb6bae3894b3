"""When open-loop requests are due: a Poisson process, fixed before the first is sent."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["due_times"]


def due_times(rate: float, seconds: float, seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Times of arrivals within `seconds`, ascending, `rate` of them a second on average.

    Raises:
        ValueError: there would be none.
    """
    if rate <= 0 or seconds <= 0:
        raise ValueError(f"{rate} requests a second for {seconds} s: both must be above 0")
    generator = np.random.default_rng(seed)
    count = generator.poisson(rate * seconds)
    # Given their number, the arrivals of a Poisson process are uniform over the time.
    return np.sort(generator.uniform(0.0, seconds, max(1, count)))

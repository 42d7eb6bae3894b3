"""Seeds of an epoch: all that is random in training follows from the recipe's seed and the epoch."""

from __future__ import annotations

from typing import Literal

import numpy as np

__all__ = ["epoch_seed"]

# What the random numbers are for; each purpose draws its own, so that one more draw here changes nothing there.
PURPOSES = ("order", "augment", "steps", "group")


def epoch_seed(seed: int, epoch: int, purpose: Literal["order", "augment", "steps", "group"]) -> int:
    """The seed of one purpose in one epoch, 0 to 2**32 - 1; epochs count from 0."""
    return int(np.random.SeedSequence([seed, epoch, PURPOSES.index(purpose)]).generate_state(1)[0])

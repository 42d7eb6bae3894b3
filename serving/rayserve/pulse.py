"""Whether the cluster, and our part in it, still lives: asked without ever waiting for it."""

from __future__ import annotations

import time
from typing import Any

from polyhead.serving.raystart import last_line

__all__ = ["Pulse"]

SILENCE = 30.0  # seconds without an answer, after which it counts as gone


class Pulse:
    """Asks an actor whether it lives, one question at a time.

    Args:
        ray: the module.
        actor: whose method `alive` is asked.
        silence: seconds that it may leave a question without an answer.
    """

    def __init__(self, ray: Any, actor: Any, silence: float = SILENCE) -> None:
        self._ray, self._actor, self._silence = ray, actor, silence
        self._question: Any = None
        self._since = 0.0

    def fault(self) -> str | None:
        """What is wrong, in words; None where nothing is known to be. It returns at once, even where all hangs."""
        try:
            if self._question is None:
                self._question, self._since = self._actor.alive.remote(), time.monotonic()
            answered, _ = self._ray.wait([self._question], timeout=0)
            if answered:
                self._ray.get(self._question)
                self._question = None
        except self._ray.exceptions.RayError as error:
            return f"the Ray cluster, or our part in it, has gone: {last_line(error)}"
        if not answered and time.monotonic() - self._since > self._silence:
            return f"the Ray cluster has given no answer for {self._silence:g} s: is it there? ray status tells"
        return None

"""One thing that was looked at: how it is, why that matters, and the command that mends it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from polyhead.serving.errors import PolyheadError

__all__ = ["Finding", "Level", "good", "looked", "problem", "warning"]

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """What was found in one place.

    Attributes:
        topic: the place, as `java` or `ports`.
        level: `ok`; `warning`: it serves, but not as well as it could; `problem`: it does not serve.
        what: what is there.
        why: what follows from it; empty where it is as it should be.
        mend: a command, or a line of config.properties, that changes it; empty where nothing has to, or where `what` is
            an error that says it itself.
    """

    topic: str
    level: Level
    what: str
    why: str = ""
    mend: str = ""

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def good(topic: str, what: str) -> Finding:
    """As it should be."""
    return Finding(topic, "ok", what)


def warning(topic: str, what: str, why: str, mend: str) -> Finding:
    """It serves, but not as well or as safely as it could."""
    return Finding(topic, "warning", what, why, mend)


def problem(topic: str, what: str, why: str, mend: str) -> Finding:
    """It does not serve."""
    return Finding(topic, "problem", what, why, mend)


def looked(topic: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """What a look finds. A look that fails is a problem of its own, so that the others are still taken."""
    try:
        yield from look()
    except PolyheadError as error:  # it says what, got and fix by itself
        yield problem(topic, str(error).splitlines()[0], "the server would end with this error", "")
    except (OSError, ImportError, ValueError) as error:
        said = " ".join(str(error).split())[:200]
        yield problem(topic, f"could not be looked at ({type(error).__name__}: {said})", "what is there is unknown", "")

"""What a worker did with a unit: the only word of it that a driver believes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

__all__ = ["Receipt", "Written"]


@dataclass(frozen=True, slots=True)
class Written:
    """A file that a worker wrote.

    Attributes:
        path: under the destination, with `/`.
        rows: in it.
        size: in bytes.
        sha256: of its content.
    """

    path: str
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """One unit, scored.

    Attributes:
        ordinal: of the unit.
        read: rows that the unit has.
        scored: rows in the output.
        quarantined: rows in the quarantine.
        filtered: rows that the filter left out.
        output: the attempt's file; there is one also where no row was scored.
        quarantine: the attempt's file of quarantined rows; None where there is none.
        faults: quarantined rows by `stage/type`.
        seconds: by stage.
        generation: 0; one more for each time that quarantined rows were tried again.
    """

    ordinal: int
    read: int
    scored: int
    quarantined: int
    filtered: int
    output: Written
    quarantine: Written | None
    faults: Mapping[str, int] = field(default_factory=Counter)
    seconds: Mapping[str, float] = field(default_factory=dict)
    generation: int = 0

    @property
    def adds_up(self) -> bool:
        """Whether every row went exactly one way."""
        kept = 0 if self.quarantine is None else self.quarantine.rows
        parts = (self.scored, self.quarantined, self.filtered)
        return (
            min(parts) >= 0
            and self.read == sum(parts)
            and self.output.rows == self.scored
            and kept == self.quarantined == sum(self.faults.values())
        )

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        # `asdict` rebuilds a mapping of any kind from pairs: a `Counter` would count them.
        return {**asdict(replace(self, faults={})), "faults": dict(self.faults)}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """Back from JSON."""
        quarantine = plain["quarantine"]
        files = {
            "output": Written(**plain["output"]),
            "quarantine": None if quarantine is None else Written(**quarantine),
        }
        return cls(**{**plain, **files})

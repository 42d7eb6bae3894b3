"""The fastest graph per kind of device, as `polyhead bench --write` measured it and `--runtime auto` follows it."""

from __future__ import annotations

from typing import Self

import orjson
from pydantic import Field, StrictInt, StrictStr, ValidationError

from polyhead.models.faults import first_fault
from polyhead.models.spec import Strict
from polyhead.serving.manifest import Device

__all__ = ["TUNING", "Choice", "Tuning"]

TUNING = "tuning.json"


class Choice(Strict):
    """What was fastest on a device.

    Attributes:
        graph: its id.
        runtime: that ran it.
        threads: of one forward pass.
        batch: rows of a forward pass that the choice was made at.
        rows_per_second: there.
        machine: where that was: processor or GPU, cores, versions.
    """

    graph: StrictStr
    runtime: StrictStr
    threads: StrictInt
    batch: StrictInt
    rows_per_second: float = Field(gt=0)
    machine: StrictStr


class Tuning(Strict):
    """The content of `tuning.json`."""

    devices: dict[Device, Choice]

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Read the file. Raises ValueError, in one line, where it is something else."""
        content = orjson.loads(data)
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise ValueError(first_fault(error, content)) from None

    def dump(self) -> bytes:
        """Write the file."""
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_INDENT_2) + b"\n"

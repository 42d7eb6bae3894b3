"""The pydantic base of everything strict, and the types of the values that stand in a spec."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictStr

__all__ = ["Name", "Number", "Size", "Strict"]

Name = Annotated[StrictStr, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
Size = Annotated[int, Field(strict=True, ge=1, le=65536)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


class Strict(BaseModel):
    """Refuses unknown keys; cannot be changed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

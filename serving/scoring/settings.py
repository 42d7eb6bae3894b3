"""How a table is scored: one frozen, typed object. What decides the output is part of the job's identity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from polyhead.models.spec import Strict
from polyhead.serving.settings import Count, Device, PrecisionChoice, RuntimeChoice

__all__ = ["FREE", "ScoreSettings"]

# May differ when a job is resumed: they change how fast it is done, not what comes out.
FREE = frozenset(["workers", "decode_threads", "hang_seconds", "max_bad_rows", "max_bad_ratio"])


class ScoreSettings(Strict):
    """Settings of one scoring job.

    Attributes:
        heads: wanted, in this order; all where None.
        columns: of the input, that go to the output as they are; all but the model's inputs where None.
        mapping: by input of the model, the column that holds it (`body`), or columns that make one row of numbers
            (`age,income` or `f*`); inputs not named are the columns of their name.
        filter: rows that are scored; see `polyhead.serving.scoring.filtering`.
        format: of the input; by the files' names where None.
        top_k, scores, raw, mask: as in a request's options.
        sort: texts of like length are run together.
        unit_rows: of one work unit, about; 0: see `polyhead.serving.scoring.planning`.
        batch_rows: of one forward pass at most.
        batch_tokens: of one forward pass at most, padding counted; 0: what suits the device.
        max_image_pixels: of one image, before resizing.
        max_row_bytes: of one row as the model takes it.
        runtime, precision, device: as when serving.
        threads: of one forward pass.
        workers: processes; 0: one for each `threads` cores, or for each GPU.
        decode_threads: of one worker, that read and decode beside the forward pass; 0: as many as `threads`.
        hang_seconds: without a sign of life, after which a worker counts as hung.
        max_bad_rows, max_bad_ratio: of all rows, that may be quarantined; any number where None.
    """

    heads: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    mapping: Mapping[str, str] = Field(default_factory=dict)
    filter: str | None = None
    format: Literal["parquet", "csv", "jsonl", "arrow", "images"] | None = None
    top_k: Annotated[int, Field(ge=0)] = 0
    scores: bool = False
    raw: bool = False
    mask: Literal["runs", "png"] = "runs"
    sort: bool = True
    unit_rows: Annotated[int, Field(ge=0)] = 0
    batch_rows: Count = 1024
    batch_tokens: Annotated[int, Field(ge=0)] = 0
    max_image_pixels: Count = 50_000_000
    max_row_bytes: Count = 64 * 1024 * 1024
    runtime: RuntimeChoice = "auto"
    precision: PrecisionChoice = "auto"
    device: Device = "auto"
    threads: Count = 1
    workers: Annotated[int, Field(ge=0)] = 0
    decode_threads: Annotated[int, Field(ge=0)] = 0
    hang_seconds: Annotated[float, Field(gt=0)] = 300.0
    max_bad_rows: Annotated[int, Field(ge=0)] | None = None
    max_bad_ratio: Annotated[float, Field(ge=0, le=1)] | None = None

    def deciding(self) -> dict[str, Any]:
        """What decides the output, as JSON holds it."""
        return self.model_dump(mode="json", exclude=set(FREE))

"""Score a table: what `polyhead score` and a notebook call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import ValidationError

from polyhead.models.spec import first_fault
from polyhead.serving.bundle import Bundle
from polyhead.serving.scoring.driver import Driver, News
from polyhead.serving.scoring.engines.base import ScoringEngine
from polyhead.serving.scoring.errors import JobRefused
from polyhead.serving.scoring.progress import Progress
from polyhead.serving.scoring.report import Report
from polyhead.serving.scoring.settings import ScoreSettings
from polyhead.serving.scoring.tally import Tally

__all__ = ["EngineName", "engine_of", "score", "settings_of"]

EngineName: TypeAlias = Literal["local", "ray"]


def score(
    bundle: str | Path,
    source: str | Path | Sequence[str | Path],
    destination: str | Path,
    *,
    engine: EngineName = "local",
    ray_address: str | None = None,
    resume: bool = False,
    watch: News | None = None,
    settings: ScoreSettings | Mapping[str, Any] | None = None,
    **changes: Any,
) -> Report:
    """Score every row of a table with every head, exactly once.

    Example: `score("bundles/digits", "in.parquet", "out/", heads=["digit"], columns=["id"], mapping={"image": "png"})`

    Args:
        bundle: its directory.
        source: a file, a folder, a glob, or several of them; local, or any address that pyarrow or fsspec opens.
        destination: a directory that is not there yet, is empty, or holds this very job (with `resume`).
        engine: `local`: processes of this machine; `ray`: the same processes, placed by Ray.
        ray_address: of a running Ray cluster; one on this machine is started where None.
        resume: go on with the job that the destination holds; begin it where it holds none.
        watch: told what each worker is at (`Progress`) and how far the job is (`Tally`), in the thread that called.
        settings: see `ScoreSettings`.
        **changes: any field of `ScoreSettings`, over `settings`.

    Returns:
        What was done, also by earlier runs of the same job.

    Raises:
        JobRefused: the request is wrong, or the destination holds another job; JobLocked where somebody works on it.
        ScoringError: the job cannot go on. What was committed is kept.
        BundleError, RuntimeUnavailable, DeviceUnavailable: the bundle cannot be run here.
    """
    chosen = settings_of(settings, changes)
    room = engine_of(engine, chosen, ray_address)
    driver = Driver.of(Bundle.open(Path(bundle)), source, destination, chosen, resume=resume)
    return driver.run(room, watch or _unwatched)


def settings_of(settings: ScoreSettings | Mapping[str, Any] | None, changes: Mapping[str, Any]) -> ScoreSettings:
    """Settings, with some of them changed.

    Raises:
        JobRefused: naming the setting that is not known or impossible.
    """
    given = settings.model_dump(exclude_unset=True) if isinstance(settings, ScoreSettings) else dict(settings or {})
    values = {**given, **changes}
    try:
        return ScoreSettings.model_validate(values)
    except ValidationError as error:
        raise JobRefused(f"settings: {first_fault(error, values)}") from None


def engine_of(name: str, settings: ScoreSettings, ray_address: str | None = None) -> ScoringEngine:
    """The engine of this name.

    Raises:
        JobRefused: there is none, or it does not go together with the address.
        RuntimeUnavailable: it is not installed.
    """
    if name == "local":
        if ray_address is not None:
            raise JobRefused(f"the local engine knows no Ray address, got {ray_address!r}: ask for the engine 'ray'")
        from polyhead.serving.scoring.engines.local import LocalEngine

        return LocalEngine(settings)
    if name == "ray":
        from polyhead.serving.scoring.engines.ray import RayEngine

        return RayEngine(settings, ray_address)
    raise JobRefused(f"engine {name!r} is none of local, ray")


def _unwatched(_news: Progress | Tally) -> None:
    pass

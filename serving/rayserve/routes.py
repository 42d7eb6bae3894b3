"""A path to the model that it wants a prediction of: TorchServe's routes, and the protocol's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

__all__ = ["Wanted", "wanted"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a path names.

    Attributes:
        version: empty where it names none.
        extra: what stands behind a model's version, which the decoder knows as `url_path`.
    """

    model: str
    version: str = ""
    extra: str = ""


def wanted(path: str) -> Wanted | None:
    """The model that a path wants a prediction of; None where it wants none.

    Args:
        path: without the query, percent-encoded or not.
    """
    parts = [unquote(part) for part in path.split("/")[1:]]
    reader = READERS.get(tuple(parts[:2])) or READERS.get(tuple(parts[:1]))
    return None if reader is None else reader(parts)


def _predictions(parts: Sequence[str]) -> Wanted | None:
    """/predictions/{model}[/{version}[/{extra}]]."""
    model, version, *extra = [*parts[1:], "", ""]
    return Wanted(model, version, "/".join(extra).rstrip("/")) if model else None


def _v1(parts: Sequence[str]) -> Wanted | None:
    """/v1/models/{model}:predict."""
    model, separator, verb = "/".join(parts[2:]).rpartition(":")
    return Wanted(model) if separator and verb == "predict" and model and "/" not in model else None


def _v2(parts: Sequence[str]) -> Wanted | None:
    """/v2/models/{model}[/versions/{version}]/infer."""
    match parts[2:]:
        case [model, "infer"] if model:
            return Wanted(model)
        case [model, "versions", version, "infer"] if model:
            return Wanted(model, version)
    return None


READERS: Mapping[tuple[str, ...], Callable[[Sequence[str]], Wanted | None]] = {
    ("predictions",): _predictions,
    ("v1", "models"): _v1,
    ("v2", "models"): _v2,
}

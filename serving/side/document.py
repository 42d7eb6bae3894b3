"""One OpenAPI 3.1 document of everything that a server answers: each model's own, put together, and our routes."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Any

from polyhead.serving.protocol import openapi
from polyhead.serving.settings import Settings
from polyhead.serving.side.roster import Entry

__all__ = ["document"]

REFERENCE = "#/components/"
# What the side server answers, by path: what it tells, and what else than 200 may come.
OURS = {
    "/v2": ("Name, version and extensions of the server", ()),
    "/v2/health/live": ("Whether the server runs", (503,)),
    "/v2/health/ready": ("Whether every model has answered its golden samples lately", (503,)),
    "/v2/models": ("The models, their versions, which are the defaults", ()),
    "/v2/models/{model}": ("Inputs and outputs of a model's default version", (404,)),
    "/v2/models/{model}/versions/{version}": ("Inputs and outputs of a version", (404,)),
    "/v2/models/{model}/ready": ("Whether a model's default version answers", (404, 503)),
    "/v2/models/{model}/versions/{version}/ready": ("Whether a version answers", (404, 503)),
    "/openapi.json": ("This document", ()),
}
STATUS = {200: "OK", 404: "Not Found", 503: "Service Unavailable"}
NAMES = ("model", "version")


def document(entries: Sequence[Entry], settings: Settings) -> dict[str, Any]:
    """The document of some versions.

    Args:
        entries: the versions; requests without a version are their model's default's.
        settings: the bounds of a request.
    """
    paths: dict[str, Any] = {path: {"get": _own(path, *about)} for path, about in OURS.items()}
    components: dict[str, dict[str, Any]] = {}
    for entry in entries:
        found = openapi.document(entry.bundle.spec, settings)
        prefix = f"{entry.name}-{entry.version}-"
        own = f"/predictions/{entry.bundle.title}"
        for kind, parts in found["components"].items():
            components.setdefault(kind, {}).update(
                {prefix + name: _prefixed(part, prefix) for name, part in parts.items()}
            )
        for path, operations in found["paths"].items():
            if entry.default or path.startswith(own):
                paths[path] = {method: _operation(what, prefix, entry) for method, what in operations.items()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Polyhead", "version": importlib.metadata.version("polyhead")},
        "paths": paths,
        "components": components,
    }


def _operation(operation: Any, prefix: str, entry: Entry) -> Any:
    found = _prefixed(operation, prefix)
    return {**found, "operationId": prefix + found["operationId"], "tags": [entry.bundle.title]}


def _prefixed(part: Any, prefix: str) -> Any:
    """A part of a model's document, its references pointing to that model's own components."""
    if isinstance(part, dict):
        return {
            key: _moved(value, prefix) if key == "$ref" and isinstance(value, str) else _prefixed(value, prefix)
            for key, value in part.items()
        }
    return [_prefixed(item, prefix) for item in part] if isinstance(part, list) else part


def _moved(reference: str, prefix: str) -> str:
    """`#/components/<kind>/<name>` with the model's prefix before the name."""
    kind, _, name = reference.removeprefix(REFERENCE).partition("/")
    return f"{REFERENCE}{kind}/{prefix}{name}"


def _own(path: str, summary: str, others: tuple[int, ...]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    names = [name for name in NAMES if f"{{{name}}}" in path]
    return {
        "operationId": "get" + "".join(part.strip("{}").title() for part in path.removesuffix(".json").split("/")),
        "summary": summary,
        "tags": ["server"],
        "parameters": [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names],
        "responses": {str(status): {"description": STATUS[status], "content": content} for status in (200, *others)},
    }

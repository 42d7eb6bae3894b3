"""Whether a resource is as its schema says, unknown fields refused: Kubernetes' own, and those that others add."""

from __future__ import annotations

import functools
import json
from typing import Any

import kubernetes_validate
from jsonschema import Draft7Validator, Draft202012Validator

from tests.command import ROOT

FOLDER = ROOT / "tests" / "assets" / "schemas"
OWN = ("PrometheusRule", "ServiceMonitor", "ScaledObject", "ServingRuntime", "InferenceService")
RELEASES = ("1.31", "1.37")  # of Kubernetes: the oldest that the manifests are for, and the newest that we have


def faults(resource: dict[str, Any]) -> list[str]:
    """What is wrong with it; nothing where nothing is."""
    kind = resource["kind"]
    if kind in OWN:
        validator = Draft202012Validator(_strict(kind))
        return [f"{error.json_path}: {error.message:.200}" for error in validator.iter_errors(resource)]
    found = []
    for release in RELEASES:
        try:
            kubernetes_validate.validate(resource, release, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(f"{release}: {'.'.join(map(str, error.path))}: {error.message:.200}")
    return found


def compose_faults(document: dict[str, Any]) -> list[str]:
    """What is wrong with a compose file."""
    schema = json.loads((FOLDER / "compose.json").read_text())
    return [f"{error.json_path}: {error.message:.200}" for error in Draft7Validator(schema).iter_errors(document)]


@functools.cache
def _strict(kind: str) -> dict[str, Any]:
    """A schema that refuses what it does not know: Kubernetes itself would drop it in silence."""
    schema = _closed(json.loads((FOLDER / f"{kind.lower()}.json").read_text()))
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    known = isinstance(schema.get("properties"), dict) and "$ref" not in schema
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if known and schema.get("type") == "object" and not open_ended:
        closed["additionalProperties"] = False
    return closed

"""Whether a served model is ready: its workers run, and it has answered its own golden samples over HTTP.

TorchServe's /ping says 200 before any model is loaded and after one failed to load, so it is not asked.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson

from polyhead.models.arrays import text_arrays
from polyhead.models.spec import ImageInput, InputSpec, TextInput, TokensHead
from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import GoldenMismatch, LaunchError
from polyhead.serving.golden import Array, Golden, fault
from polyhead.serving.manifest import Graph
from polyhead.serving.protocol.images import encode_png
from polyhead.serving.torchserve.configuration import Addresses

__all__ = ["example", "load_reports", "replay_golden", "workers_ready"]


def load_reports(folder: Path) -> list[dict[str, Any]]:
    """What the workers that have finished loading reported.

    Raises:
        LaunchError: one could not load; its own words.
    """
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    for report in reports:
        if not report["ok"]:
            raise LaunchError(report["error"])
    return reports


def workers_ready(client: httpx.Client, addresses: Addresses, bundle: Bundle, wanted: int) -> bool:
    """Whether the management API shows this many workers of the model as ready."""
    try:
        response = client.get(f"{addresses.management_url}/models/{bundle.spec.name}/{bundle.spec.version}")
        models = response.json() if response.status_code == httpx.codes.OK else []
    except (httpx.TransportError, ValueError):  # not up yet
        return False
    workers = models[0].get("workers", []) if isinstance(models, list) and models else []
    return bool(sum(worker.get("status") == "READY" for worker in workers) >= wanted)


def replay_golden(
    client: httpx.Client, addresses: Addresses, bundle: Bundle, golden: Golden, graph: Graph, device: str, row: int
) -> None:
    """Send one golden sample as a client would, and hold each head's raw answer against eager's.

    Of a graph that may differ in a share of its decisions, one row's decisions prove nothing: its values alone count.

    Raises:
        GoldenMismatch: naming the head.
        LaunchError: the server answers with an error, or not at all.
    """
    spec = bundle.spec
    try:
        response = client.post(
            f"{addresses.url}/predictions/{spec.name}/{spec.version}",
            content=example(bundle, golden, row, options={"raw": True}),
            headers={"Content-Type": "application/json"},
        )
    except httpx.TransportError as error:
        raise LaunchError(f"model {bundle.title} gives no answer to its golden sample {row}: {error}") from None
    if response.status_code != httpx.codes.OK:
        raise LaunchError(
            f"model {bundle.title} answers its golden sample {row} with {response.status_code}: {response.text:.200}"
        )
    answers = response.json()["predictions"][0]
    agreement = 1.0 if graph.agreement == 1.0 else 0.0
    for head, declared in spec.heads.items():
        raw = np.asarray([answers[head]["raw"]], dtype=np.float32)
        expected = golden.outputs[head][row : row + 1]
        if isinstance(declared, TokensHead):  # what lies beyond the text's own tokens is padding
            _, mask = text_arrays(spec, spec.text_of(declared))
            expected = expected[:, : int(golden.inputs[mask][row].sum())]
            raw = raw.reshape(expected.shape) if raw.size == expected.size == 0 else raw
        wrong = fault(declared, raw, expected, graph.tolerance.on(device), agreement)
        if wrong is not None:
            raise GoldenMismatch(
                f"model {bundle.title}: head {head!r} does not reproduce golden sample {row} over HTTP: {wrong}"
            )


def example(bundle: Bundle, golden: Golden, row: int, **rest: Any) -> bytes:
    """A JSON request with one golden sample; `rest` is put beside `instances`."""
    instance = {
        name: golden.texts[name][row] if isinstance(spec, TextInput) else _value(spec, golden.inputs[name][row])
        for name, spec in bundle.spec.inputs.items()
    }
    return orjson.dumps({"instances": [instance], **rest}, option=orjson.OPT_SERIALIZE_NUMPY)


def _value(spec: InputSpec, value: Array) -> Any:
    if isinstance(spec, ImageInput):
        return {"b64": base64.b64encode(encode_png(value, spec)).decode()}
    return np.ascontiguousarray(value)

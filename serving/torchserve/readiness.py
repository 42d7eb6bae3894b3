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

from polyhead.models.spec import ImageInput, InputSpec
from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import GoldenMismatch, LaunchError
from polyhead.serving.golden import Array, Golden, fault
from polyhead.serving.protocol.images import encode_png

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


def workers_ready(client: httpx.Client, management_url: str, bundle: Bundle, wanted: int) -> bool:
    """Whether the management API shows this many workers of the model as ready."""
    try:
        response = client.get(f"{management_url}/models/{bundle.spec.name}/{bundle.spec.version}")
        models = response.json() if response.status_code == httpx.codes.OK else []
    except (httpx.TransportError, ValueError):  # not up yet
        return False
    workers = models[0].get("workers", []) if isinstance(models, list) and models else []
    return bool(sum(worker.get("status") == "READY" for worker in workers) >= wanted)


def replay_golden(client: httpx.Client, url: str, bundle: Bundle, device: str) -> None:
    """Send every golden sample as a client would, and hold each head's raw answer against eager's.

    Raises:
        GoldenMismatch: naming the head.
        LaunchError: the server answers with an error.
    """
    golden = bundle.golden()
    spec = bundle.spec
    received: dict[str, list[Any]] = {head: [] for head in spec.heads}
    for row in range(golden.rows):
        body = example(bundle, golden, row, options={"raw": True})
        response = client.post(
            f"{url}/predictions/{spec.name}/{spec.version}", content=body, headers={"Content-Type": "application/json"}
        )
        if response.status_code != httpx.codes.OK:
            raise LaunchError(
                f"model {bundle.title} answers its golden sample {row} with "
                f"{response.status_code}: {response.text:.200}"
            )
        for head, answer in response.json()["predictions"][0].items():
            received[head].append(answer["raw"])
    tolerance = bundle.manifest.tolerance.on(device)
    for head, rows in received.items():
        wrong = fault(spec.heads[head], np.asarray(rows, dtype=np.float32), golden.outputs[head], tolerance)
        if wrong is not None:
            raise GoldenMismatch(
                f"model {bundle.title}: head {head!r} does not reproduce its golden samples over HTTP: {wrong}"
            )


def example(bundle: Bundle, golden: Golden, row: int, **rest: Any) -> bytes:
    """A JSON request with one golden sample; `rest` is put beside `instances`."""
    instance = {name: _value(bundle.spec.inputs[name], array[row]) for name, array in golden.inputs.items()}
    return orjson.dumps({"instances": [instance], **rest}, option=orjson.OPT_SERIALIZE_NUMPY)


def _value(spec: InputSpec, value: Array) -> Any:
    if isinstance(spec, ImageInput):
        return {"b64": base64.b64encode(encode_png(value, spec)).decode()}
    return np.ascontiguousarray(value)

"""Whether a served model is ready: its workers run, and it has answered its own golden samples over HTTP.

TorchServe's /ping says 200 before any model is loaded and after one failed to load, so it is not asked.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson

from polyhead.models.arrays import text_arrays
from polyhead.models.spec import ImageInput, InputSpec, TextInput, TokensHead
from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import GoldenMismatch, LaunchError, NoAnswer, Overloaded
from polyhead.serving.golden import Array, Golden, fault
from polyhead.serving.protocol.images import encode_png

__all__ = ["GoldenSamples", "example", "load_reports"]


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


class GoldenSamples:
    """One version's golden samples, to be sent as a client would.

    Args:
        bundle: that must answer.
        graph: its id, as the workers reported it.
        device: that it runs on: a GPU may be further off.

    Raises:
        BundleError: the bundle is no longer whole.
    """

    def __init__(self, bundle: Bundle, graph: str, device: str) -> None:
        self.bundle = bundle
        self.golden, self._graph, self._device = bundle.golden(), bundle.manifest.graph(graph), device

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.golden.rows

    def replay(self, client: httpx.Client, url: str, row: int, versioned: bool = True) -> None:
        """Send one, and hold each head's raw answer against eager's.

        Args:
            client: that asks.
            url: of the server, or of what stands before it.
            row: of the samples.
            versioned: ask for this version; else for the model alone, whose default this version must be.

        Raises:
            GoldenMismatch: another bundle answers, or a head answers wrong.
            Overloaded: the server refuses the sample for now: its queue is full, or it has no worker.
            NoAnswer: no answer came in the client's time.
            LaunchError: the server answers with an error, or cannot be reached.
        """
        bundle = self.bundle
        try:
            response = client.post(
                f"{url}/predictions/{bundle.title if versioned else bundle.spec.name}",
                content=example(bundle, self.golden, row, options={"raw": True}),
                headers={"Content-Type": "application/json"},
            )
        except httpx.TransportError as error:
            kind = NoAnswer if isinstance(error, httpx.TimeoutException) else LaunchError
            raise kind(
                f"model {bundle.title} gives no answer to its golden sample {row}: {error or type(error).__name__}"
            ) from None
        if response.status_code != httpx.codes.OK:
            kind = Overloaded if response.status_code == httpx.codes.SERVICE_UNAVAILABLE else LaunchError
            raise kind(
                f"model {bundle.title} answers its golden sample {row} with {response.status_code}: "
                f"{response.text:.200}"
            )
        answered = response.headers.get("X-Polyhead-Bundle")
        if answered != bundle.digest[:12]:
            raise GoldenMismatch(f"model {bundle.title}: bundle {answered} answers, wanted {bundle.digest[:12]}")
        self._compare(response.json()["predictions"][0], row)

    def _compare(self, answers: Mapping[str, Any], row: int) -> None:
        """Hold one row's answers against eager's.

        Of a graph that may differ in a share of its decisions, one row's decisions prove nothing: its values alone
        count.
        """
        spec, golden, graph = self.bundle.spec, self.golden, self._graph
        agreement = 1.0 if graph.agreement == 1.0 else 0.0
        for head, declared in spec.heads.items():
            raw = np.asarray([answers[head]["raw"]], dtype=np.float32)
            expected = golden.outputs[head][row : row + 1]
            if isinstance(declared, TokensHead):  # what lies beyond the text's own tokens is padding
                _, mask = text_arrays(spec, spec.text_of(declared))
                expected = expected[:, : int(golden.inputs[mask][row].sum())]
                raw = raw.reshape(expected.shape) if raw.size == expected.size == 0 else raw
            wrong = fault(declared, raw, expected, graph.tolerance.on(self._device), agreement)
            if wrong is not None:
                raise GoldenMismatch(
                    f"model {self.bundle.title}: head {head!r} does not reproduce golden sample {row} over HTTP: "
                    f"{wrong}"
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
    return np.asarray(value, order="C")  # not ascontiguousarray, which makes a list of a single number

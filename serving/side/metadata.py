"""What the Open Inference Protocol tells of a server and its models, and what the console needs besides."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from polyhead.models.spec import InputSpec, ModelSpec, SegmentationHead, TensorInput, TextInput, TokensHead
from polyhead.serving.bundle import Bundle
from polyhead.serving.golden import Golden
from polyhead.serving.protocol.oiptensors import DATATYPES
from polyhead.serving.served import Served
from polyhead.serving.torchserve.readiness import example

__all__ = ["Description", "describe", "server_metadata"]

NAME = "polyhead"
# The extensions of the protocol that requests may use; see serving/protocol/oip.py.
EXTENSIONS = ("binary_tensor_data", "classification")
# Triton's names of what runs a model, by our runtime.
PLATFORMS = {"onnxruntime": "onnxruntime_onnx", "torchscript": "pytorch_libtorch"}
LONGEST_EXAMPLE = 262_144  # bytes of a request that is still told as an example
MOST_EXAMPLES = 8
FREE = -1  # a length that each request chooses


@dataclass(frozen=True)
class Description:
    """One version of a model, as the protocol and the console want it.

    Attributes:
        platform: what runs it.
        inputs, outputs: name, datatype and shape of each tensor, the rows first.
        about: what is Polyhead's own to tell.
    """

    platform: str
    inputs: Sequence[Mapping[str, Any]]
    outputs: Sequence[Mapping[str, Any]]
    about: Mapping[str, Any]

    def metadata(self, name: str, versions: Sequence[str]) -> dict[str, Any]:
        """The answer to `GET /v2/models/{name}`, with the versions that are served."""
        return {
            "name": name,
            "versions": list(versions),
            "platform": self.platform,
            "inputs": self.inputs,
            "outputs": self.outputs,
            NAME: self.about,
        }


def server_metadata() -> dict[str, Any]:
    """The answer to `GET /v2`."""
    return {"name": NAME, "version": importlib.metadata.version(NAME), "extensions": list(EXTENSIONS)}


def describe(served: Served) -> Description:
    """Everything there is to tell of one version.

    Raises:
        BundleError: its golden samples cannot be read.
    """
    bundle, spec, golden = served.bundle, served.bundle.spec, served.bundle.golden()
    body = example(bundle, golden, 0)
    about = {
        "version": spec.version,
        "description": spec.description,
        "bundle": bundle.digest[:12],
        "graph": served.graph,
        "precision": bundle.manifest.graph(served.graph).precision,
        "runtime": served.runtime,
        "device": served.device,
        "why": served.why,
        "workers": served.workers,
        "threads": served.threads,
        "spec": spec.model_dump(mode="json"),
        "labels": {name: list(labels) for name, labels in _labels(served).items()},
        "example": orjson.loads(body) if len(body) <= LONGEST_EXAMPLE else None,
        "examples": _examples(bundle, golden),
    }
    inputs = [_input(name, value) for name, value in spec.inputs.items()]
    return Description(PLATFORMS.get(served.runtime, served.runtime), inputs, _outputs(spec, golden), about)


def _examples(bundle: Bundle, golden: Golden) -> list[Any]:
    """The first golden samples as instances of a request, as many as are still worth telling: for a person to try."""
    found: list[Any] = []
    room = LONGEST_EXAMPLE
    for row in range(min(golden.rows, MOST_EXAMPLES)):
        body = example(bundle, golden, row)
        room -= len(body)
        if room < 0:
            break
        found += orjson.loads(body)["instances"]
    return found


def _labels(served: Served) -> dict[str, Sequence[str]]:
    """Of each head that has labels, those that it answers with: a oneshot head's are the classes enrolled."""
    found = {name: getattr(head, "labels", ()) for name, head in served.bundle.spec.heads.items()}
    return found | {name: enrolled.labels for name, enrolled in served.bundle.prototypes().items()}


def _input(name: str, spec: InputSpec) -> dict[str, Any]:
    if isinstance(spec, TextInput):
        return {"name": name, "datatype": "BYTES", "shape": [FREE]}
    datatype = next(key for key, dtype in DATATYPES.items() if dtype == spec.dtype)
    shape = [FREE if isinstance(size, str) else size for size in spec.shape]
    return {"name": name, "datatype": datatype, "shape": [FREE, *shape]}


def _outputs(spec: ModelSpec, golden: Golden) -> list[dict[str, Any]]:
    """Each head's raw numbers; where inputs have free dimensions, so have those of each pixel and token."""
    free = any(isinstance(value, TensorInput) and value.free for value in spec.inputs.values())
    found = []
    for name, head in spec.heads.items():
        shape = [int(size) for size in golden.outputs[name].shape[1:]]
        if isinstance(head, TokensHead):
            shape = [FREE, *shape[1:]]
        if isinstance(head, SegmentationHead) and free:
            shape = [shape[0], FREE, FREE]
        found.append({"name": name, "datatype": "FP32", "shape": [FREE, *shape]})
    return found

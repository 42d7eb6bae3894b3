"""Triton's model repository: a bundle's fused ONNX graph with what NVIDIA Triton's onnxruntime backend wants beside it.

    <model>/
      config.pbtxt            inputs, every head as an output, dynamic batching, warm-up
      README.md               what to send and what comes back
      <head>_labels.txt       one label a line
      warmup/<array>          a golden row, as raw bytes
      1/model.onnx            1/weights.bin beside it where one file cannot hold both
      1/preprocess/           tokenizers          1/prototypes/   classes of oneshot heads

Triton numbers versions 1, 2, 3…, so the bundle's own version stands in the configuration's parameters. Raw inputs go in
and raw outputs come back: labels, scores and entities are made of them by Polyhead's own server.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import onnx

from polyhead.export.errors import ExportError, ParityError
from polyhead.export.placing import Kind, claim, place
from polyhead.export.staging import staging
from polyhead.export.triton.config import MARK, VERSION, Door, config_fields, labels_file, warmup_file
from polyhead.export.triton.pbtxt import pbtxt
from polyhead.export.triton.readme import readme
from polyhead.export.weights import whole
from polyhead.models.arrays import array_specs
from polyhead.models.spec import Labelled
from polyhead.serving.bundle import Bundle
from polyhead.serving.golden import Array, Golden, fault, trimmed
from polyhead.serving.manifest import Graph
from polyhead.serving.runtimes import onnxruntime as runtime  # before onnxruntime itself: it turns its telemetry off

__all__ = ["fused_onnx", "package_triton"]

MODEL = "model.onnx"
LARGEST = 2**31 - 1  # bytes of one protocol buffer, and so of an ONNX file that holds its weights
SIDECARS = ("preprocess/", "prototypes/")
FOLDER = Kind(
    "Triton model folder",
    ("config.pbtxt", MARK.encode()),
    ("config.pbtxt", "README.md", "*_labels.txt", "warmup", VERSION),
)


def fused_onnx(bundle: Bundle, precision: str = "fp32") -> str:
    """The id of the bundle's ONNX graph of trunk and all heads, in a precision.

    Raises:
        ExportError: the bundle has none.
    """
    found = {g.precision: g.id for g in bundle.manifest.graphs if g.part == "fused" and g.format == "onnx"}
    if precision not in found:
        raise ExportError(
            f"bundle {bundle.title} has no fused ONNX graph in {precision} (it has: {', '.join(found) or 'none'}): "
            f"ask for one of these, or export it with --format onnx --precision {precision}"
        )
    return found[precision]


def package_triton(bundle: Bundle, out: Path, force: bool = False, graph: str = "fused-onnx") -> Path:
    """Write the folder `<model>` into a Triton model repository.

    The folder appears whole or not at all, once ONNX Runtime has opened the very file that Triton will, under the names
    that the configuration gives it, and has reproduced the golden samples.

    Args:
        bundle: an opened bundle.
        out: the model repository; made where missing.
        force: replace a folder that this function wrote.
        graph: the id of a fused ONNX graph.

    Returns:
        The model's folder.

    Raises:
        ExportError: the bundle has no such graph, or there is something that may not be replaced.
        ParityError: the file does not reproduce the golden samples.
        BundleError: a file changed since the bundle was opened.
    """
    entry = _entry(bundle, graph)
    target = claim(out / bundle.spec.name, force, FOLDER)
    golden = bundle.golden()
    with staging(target) as folder:
        version = folder / VERSION
        version.mkdir()
        _write_model(bundle, entry, version)
        for name in bundle.manifest.files:
            if name.startswith(SIDECARS):
                (version / name).parent.mkdir(parents=True, exist_ok=True)
                (version / name).write_bytes(bundle.read(name))
        session = _session(version / MODEL)
        _prove(bundle, entry, session, golden)
        row = _warm_row(bundle, golden)
        inputs, outputs = _doors(session.get_inputs()), _doors(session.get_outputs())
        heads = {name: outputs[name] for name in bundle.spec.head_names}
        fields = config_fields(bundle, entry, inputs, heads, {name: array.shape[1:] for name, array in row.items()})
        (folder / "config.pbtxt").write_text(MARK + pbtxt(fields), encoding="utf-8")
        (folder / "README.md").write_text(readme(bundle, entry, inputs, heads), encoding="utf-8")
        for name, head in bundle.spec.heads.items():
            if isinstance(head, Labelled):
                (folder / labels_file(name)).write_text("".join(f"{label}\n" for label in head.labels), "utf-8")
        for name, array in row.items():
            path = folder / "warmup" / warmup_file(name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(np.ascontiguousarray(array).tobytes())
        place(folder, target)
    return target


def _entry(bundle: Bundle, graph: str) -> Graph:
    entries = {g.id: g for g in bundle.manifest.graphs if g.part == "fused" and g.format == "onnx"}
    if graph not in entries:
        raise ExportError(
            f"bundle {bundle.title} has no fused ONNX graph {graph!r} (it has: {', '.join(entries) or 'none'}): "
            "give one of these, or export the bundle with --format onnx"
        )
    return entries[graph]


def _write_model(bundle: Bundle, graph: Graph, folder: Path) -> None:
    """The graph with its weights inside; the two files as the bundle has them where that would be too large."""
    if sum(bundle.manifest.files[name].size for name in graph.files) <= LARGEST:
        onnx.save_model(whole(bundle, graph), folder / MODEL)
        return
    for name, data in bundle.graph_files(graph).items():
        (folder / (MODEL if name == graph.file else PurePosixPath(name).name)).write_bytes(data)


def _session(path: Path) -> Any:
    """The file as Triton's backend opens it, on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; warnings about graph clean-up are noise
    try:
        return onnxruntime.InferenceSession(path, options, providers=[runtime.PROVIDERS["cpu"]])
    except Exception as error:  # noqa: BLE001 - it raises a private class per status code
        raise ExportError(f"ONNX Runtime refuses {MODEL}: {' '.join(str(error).split())}") from None


def _doors(values: Any) -> dict[str, Door]:
    """Inputs or outputs of a session by name: Triton compares its configuration with these, outputs to the number."""
    return {
        value.name: Door(value.type, tuple(d if isinstance(d, int) else None for d in value.shape[1:]))
        for value in values
    }


def _prove(bundle: Bundle, graph: Graph, session: Any, golden: Golden) -> None:
    heads = bundle.spec.head_names
    outputs = session.run(list(heads), golden.inputs)
    for name, output in zip(heads, outputs, strict=True):
        wrong = fault(bundle.spec.heads[name], output, golden.outputs[name], graph.tolerance, graph.agreement)
        if wrong is not None:
            raise ParityError(
                f"head {name!r} of {MODEL}, made of {graph.file}, does not reproduce the golden samples: {wrong}; "
                "install the versions that the manifest names, or export the bundle again"
            )


def _warm_row(bundle: Bundle, golden: Golden) -> Mapping[str, Array]:
    """One golden row, `[1, …]` by array: the one of the most tokens, without padding; the first where there is no text.

    Real rows, because a token id out of a table's range fails, and random bits are no number.
    """
    arrays = array_specs(bundle.spec)
    tokens = [golden.inputs[name].sum(axis=1) for name, array in arrays.items() if array.role == "mask"]
    row = int(np.argmax(np.sum(tokens, axis=0))) if tokens else 0
    return trimmed({name: golden.inputs[name][row : row + 1] for name in arrays}, arrays)

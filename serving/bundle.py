"""The bundle: a directory with a model's graphs, spec and golden samples; the only thing that serving reads.

    digits-1.0/
      manifest.json         spec, graphs, parity, versions, and the hash of every file
      graphs/               fused.onnx, trunk.onnx, heads/<head>.onnx, weights.bin, fused.ts, fused.pt2 …
      preprocess/           tokenizers
      prototypes/           classes enrolled for oneshot heads
      golden.safetensors    inputs with every head's eager output
      parity.json           every figure of the gate
      tuning.json           the fastest graph per device, where `polyhead bench --write` measured it

A bundle is whole or refused: every file the manifest names must be there with its hash, and nothing else may be. Files
are handed out as bytes that were hashed in memory, so what runs is what was verified. Pydantic only, no torch.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import orjson
import safetensors
from pydantic import ValidationError

from polyhead.models.arrays import ArraySpec, array_specs
from polyhead.models.spec import (
    DENSE_HEADS,
    ModelSpec,
    OneShotHead,
    SpecError,
    TextInput,
    first_fault,
)
from polyhead.serving.errors import BundleError
from polyhead.serving.golden import Array, Golden
from polyhead.serving.manifest import Graph, Manifest
from polyhead.serving.prototypes import Prototypes, prototypes_file
from polyhead.serving.runtimes.base import FORMATS
from polyhead.serving.tuning import TUNING, Tuning

__all__ = ["GOLDEN", "MANIFEST", "Bundle"]

MANIFEST = "manifest.json"
GOLDEN = "golden.safetensors"
# Not blocking: a pipe put in a file's place must not hang us.
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
MAX_MANIFEST_BYTES = 16 * 1024 * 1024


class Bundle:
    """An opened bundle."""

    def __init__(self, folder: Path, manifest: Manifest, digest: str) -> None:
        self.folder = folder
        self.manifest = manifest
        self.digest = digest  # sha256 of manifest.json, and so of everything in the bundle

    @property
    def spec(self) -> ModelSpec:
        """The model's spec."""
        return self.manifest.spec

    @property
    def title(self) -> str:
        """Name and version, as in `digits/1.0`."""
        return f"{self.spec.name}/{self.spec.version}"

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open a bundle and verify every file in it.

        Raises:
            BundleError: naming the file that is missing, changed, unlisted, or a link.
        """
        bundle = cls._read_manifest(folder)
        bundle._check_graphs()
        bundle._check_listing()
        for name in bundle.manifest.files:
            bundle.read(name)
        return bundle

    @classmethod
    def _read_manifest(cls, folder: Path) -> Self:
        path = folder / MANIFEST
        if not folder.is_dir():
            raise BundleError(f"{folder}: is no directory: give the directory that polyhead export wrote")
        if not path.is_file() or path.is_symlink():
            raise BundleError(f"{folder}: is no bundle (it has no {MANIFEST}): polyhead export writes one")
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise BundleError(f"{path}: is larger than {MAX_MANIFEST_BYTES} bytes: this is no manifest")
        data = path.read_bytes()
        try:
            content = orjson.loads(data)
            manifest = Manifest.model_validate(content)
            array_specs(manifest.spec)  # refuses names that a text's arrays have too
        except ValidationError as error:
            raise BundleError(f"{path}: {first_fault(error, content)}: export the bundle again") from None
        except orjson.JSONDecodeError as error:
            raise BundleError(f"{path}: is not JSON ({error}): export the bundle again") from None
        except SpecError as error:
            raise BundleError(f"{path}: {error}") from None
        return cls(folder, manifest, hashlib.sha256(data).hexdigest())

    def _check_graphs(self) -> None:
        """There is a graph of everything, and every such graph takes the spec's inputs and returns every head."""
        inputs, heads = set(array_specs(self.spec)), set(self.spec.heads)
        dense = {name for name, head in self.spec.heads.items() if isinstance(head, DENSE_HEADS)}
        ids = [graph.id for graph in self.manifest.graphs]
        fused = [graph for graph in self.manifest.graphs if graph.part == "fused"]
        if len(set(ids)) != len(ids) or set(ids) != set(self.manifest.parity) or not fused:
            raise BundleError(f"{self.folder}: {MANIFEST} does not name its graphs: export the bundle again")
        heads_apart = sorted(str(graph.head) for graph in self.manifest.graphs if graph.part == "head")
        trunks = [graph.id for graph in self.manifest.graphs if graph.part == "trunk"]
        apart = heads_apart == sorted(heads) and trunks == ["trunk-onnx"]
        if not apart and (heads_apart or trunks or self.manifest.unsplit is None):
            raise BundleError(f"{self.folder}: the graphs of trunk and heads are not whole: export the bundle again")
        for graph in fused:
            packed = graph.packed
            columns = set() if packed is None else set(packed.columns)
            shapes = set() if packed is None else set(packed.shapes)
            extra = set() if packed is None else {packed.output}
            fits = set(graph.inputs) == inputs and set(graph.outputs) == heads | extra
            if not fits or not heads - dense == columns == shapes:
                raise BundleError(f"{self.folder}: graph {graph.id} does not fit the spec: export the bundle again")

    def _check_listing(self) -> None:
        expected = {MANIFEST, *self.manifest.files}
        needed = {GOLDEN, *(file for graph in self.manifest.graphs for file in graph.files)}
        needed |= {value.tokenizer for value in self.spec.inputs.values() if isinstance(value, TextInput)}
        if not needed <= expected:
            raise BundleError(f"{self.folder}: the manifest lists no {min(needed - expected)}: export the bundle again")
        found: set[str] = set()
        for root, folders, files in os.walk(self.folder):
            for name in (*folders, *files):
                path = Path(root, name)
                relative = path.relative_to(self.folder).as_posix()
                mode = path.lstat().st_mode
                if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
                    raise BundleError(
                        f"{self.folder}: {relative} is a link or a special file: a bundle holds files only"
                    )
                if stat.S_ISREG(mode):
                    found.add(relative)
        for relative in sorted(expected - found):
            raise BundleError(f"{self.folder}: {relative} is missing: export the bundle again")
        for relative in sorted(found - expected):
            raise BundleError(
                f"{self.folder}: {relative} is not in the manifest: remove it, or export the bundle again"
            )

    def read(self, name: str) -> bytes:
        """A file's content, verified: what is returned is what was hashed.

        Raises:
            BundleError: the file is not the one that the manifest names.
        """
        entry = self.manifest.files[name]
        try:
            descriptor = os.open(self.folder / name, READ_FLAGS)
        except OSError as error:
            raise BundleError(f"{self.folder}: {name} cannot be read ({error.strerror})") from None
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            if size != entry.size:
                raise BundleError(
                    f"{self.folder}: {name} has {size} bytes, the manifest says {entry.size}: "
                    "it was changed or cut short; export the bundle again"
                )
            data = file.read()
        digest = hashlib.sha256(data).hexdigest()
        if digest != entry.sha256:
            raise BundleError(
                f"{self.folder}: {name} was changed (sha256 {digest[:12]}, the manifest says {entry.sha256[:12]}): "
                "export the bundle again"
            )
        return data

    def graph_files(self, graph: Graph) -> dict[str, bytes]:
        """A graph's files by name, verified.

        Raises:
            BundleError: a file is not the one that the manifest names.
        """
        return {name: self.read(name) for name in graph.files}

    def tuning(self) -> Tuning | None:
        """The fastest graph per kind of device, where `polyhead bench --write` measured it.

        Raises:
            BundleError: it names a graph that is not there.
        """
        if TUNING not in self.manifest.files:
            return None
        try:
            tuning = Tuning.load(self.read(TUNING))
        except ValueError as error:
            raise BundleError(f"{self.folder}: {TUNING} is damaged ({error}): measure again") from None
        for choice in tuning.devices.values():
            graph = next((g for g in self.manifest.graphs if g.id == choice.graph and g.part == "fused"), None)
            if graph is None:
                raise BundleError(f"{self.folder}: {TUNING} names graph {choice.graph!r}: measure again")
            if FORMATS.get(choice.runtime) != graph.format:
                raise BundleError(
                    f"{self.folder}: {TUNING} names graph {choice.graph!r} for {choice.runtime}: measure again"
                )
        return tuning

    def prototypes(self) -> dict[str, Prototypes]:
        """The classes enrolled for each oneshot head; none where nobody has enrolled any.

        Raises:
            BundleError: they do not fit the spec.
        """
        enrolled = {}
        for name, head in self.spec.heads.items():
            if isinstance(head, OneShotHead):
                file = prototypes_file(name)
                data = self.read(file) if file in self.manifest.files else None
                try:
                    enrolled[name] = Prototypes.empty(head.dim) if data is None else Prototypes.load(data, head.dim)
                except ValueError as error:
                    raise BundleError(f"{self.folder}: {file} does not fit the spec ({error})") from None
        return enrolled

    def golden(self) -> Golden:
        """The golden samples.

        Raises:
            BundleError: they do not fit the spec.
        """
        try:
            golden = Golden.load(self.read(GOLDEN))
        except (safetensors.SafetensorError, KeyError, ValueError, RecursionError) as error:
            raise BundleError(f"{self.folder}: {GOLDEN} is damaged ({error}): export the bundle again") from None
        arrays, heads = array_specs(self.spec), set(self.spec.heads)
        texts = {name for name, value in self.spec.inputs.items() if isinstance(value, TextInput)}
        fits = set(golden.inputs) == set(arrays) and set(golden.outputs) == heads and set(golden.texts) == texts
        columns = [*golden.inputs.values(), *golden.outputs.values()]
        lengths = {len(column) for column in columns} | {len(texts) for texts in golden.texts.values()}
        fits = fits and golden.rows >= 1 and lengths == {golden.rows}
        fits = fits and all(_is_row_of(arrays[n], a) for n, a in golden.inputs.items())
        if not fits or not _is_consistent(arrays, golden.inputs):
            raise BundleError(f"{self.folder}: {GOLDEN} does not fit the spec: export the bundle again")
        return golden


def _is_row_of(spec: ArraySpec, array: Array) -> bool:
    """Whether an array holds rows of what the graph takes: its dtype, and its shape where that is fixed."""
    same = len(spec.shape) == array.ndim - 1
    return (
        same
        and array.dtype == spec.dtype
        and all(isinstance(w, str) or w == g for w, g in zip(spec.shape, array.shape[1:], strict=True))
    )


def _is_consistent(specs: Mapping[str, ArraySpec], arrays: Mapping[str, Array]) -> bool:
    """Whether free dimensions of one name have one length, as a text's ids and mask."""
    free = {
        (dimension, length)
        for name, array in arrays.items()
        for dimension, length in zip(specs[name].shape, array.shape[1:], strict=True)
        if isinstance(dimension, str)
    }
    return len(free) == len({dimension for dimension, _ in free})

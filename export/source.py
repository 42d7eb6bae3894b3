"""Where a network comes from: a training run of ours, or a factory and weights of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch
from torch import nn

from polyhead.export.errors import ExportError
from polyhead.export.samples import load_samples, random_samples
from polyhead.models.importing import imported_module
from polyhead.models.run import Run
from polyhead.models.spec import ModelSpec, OneShotHead, TextInput
from polyhead.models.tokenizer import Tokenizer
from polyhead.serving.collate import Batch, collate
from polyhead.serving.errors import InvalidInstance
from polyhead.serving.golden import Array
from polyhead.serving.prototypes import Prototypes
from polyhead.serving.request import Query, Values
from polyhead.serving.texts import Texts

__all__ = ["Source", "from_factory", "from_run"]

EXAMPLE_ROWS = 2  # the least that an export captures a batch from


@dataclass(frozen=True)
class Source:
    """A trained network, its spec, and rows to try it on."""

    network: nn.Module
    spec: ModelSpec
    samples: Mapping[str, Values]  # raw inputs by name: arrays `[rows, …]`, lists of texts
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    tokenizers: Mapping[str, Tokenizer] = field(default_factory=dict)  # by text input
    prototypes: Mapping[str, Prototypes] = field(default_factory=dict)  # by oneshot head: the classes enrolled already

    @property
    def texts(self) -> dict[str, list[str]]:
        """The texts by input, of the rows of `arrays`."""
        rows = self._groups[0].positions
        return {name: [str(self.samples[name][row]) for row in rows] for name in self.tokenizers}

    def arrays(self) -> dict[str, Array]:
        """The samples as the graph takes them, made by the code that serves; of rows of several shapes, the most.

        Raises:
            ExportError: a text is longer than the spec allows, or no two rows are of one shape.
        """
        return self.batches()[0]

    def batches(self) -> list[dict[str, Array]]:
        """All samples as the graph takes them, in groups of equal shape, the largest first.

        Raises:
            ExportError: a text is longer than the spec allows, or no two rows are of one shape.
        """
        return [dict(group.inputs) for group in self._groups]

    @cached_property
    def _groups(self) -> list[Batch]:
        rows = len(next(iter(self.samples.values())))
        try:
            query = Texts(self.spec, self.tokenizers).encode(Query(rows, self.samples, ()))
        except InvalidInstance as error:
            raise ExportError(f"samples: row {error.loc[1]}: {error}") from None
        groups = sorted(collate(self.spec, [query], rows), key=lambda group: -len(group.positions))
        if len(groups[0].positions) < EXAMPLE_ROWS:
            raise ExportError(
                f"samples: {rows} rows, and no two are of one shape: give two of equal lengths, "
                "for a graph of batches is captured from a batch"
            )
        return groups


def from_run(folder: Path) -> Source:
    """The network of a finished training run.

    Raises:
        RunError: the folder is no finished run.
        ExportError: network and weights do not fit.
    """
    run = Run.open(folder)
    network = load_weights(build(run.record.factory), run.weights)
    return Source(
        network,
        run.spec,
        load_samples(run.samples, run.spec),
        run.record.metrics,
        load_tokenizers(run.spec, folder),
        load_prototypes(folder / "prototypes.safetensors", run.spec),
    )


def from_factory(factory: str, weights: Path, spec: Path, samples: Path | None = None) -> Source:
    """A user's own network.

    Args:
        factory: `package.module:function` or `path/to/file.py:function`; it takes nothing and returns the module.
        weights: its state dict, as safetensors.
        spec: YAML; a tokenizer that it names stands beside it.
        samples: raw inputs by name, as safetensors, or a JSON list of instances; random ones where None.

    Raises:
        SpecError: the spec is wrong.
        ExportError: anything else is.
    """
    model = ModelSpec.load(spec)
    network = load_weights(build(factory), weights)
    tokenizers = load_tokenizers(model, spec.parent)
    rows = random_samples(model, tokenizers=tokenizers) if samples is None else load_samples(samples, model)
    return Source(network, model, rows, tokenizers=tokenizers)


def load_tokenizers(spec: ModelSpec, folder: Path) -> dict[str, Tokenizer]:
    """The tokenizer of every text input, from the files beside the spec.

    Raises:
        SpecError: a file is not there, or is no tokenizer.
    """
    texts = {name: value for name, value in spec.inputs.items() if isinstance(value, TextInput)}
    return {name: Tokenizer.load(folder / value.tokenizer, value) for name, value in texts.items()}


def load_prototypes(path: Path, spec: ModelSpec) -> dict[str, Prototypes]:
    """The classes that training enrolled, by oneshot head: `<head>` `[labels, dim]`, `<head>.examples` `[labels]`.

    A class without an example is left out.

    Raises:
        ExportError: the file is something else.
    """
    if not path.is_file():
        return {}
    try:
        return _prototypes(safetensors.numpy.load_file(path), spec)
    except (safetensors.SafetensorError, KeyError, ValueError, IndexError) as error:
        raise ExportError(f"{path}: does not hold this model's prototypes ({error}): train again") from None


def _prototypes(arrays: Mapping[str, Array], spec: ModelSpec) -> dict[str, Prototypes]:
    enrolled = {}
    for name, head in spec.heads.items():
        if isinstance(head, OneShotHead) and name in arrays:
            counts = arrays[f"{name}.examples"]
            known = counts > 0
            labels = tuple(label for label, here in zip(head.labels, known, strict=True) if here)
            enrolled[name] = Prototypes(labels, arrays[name][known].astype(np.float32), counts[known].astype(np.int64))
    return enrolled


def build(factory: str) -> nn.Module:
    """Call a factory.

    Raises:
        ExportError: it cannot be found or does not return a module.
    """
    place, _, function = factory.rpartition(":")
    if not place or not function:
        raise ExportError(f"factory {factory!r}: write package.module:function or path/to/file.py:function")
    try:
        module = imported_module(place)
    except FileNotFoundError:
        raise ExportError(f"factory file {place} is not there") from None
    except Exception as error:
        raise ExportError(
            f"factory {factory!r}: {place} cannot be imported ({type(error).__name__}: {error}): "
            "check the name, or give a file"
        ) from error
    found: Callable[[], Any] | None = getattr(module, function, None)
    if not callable(found):
        raise ExportError(f"factory {factory!r}: {place} has no function {function!r}")
    try:
        network = found()
    except Exception as error:
        raise ExportError(
            f"factory {factory!r} failed ({type(error).__name__}: {error}): it must take nothing and return the network"
        ) from error
    if not isinstance(network, nn.Module):
        raise ExportError(f"factory {factory!r} returned {type(network).__name__}: return a torch.nn.Module")
    return network.eval()


def load_weights(network: nn.Module, path: Path) -> nn.Module:
    """Load a state dict from safetensors, strictly.

    Raises:
        ExportError: the file is something else, or its names and shapes are not the network's.
    """
    if not path.is_file():
        raise ExportError(f"weights {path}: no such file")
    try:
        # Tied weights are stored once; load_model knows which names share memory.
        missing, unexpected = safetensors.torch.load_model(network, path, strict=False)
    except (safetensors.SafetensorError, OSError) as error:
        raise ExportError(
            f"weights {path} are no safetensors file ({error}): "
            "write it with safetensors.torch.save_model(network, path)"
        ) from None
    except RuntimeError as error:
        raise ExportError(f"weights {path} do not fit the network: {' '.join(str(error).split())}") from None
    for kind, names in (("lack", missing), ("have, and the network has not,", unexpected)):
        if names:
            raise ExportError(f"weights {path} {kind} {len(names)} entries, the first is {sorted(names)[0]!r}")
    return network

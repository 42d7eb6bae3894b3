"""Where a network comes from: a training run of ours, or a factory and weights of the user's own."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import safetensors.torch
from torch import nn

from polyhead.export.errors import ExportError
from polyhead.models.run import Run
from polyhead.models.spec import ImageInput, ModelSpec, TensorInput, TextInput
from polyhead.serving.golden import Array

__all__ = ["Source", "from_factory", "from_run"]

RANDOM_SAMPLES = 64


@dataclass(frozen=True)
class Source:
    """A trained network, its spec, and rows to try it on."""

    network: nn.Module
    spec: ModelSpec
    samples: Mapping[str, Array]  # raw inputs by name, `[rows, …]`
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def from_run(folder: Path) -> Source:
    """The network of a finished training run.

    Raises:
        RunError: the folder is no finished run.
        ExportError: network and weights do not fit.
    """
    run = Run.open(folder)
    network = load_weights(build(run.record.factory), run.weights)
    return Source(network, run.spec, load_samples(run.samples, run.spec), run.record.metrics)


def from_factory(factory: str, weights: Path, spec: Path, samples: Path | None = None) -> Source:
    """A user's own network.

    Args:
        factory: `package.module:function` or `path/to/file.py:function`; it takes nothing and returns the module.
        weights: its state dict, as safetensors.
        spec: YAML.
        samples: raw inputs by name, as safetensors; random ones where None.

    Raises:
        SpecError: the spec is wrong.
        ExportError: anything else is.
    """
    model = ModelSpec.load(spec)
    network = load_weights(build(factory), weights)
    return Source(network, model, random_samples(model) if samples is None else load_samples(samples, model))


def build(factory: str) -> nn.Module:
    """Call a factory.

    Raises:
        ExportError: it cannot be found or does not return a module.
    """
    place, _, function = factory.rpartition(":")
    if not place or not function:
        raise ExportError(f"factory {factory!r}: write package.module:function or path/to/file.py:function")
    try:
        module = _import(place)
    except ExportError:
        raise
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


def _import(place: str) -> ModuleType:
    if not place.endswith(".py"):
        with _first_on_path(Path.cwd()):  # a console script does not look where the user stands
            return importlib.import_module(place)
    path = Path(place).resolve()
    if not path.is_file():
        raise ExportError(f"factory file {place} is not there")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses and pickled types look their module up by name
    with _first_on_path(path.parent):  # the file may import its neighbours, as when it is run itself
        spec.loader.exec_module(module)
    return module


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


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


def load_samples(path: Path, spec: ModelSpec) -> dict[str, Array]:
    """Raw inputs by name.

    Raises:
        ExportError: they are not the spec's inputs.
    """
    try:
        arrays = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ExportError(f"samples {path} cannot be read ({error}): write safetensors, one array per input") from None
    if set(arrays) != set(spec.inputs):
        raise ExportError(f"samples {path} hold {sorted(arrays)}, the spec's inputs are {sorted(spec.inputs)}")
    for name, array in arrays.items():
        wanted = _row(spec, name)
        if array.shape[1:] != wanted.shape or array.dtype != wanted.dtype or len(array) < 2:
            raise ExportError(
                f"samples {path}: input {name!r} is {array.dtype}{list(array.shape)}, "
                f"wanted {wanted.dtype}[rows, {', '.join(map(str, wanted.shape))}] with two rows or more"
            )
    return {name: arrays[name] for name in spec.inputs}


def random_samples(spec: ModelSpec, rows: int = RANDOM_SAMPLES, seed: int = 0) -> dict[str, Array]:
    """Rows of random numbers: floats normal, integers small, pixels any, all seeded."""
    generator = np.random.default_rng(seed)
    samples: dict[str, Array] = {}
    for name in spec.inputs:
        like = _row(spec, name)
        shape = (rows, *like.shape)
        if like.dtype.kind == "f":
            samples[name] = generator.standard_normal(shape).astype(like.dtype)
        else:
            limit = 2 if like.dtype.kind == "b" or not isinstance(spec.inputs[name], ImageInput) else 256
            samples[name] = generator.integers(0, limit, shape).astype(like.dtype)
    return samples


def _row(spec: ModelSpec, name: str) -> Array:
    """An empty row of an input: its dtype and shape."""
    value = spec.inputs[name]
    if isinstance(value, TextInput) or (isinstance(value, TensorInput) and value.free):
        raise ExportError(f"input {name!r} of kind {value.kind} with a free length cannot be exported by this version")
    return np.empty(tuple(int(d) for d in value.shape), dtype=value.dtype)

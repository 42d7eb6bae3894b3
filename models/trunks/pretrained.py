"""Trunks that were trained elsewhere: weights taken from files by name, and whole modules of the user's.

Weights are safetensors, never pickles.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode

__all__ = [
    "ModuleTrunk",
    "PretrainedError",
    "from_module",
    "load_by_name",
    "masked_mean",
    "read_safetensors",
    "recording",
]

Pool = Literal["mean", "cls", "map"]
POOLS = ("mean", "cls", "map")
LISTED = 12  # names in an error


class PretrainedError(ValueError):
    """Weights, a configuration or a module that cannot be taken as they are. The message says what, got, and fix."""


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file, by name.

    Raises:
        PretrainedError: it is missing, or no safetensors file.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise PretrainedError(
            f"{path}: cannot be read as safetensors ({error}): give a whole safetensors file"
        ) from None


def load_by_name(module: nn.Module, tensors: Mapping[str, Tensor], source: str, optional: str = "") -> None:
    """Copy tensors into the parameters and buffers of the same names: all of them, or none.

    Args:
        module: takes them in its own dtypes and on its own devices.
        tensors: by the module's names.
        source: names where they come from, in errors.
        optional: the ending of names that may be missing.

    Raises:
        PretrainedError: the first name that is missing or unexpected, or the first tensor of another shape or that
            holds no floats where the module does.
    """
    own = module.state_dict()
    missing = [name for name in own if name not in tensors and not (optional and name.endswith(optional))]
    unexpected = [name for name in tensors if name not in own]
    for names, fault in ((missing, "lacks"), (unexpected, "has unexpected")):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise PretrainedError(
                f"{source}: {fault} tensor {names[0]!r}{more}: give the weights of a network of the same layout"
            )
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            raise PretrainedError(
                f"{source}: tensor {name!r} has shape {list(tensor.shape)}, the network wants "
                f"{list(own[name].shape)}: give the weights of a network of the same sizes"
            )
        if own[name].is_floating_point() and not tensor.is_floating_point():
            raise PretrainedError(
                f"{source}: tensor {name!r} is {tensor.dtype}, not floating point: give weights that are not quantised"
            )
    module.load_state_dict(dict(tensors), strict=False)


def masked_mean(tokens: Tensor, mask: Tensor) -> Tensor:
    """The mean over the valid tokens; zeros for a row that has none.

    Args:
        tokens: `[batch, sequence, features]`.
        mask: `[batch, sequence]`, other than 0 where valid.

    Returns:
        `[batch, features]`, in the dtype of the tokens.
    """
    valid = (mask != 0).unsqueeze(-1)
    # Where, not times: what a pad holds may be infinite.
    total = torch.where(valid, tokens, 0.0).sum(dim=1)
    return total / valid.sum(dim=1).clamp(min=1).to(tokens.dtype)


def recording() -> bool:
    """Whether a graph is being recorded: shapes are symbols then, and asking for one would fix it in the graph."""
    return torch.compiler.is_compiling() or bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def _recorded_stack() -> dict[str, Any]:
    """The modules that torch.export believes to be in; it forgets to take out those that an exception leaves."""
    mode = get_proxy_mode() if torch.compiler.is_exporting() else None
    return mode.tracer.module_stack if mode is not None else {}


class _ReachedFeature(BaseException):
    """Carries a submodule's output out of the forward pass around it. No Exception: no user's `except` may eat it."""

    def __init__(self, value: Any) -> None:
        self.value = value


class ModuleTrunk(nn.Module):
    """A user's module as a trunk; see `from_module`.

    Parameters that come after the feature (a classifier, a pooler) stay in the module and never get a gradient: freeze
    them, or take them out of the optimizer, where it minds (weight decay, distributed training).

    Attributes:
        module: as it was given.
        out_features: the width of the pooled features.
    """

    out_features: int

    def __init__(self, module: nn.Module, feature: str | None, pool: Pool | None) -> None:
        super().__init__()
        if pool is not None and pool not in POOLS:
            raise PretrainedError(f"pool {pool!r} is not known: give one of {', '.join(POOLS)}, or None")
        self.module = module
        self.feature = feature
        self.pool = pool
        self.submodule, self.path = _resolve(module, feature)
        # What inputs given by position are called, to find the attention mask among them.
        self.input_names = tuple(inspect.signature(module.forward).parameters)

    def forward(self, *inputs: Tensor, **named: Tensor) -> Tensor | dict[str, Tensor]:
        """The module's inputs to `[batch, out_features]`, or with `pool` to a dict of named features."""
        value = self._follow(self._run(*inputs, **named))
        if self.pool == "map":
            self._require_dims(value, 4, "[batch, channels, height, width]")
            return {"pooled": value.mean(dim=(2, 3)), "map": value}
        if self.pool is not None:
            self._require_dims(value, 3, "[batch, sequence, features]")
            mask = self._mask(inputs, named)
            return {"pooled": masked_mean(value, mask) if self.pool == "mean" else value[:, 0], "tokens": value}
        return self._flat(value)

    def blocks(self) -> list[nn.Module]:
        """The module's children in their order, before them the parameters that are the module's own, if any.

        The order is that of definition, which is bottom to top in most networks. Children that come after the feature
        are among them.
        """
        own = list(self.module.parameters(recurse=False))
        children = list(self.module.children())
        if not children:
            return [self.module]
        return [nn.ParameterList(own), *children] if own else children

    def _run(self, *inputs: Tensor, **named: Tensor) -> Any:
        """The output of the module, or of the submodule that the feature names; nothing after it runs."""
        if not self.submodule:
            return self.module(*inputs, **named)

        def stop(_module: nn.Module, _inputs: Any, output: Any) -> NoReturn:
            raise _ReachedFeature(output)

        # Registered for this one call: the module behaves as ever where its owner calls it.
        handle = self.module.get_submodule(self.submodule).register_forward_hook(stop)
        stack = _recorded_stack()
        depth = len(stack)
        try:
            self.module(*inputs, **named)
        except _ReachedFeature as reached:
            while len(stack) > depth:
                stack.popitem()
            return reached.value
        finally:
            handle.remove()
        raise self._fault("is never called by the module's forward: name a submodule that is")

    def _follow(self, value: Any) -> Tensor:
        for part in self.path:
            parts = _parts(value)
            if part not in parts:
                inside = self.module.get_submodule(self.submodule)
                raise self._fault(
                    f"names nothing: there is no {part!r} in the output ({_listed(parts)}) "
                    f"and no such submodule ({_listed([name for name, _ in inside.named_children()])})"
                )
            value = parts[part]
        if not isinstance(value, Tensor):
            raise self._fault(
                f"is a {type(value).__name__}, not a tensor: name a part of it ({_listed(_parts(value))})"
            )
        return value

    def _flat(self, value: Tensor) -> Tensor:
        if value.dim() == 2:
            return value
        if value.dim() != 4 or (not recording() and value.shape[2:] != (1, 1)):
            raise self._fault(
                f"has shape {list(value.shape)}, wanted [batch, features]: give pool='mean' or 'cls' for "
                "[batch, sequence, features], pool='map' for [batch, channels, height, width]"
            )
        return value.flatten(1)

    def _mask(self, inputs: Sequence[Tensor], named: Mapping[str, Tensor]) -> Tensor:
        mask = {**dict(zip(self.input_names, inputs, strict=False)), **named}.get("attention_mask")
        if mask is None:
            raise self._fault(f"is pooled by {self.pool!r} over the valid tokens: give the input attention_mask")
        return mask

    def _require_dims(self, value: Tensor, dims: int, wanted: str) -> None:
        if value.dim() != dims:
            raise self._fault(f"has shape {list(value.shape)}, pool={self.pool!r} wants {wanted}: give another pool")

    def _fault(self, fault: str) -> PretrainedError:
        what = "the module's output" if self.feature is None else f"feature {self.feature!r}"
        return PretrainedError(f"{what} {fault}")


def from_module(
    module: nn.Module,
    feature: str | None = None,
    pool: Pool | None = None,
    *,
    out_features: int | None = None,
    example: Tensor | Sequence[Tensor] | Mapping[str, Tensor] | None = None,
) -> ModuleTrunk:
    """Make a trunk of any module.

    Args:
        module: anything that takes the model's inputs.
        feature: what of it are the features. None: its output. A submodule's dotted name (`avgpool`,
            `encoder.layer.3`): that one's output at its first call; what would run after it does not run, and is in
            no exported graph. Else a path into the output, of dict keys, attributes and indices: `last_hidden_state`,
            `0`; behind a submodule's name, into the output of that one: `encoder.last_hidden_state`. Where a name is
            both, the submodule is meant.
        pool: None for features `[batch, features]`, or `[batch, channels, 1, 1]`, which is flattened. `mean` or `cls`
            for `[batch, sequence, features]`, over the input `attention_mask`: gives `pooled` (the mean of the valid
            tokens, or the first token) and `tokens`. `map` for `[batch, channels, height, width]`: gives `pooled` (the
            mean over the pixels) and `map`.
        out_features: the width of the pooled features, where no example is given.
        example: inputs to find it with, by a dry run in evaluation mode, which also proves the other arguments: one
            tensor, several by position, or several by name.

    Raises:
        PretrainedError: here where an example is given, else at the first forward: the feature names nothing (the
            message lists what there is), is no tensor, or does not fit `pool`; out_features is not known, or another.
    """
    trunk = ModuleTrunk(module, feature, pool)
    found = out_features if example is None else _dry_run(trunk, example)
    if found is None:
        raise PretrainedError("the width of the features is not known: give out_features=, or example= inputs")
    if out_features not in (None, found):
        raise PretrainedError(f"the example gives {found} features, got out_features={out_features}: leave it out")
    trunk.out_features = found
    return trunk


def _dry_run(trunk: ModuleTrunk, example: Tensor | Sequence[Tensor] | Mapping[str, Tensor]) -> int:
    with _evaluating(trunk), torch.no_grad():
        if isinstance(example, Mapping):
            output = trunk(**example)
        else:
            output = trunk(*((example,) if isinstance(example, Tensor) else example))
    return int((output if isinstance(output, Tensor) else output["pooled"]).shape[1])


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, so that no running statistic changes; each part gets its own mode back."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def _resolve(module: nn.Module, feature: str | None) -> tuple[str, tuple[str, ...]]:
    """The longest beginning of the feature's name that is a submodule, and the path into its output that is left."""
    parts = tuple(feature.split(".")) if feature is not None else ()
    submodules = {name for name, _ in module.named_modules()}
    length = max(length for length in range(len(parts) + 1) if ".".join(parts[:length]) in submodules)
    return ".".join(parts[:length]), parts[length:]


def _parts(value: Any) -> dict[str, Any]:
    """What a path can name in an output."""
    if isinstance(value, Tensor):
        return {}
    if isinstance(value, Mapping):
        return {str(key): part for key, part in value.items()}
    if isinstance(value, list | tuple):
        fields = dict(zip(getattr(value, "_fields", ()), value, strict=False))  # of a named tuple
        return {**{str(index): part for index, part in enumerate(value)}, **fields}
    return {name: part for name, part in getattr(value, "__dict__", {}).items() if not name.startswith("_")}


def _listed(names: Collection[str]) -> str:
    shown = ", ".join(list(names)[:LISTED])
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"there are: {shown}{more}" if names else "there are none"

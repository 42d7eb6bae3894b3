"""Looking inside a network while it learns: what each task asks of the shared parameters, and how large weights grow.

`polyhead.models.learning.tensorboard` writes what is measured here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

from polyhead.models.learning.finetuning import heads_of, trunk_of

__all__ = ["GradientReport", "gradients", "weight_norms"]


@dataclass(frozen=True)
class GradientReport:
    """What each task asks of the shared parameters, at one step. Plain numbers: it can be written as JSON.

    Attributes:
        norms: by task, the 2-norm of its loss's gradient.
        cosines: by pair `a|b` of tasks, a before b in the alphabet: the cosine between their gradients, from -1 to 1.
            Below 0 the tasks conflict: a step that helps one hurts the other. 0 where one of the gradients is zero.
    """

    norms: dict[str, float]
    cosines: dict[str, float]


def gradients(losses: Mapping[str, Tensor], parameters: Sequence[nn.Parameter]) -> GradientReport:
    """Each task's gradient with respect to the shared parameters: how large, and how far apart.

    The measure of Du et al. 2018, "Adapting auxiliary losses using gradient similarity", and of Yu et al. 2020,
    "Gradient surgery for multi-task learning" (NeurIPS), who call a negative cosine a conflict. It costs one backward
    pass a task. Neither `.grad` nor the graph is changed, so the training step's own backward pass still works.

    Args:
        losses: a scalar by task name, of one forward pass.
        parameters: the shared ones; frozen ones are left out.

    Returns:
        Of every task whose gradient is finite; of none where no parameter learns.
    """
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    if not learning:
        return GradientReport({}, {})
    norms: dict[str, float] = {}
    directions: dict[str, Tensor] = {}
    for task in sorted(losses):
        flat = _gradient(losses[task], learning)
        # In float64: the squares of a large gradient overflow float32.
        norm = torch.linalg.vector_norm(flat, dtype=torch.float64)
        if torch.isfinite(norm):
            norms[task] = float(norm)
            directions[task] = flat / norm if norm > 0 else flat
    cosines = {
        f"{a}|{b}": float(torch.dot(directions[a], directions[b]).clamp(-1.0, 1.0))
        for a, b in combinations(directions, 2)
    }
    return GradientReport(norms, cosines)


def _gradient(loss: Tensor, parameters: Sequence[nn.Parameter]) -> Tensor:
    """The gradient of one loss, flat and at least float32; zeros for parameters it does not depend on."""
    found: Sequence[Tensor | None] = [None] * len(parameters)
    if loss.requires_grad:
        found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    parts = [
        torch.zeros_like(parameter) if gradient is None else gradient
        for gradient, parameter in zip(found, parameters, strict=True)
    ]
    flat = torch.cat([part.detach().flatten() for part in parts])
    return flat.to(torch.promote_types(flat.dtype, torch.float32))


def weight_norms(network: nn.Module) -> dict[str, float]:
    """The 2-norm of the parameters of each part: the trunk's blocks (`trunk/0` is nearest the input) and the heads.

    A network without `trunk` and `heads` is taken apart by its children. Parts without parameters are left out.
    """
    norms = {}
    for name, part in _parts(network):
        parameters = [parameter.detach() for parameter in part.parameters()]
        if parameters:
            squares = [torch.linalg.vector_norm(parameter, dtype=torch.float64).square() for parameter in parameters]
            norms[name] = math.sqrt(sum(float(square) for square in squares))
    return norms


def _parts(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    trunk, heads = trunk_of(network), heads_of(network)
    if trunk is None or not heads:
        yield from network.named_children()
        return
    blocks: list[nn.Module] = getattr(trunk, "blocks", lambda: [trunk])()
    digits = len(str(len(blocks) - 1))
    yield from ((f"trunk/{index:0{digits}d}", block) for index, block in enumerate(blocks))
    yield from ((f"heads/{name}", head) for name, head in heads.items())

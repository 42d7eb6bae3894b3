"""What the shared parameters get from tasks whose gradients may conflict, by the aggregators of torchjd.

Parameters that one task alone reaches, as a head's, get that task's gradient as ever. Of a parameter that several
reach, the tasks' gradients are the rows of a matrix (Quinton & Rey 2024, "Jacobian descent for multi-objective
optimization"), and an aggregator makes the one direction from it that the optimiser sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torchjd.aggregation import IMTLG, MGDA, AlignedMTL, ConFIG, DualProj, GradDrop, PCGrad, UPGrad

__all__ = ["AGGREGATORS", "aggregate", "backward", "shared"]

Aggregate = Callable[[Tensor], Tensor]  # `[tasks, parameters]` to `[parameters]`


def _equal(rows: Tensor) -> Tensor:
    """A preference of 1 for each task: tasks that do not conflict get the sum of their gradients, not its mean."""
    return torch.ones(len(rows), device=rows.device, dtype=rows.dtype)


# By the recipe's `gradients`. All stateless: what a step gives follows from its gradients (and, where they draw random
# numbers, from the generator that every epoch seeds), so a resumed run goes on as if nothing had happened.
AGGREGATORS: dict[str, Aggregate] = {
    # Quinton & Rey 2024: each task's gradient projected until it hurts no task, then summed.
    "upgrad": lambda rows: UPGrad(_equal(rows))(rows),
    # Lopez-Paz & Ranzato 2017, "Gradient episodic memory": the sum, projected until it hurts no task.
    "dualproj": lambda rows: DualProj(_equal(rows))(rows),
    # Yu et al. 2020, "Gradient surgery for multi-task learning": conflicting parts taken out pair by pair.
    "pcgrad": lambda rows: PCGrad()(rows),
    # Désidéri 2012, "Multiple-gradient descent algorithm": the shortest vector in the gradients' convex hull.
    "mgda": lambda rows: MGDA()(rows),
    # Liu et al. 2021, "Towards impartial multi-task learning": equal projections onto all gradients.
    "imtlg": lambda rows: IMTLG()(rows),
    # Senushkin et al. 2023, "Independent component alignment for multi-task learning".
    "alignedmtl": lambda rows: AlignedMTL(_equal(rows))(rows),
    # Chen et al. 2020, "Just pick a sign": the values of one sign, drawn for each parameter.
    "graddrop": lambda rows: GradDrop()(rows),
    # Liu et al. 2024, "ConFIG: towards conflict-free training of physics informed neural networks".
    "config": lambda rows: ConFIG()(rows),
}


def backward(losses: Sequence[Tensor], parameters: Sequence[nn.Parameter], aggregator: Aggregate) -> None:
    """Accumulate gradients into `.grad`: aggregated where tasks share a parameter. It costs one backward pass a task.

    Args:
        losses: scalars of one forward pass, weighted already; the graph is freed.
        parameters: all that may learn; frozen ones are left out.
        aggregator: of the matrix of gradients.
    """
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    found = _gradients(losses, learning, keep=False)
    common: list[int] = []
    for index, parameter in enumerate(learning):
        own = [gradients[index] for gradients in found if gradients[index] is not None]
        if len(own) > 1:
            common.append(index)
        elif own:
            _accumulate(parameter, own[0])
    if not common:
        return
    rows = [
        torch.cat([_flat(gradients[index], learning[index]) for index in common])
        for gradients in found
        if any(gradients[index] is not None for index in common)
    ]
    sizes = [learning[index].numel() for index in common]
    parts = torch.split(aggregate(torch.stack(rows), aggregator), sizes)
    for index, part in zip(common, parts, strict=True):
        _accumulate(learning[index], part.view_as(learning[index]))


def aggregate(rows: Tensor, aggregator: Aggregate) -> Tensor:
    """One direction `[parameters]` from the tasks' gradients `[tasks, parameters]`.

    A task without a gradient takes no part: it would pin the direction of some aggregators to zero. Where a gradient is
    not finite the sum is returned, which is not finite either, so that a step in half precision is skipped.
    """
    if not rows.isfinite().all():
        return rows.sum(dim=0)
    rows = rows[rows.any(dim=1)]
    return aggregator(rows) if len(rows) > 1 else rows.sum(dim=0)


def shared(losses: Sequence[Tensor], parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """The parameters that more than one loss reaches; the graph is kept."""
    learning = [parameter for parameter in parameters if parameter.requires_grad]
    found = _gradients(losses, learning, keep=True)
    return [
        parameter
        for index, parameter in enumerate(learning)
        if sum(gradients[index] is not None for gradients in found) > 1
    ]


def _gradients(
    losses: Sequence[Tensor], parameters: Sequence[nn.Parameter], keep: bool
) -> list[tuple[Tensor | None, ...]]:
    """Each loss's gradients, None where it does not reach a parameter."""
    reaching = [loss for loss in losses if loss.requires_grad and parameters]
    return [
        torch.autograd.grad(loss, parameters, retain_graph=keep or loss is not reaching[-1], allow_unused=True)
        for loss in reaching
    ]


def _flat(gradient: Tensor | None, parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter).flatten() if gradient is None else gradient.flatten()


def _accumulate(parameter: nn.Parameter, gradient: Tensor | None) -> None:
    if gradient is not None:
        parameter.grad = gradient.detach().clone() if parameter.grad is None else parameter.grad + gradient

"""Trunks of plain matrices: the multi-layer perceptron, and one matrix that all tasks share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["MLP", "SharedMatrix"]


class MLP(nn.Module):
    """Linear, ReLU and dropout, once per width, on the flattened input.

    Args:
        in_features: values per row after flattening.
        widths: the width of each layer; the last is `out_features`.
        dropout: probability of dropping a feature while training.
    """

    def __init__(self, in_features: int, widths: Sequence[int] = (256, 256), dropout: float = 0.0) -> None:
        super().__init__()
        if not widths:
            raise ValueError("an MLP trunk needs at least one width, got none")
        layers: list[nn.Module] = [nn.Flatten()]
        for width in widths:
            layers += [nn.Linear(in_features, width), nn.ReLU()]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
            in_features = width
        self.layers = nn.Sequential(*layers)
        self.out_features = in_features

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, …]` to `[batch, out_features]`."""
        features: Tensor = self.layers(x)
        return features

    def blocks(self) -> list[nn.Module]:
        """From bottom to top: each width's linear layer with what follows it."""
        starts = [index for index, layer in enumerate(self.layers) if isinstance(layer, nn.Linear)]
        ends = [*starts[1:], len(self.layers)]
        return [self.layers[start:end] for start, end in zip(starts, ends, strict=True)]


class SharedMatrix(nn.Module):
    """One matrix that every task shares, and no nonlinearity: multi-task learning with shared linear features.

    With linear heads on it, the weights of all tasks, side by side as the columns of W `[in_features, tasks]`, are
    W = U V: U `[in_features, rank]` is this trunk's matrix, V `[rank, tasks]` holds the heads' weights. W has a rank of
    `rank` at most, so the tasks must describe their inputs in the same few directions. (Argyriou, Evgeniou & Pontil
    2008, "Convex multi-task feature learning", Machine Learning 73; Kumar & Daumé III 2012, "Learning task grouping and
    overlap in multi-task learning", ICML.)

    The matrix starts with orthonormal columns, the set that Argyriou et al. minimise over; `penalty` keeps it near
    that set, and `joint_sparsity` of the heads' weights makes the tasks agree on which columns they use.

    Args:
        in_features: values per row after flattening.
        rank: columns of the matrix, `out_features`; at most `in_features`.
    """

    def __init__(self, in_features: int, rank: int) -> None:
        super().__init__()
        if not 1 <= rank <= in_features:
            raise ValueError(
                f"the rank of a shared matrix must lie between 1 and its {in_features} input features, got {rank}"
            )
        self.matrix = nn.Parameter(torch.empty(in_features, rank))
        nn.init.orthogonal_(self.matrix)
        self.out_features = rank

    def forward(self, x: Tensor) -> Tensor:
        """`[batch, …]` to `[batch, rank]`."""
        return x.flatten(1) @ self.matrix

    def blocks(self) -> list[nn.Module]:
        """The trunk itself: it has one part."""
        return [self]

    def penalty(self) -> Tensor:
        """The squared Frobenius norm of UᵀU - I, a scalar; 0 where the columns are orthonormal.

        The constraint UᵀU = I of Argyriou et al. (2008), in the soft form that gradient descent can follow. Without
        it, or weight decay, `joint_sparsity` is idle: V can shrink and U grow, and the product stays.
        """
        gram = self.matrix.T @ self.matrix
        return (gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).square().sum()

    @staticmethod
    def joint_sparsity(weights: Iterable[Tensor]) -> Tensor:
        """The squared (2,1)-norm of the heads' weights, a scalar: (Σ over columns of U, of the 2-norm over all tasks)².

        The regulariser of Argyriou et al. (2008): at its minimum over orthonormal U it is the squared trace
        norm of W, so it lowers the rank.

        Args:
            weights: of the linear heads, each `[outputs, rank]` as `torch.nn.Linear.weight` has it.

        Raises:
            ValueError: there are none.
        """
        rows = list(weights)
        if not rows:
            raise ValueError("joint sparsity is of the heads' weights, got none: give each linear head's weight")
        norms: Tensor = torch.linalg.vector_norm(torch.cat(rows), dim=0)
        return norms.sum().square()

"""The right answers, by the network itself in eager PyTorch and the plainest code; and whether given ones are right.

Nothing of the serving package is used here: Polyhead is checked as every other contender is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from polyhead.models.spec import (
    ClassificationHead,
    EmbeddingHead,
    HeadSpec,
    ModelSpec,
    MultilabelHead,
    RegressionHead,
)

__all__ = ["answer", "decided", "fault"]

ABSOLUTE, RELATIVE = 2e-4, 2e-3
MARGIN = 1e-3  # of logits: rows nearer to a decision than this are not asked about


def answer(spec: ModelSpec, outputs: Mapping[str, Tensor], row: int) -> dict[str, Any]:
    """One row's answer, of the network's outputs by head `[rows, …]`."""
    return {name: _head(head, outputs[name][row].double()) for name, head in spec.heads.items()}


def decided(spec: ModelSpec, outputs: Mapping[str, Tensor], row: int) -> bool:
    """Whether no head's decision hangs on the last digits."""
    for name, head in spec.heads.items():
        values = outputs[name][row].double()
        if isinstance(head, ClassificationHead):
            best = values.topk(2).values
            if best[0] - best[1] < MARGIN:
                return False
        if isinstance(head, MultilabelHead) and bool((values - _threshold(head)).abs().min() < MARGIN):
            return False
    return True


def _threshold(head: MultilabelHead) -> Tensor:
    """In logits."""
    return torch.logit(torch.as_tensor(head.threshold, dtype=torch.float64))


def _head(head: HeadSpec, values: Tensor) -> dict[str, Any]:
    match head:
        case ClassificationHead():
            index = int(values.argmax())
            return {"label": head.labels[index], "score": float(values.softmax(0)[index]), "index": index}
        case MultilabelHead():
            chosen = (
                [i for i, far in enumerate((values - _threshold(head)).tolist()) if far >= 0] if values.numel() else []
            )
            return {
                "labels": [head.labels[i] for i in chosen],
                "scores": [float(values[i].sigmoid()) for i in chosen],
            }
        case RegressionHead():
            return {"value": float(values), "unit": head.unit}
        case EmbeddingHead():
            return {"vector": values.tolist()}
    raise ValueError(f"no plain answer is written for heads of kind {head.kind}")


def fault(found: Any, wanted: Any, place: str = "answer") -> str | None:
    """The first difference: other fields, other labels, numbers beyond the tolerance. None where there is none."""
    if isinstance(wanted, dict):
        if not isinstance(found, dict) or set(found) != set(wanted):
            return f"{place}: fields {_shown(found)}, expected {sorted(wanted)}"
        return _first(fault(found[key], wanted[key], f"{place}.{key}") for key in wanted)
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) != len(wanted):
            return f"{place}: {_shown(found)}, expected a list of {len(wanted)}"
        return _first(fault(a, b, f"{place}[{i}]") for i, (a, b) in enumerate(zip(found, wanted, strict=True)))
    if isinstance(wanted, float):
        if isinstance(found, int | float) and math.isclose(found, wanted, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
            return None
    elif found == wanted:
        return None
    return f"{place}: {_shown(found)}, expected {wanted!r}"


def _first(faults: Any) -> str | None:
    return next((one for one in faults if one is not None), None)


def _shown(found: Any) -> str:
    return repr(sorted(found) if isinstance(found, dict) else found)[:120]

"""Golden samples: inputs with every head's eager output, and the comparison of a graph's numbers with them.

The export's parity gate and the server's self-test at load compare by the same rules, so they stand here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import safetensors.numpy
from pydantic import Field

from polyhead.models.arrays import ArraySpec
from polyhead.models.spec import (
    ClassificationHead,
    EmbeddingHead,
    HeadSpec,
    MultilabelHead,
    OneShotHead,
    SegmentationHead,
    Strict,
    TokensHead,
)
from polyhead.models.textarray import array_to_texts, texts_to_array

__all__ = ["Array", "Golden", "Tolerance", "decisions", "difference", "fault", "one_by_one", "trimmed"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]


class Tolerance(Strict):
    """How far a graph's numbers may be from eager's: `|graph - eager| <= atol + rtol * scale`.

    The scale is the largest `|eager|` of that head in that row. Per element it would refuse sound graphs: a logit near
    zero is a difference of large sums, and its rounding error is as large as theirs. A vector's direction is the same
    where its cosine with eager's is at least `cosine`.
    """

    atol: float = Field(gt=0)
    rtol: float = Field(ge=0)
    cosine: float = Field(default=0.9999, gt=0, le=1)

    def on(self, device: str) -> Tolerance:
        """The same on a device: a GPU sums in another order, so ten times as far where fp32 is wanted.

        What half precision and int8 lose is more than that already.
        """
        if device == "cpu":
            return self
        atol, rtol = (max(own, min(own * 10, most)) for own, most in ((self.atol, 1e-4), (self.rtol, 1e-3)))
        return self.model_copy(update={"atol": atol, "rtol": rtol})


class Golden:
    """What the graph takes, by array, the texts it came from, and every head's output by eager PyTorch: the same rows.

    Padding is zeros in the outputs, as in the graphs.
    """

    def __init__(
        self,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        texts: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.inputs = dict(inputs)
        self.outputs = dict(outputs)
        self.texts = {name: list(values) for name, values in (texts or {}).items()}

    @property
    def rows(self) -> int:
        """How many samples there are."""
        return len(next(iter(self.inputs.values())))

    def dump(self) -> bytes:
        """As safetensors, keys `inputs/<array>`, `outputs/<head>` and `texts/<input>`."""
        arrays = {f"inputs/{name}": np.ascontiguousarray(a) for name, a in self.inputs.items()}
        arrays |= {f"outputs/{name}": np.ascontiguousarray(a) for name, a in self.outputs.items()}
        arrays |= {f"texts/{name}": texts_to_array(values) for name, values in self.texts.items()}
        return safetensors.numpy.save(arrays)

    @classmethod
    def load(cls, data: bytes) -> Self:
        """Read what `dump` wrote. Raises KeyError, ValueError or SafetensorError where it is something else."""
        parts: dict[str, dict[str, Array]] = {"inputs": {}, "outputs": {}, "texts": {}}
        for key, array in safetensors.numpy.load(data).items():
            part, _, name = key.partition("/")
            parts[part][name] = array
        if not parts["inputs"]:
            raise KeyError("inputs")
        texts = {name: array_to_texts(array) for name, array in parts["texts"].items()}
        return cls(parts["inputs"], parts["outputs"], texts)


def one_by_one(
    run: Callable[[dict[str, Array]], Mapping[str, Array]],
    inputs: Mapping[str, Array],
    arrays: Mapping[str, ArraySpec],
    together: Mapping[str, Array],
) -> dict[str, Array]:
    """The outputs of each row run alone and without padding, put together in the shapes of the rows run together."""
    rows = len(next(iter(inputs.values())))
    parts = ({name: np.ascontiguousarray(a[i : i + 1]) for name, a in inputs.items()} for i in range(rows))
    alone = [run(trimmed(part, arrays)) for part in parts]
    return {name: _stacked([outputs[name] for outputs in alone], together[name].shape[1:]) for name in together}


def trimmed(inputs: Mapping[str, Array], arrays: Mapping[str, ArraySpec]) -> dict[str, Array]:
    """The rows with their texts' common padding cut off; at least one token stays."""
    longest = {
        array.shape: int(np.flatnonzero(inputs[name].max(axis=0)).max(initial=0)) + 1
        for name, array in arrays.items()
        if array.role == "mask"
    }
    return {
        name: array if arrays[name].role == "value" else np.ascontiguousarray(array[:, : longest[arrays[name].shape]])
        for name, array in inputs.items()
    }


def _stacked(rows: Sequence[Array], shape: tuple[int, ...]) -> Array:
    """Outputs of single rows as one array of the rows' common shape, filled up with zeros."""
    stacked = np.zeros((len(rows), *shape), dtype=rows[0].dtype)
    for target, row in zip(stacked, rows, strict=True):
        target[tuple(slice(0, n) for n in row.shape[1:])] = row[0]
    return stacked


def difference(actual: Array, expected: Array) -> float:
    """The largest absolute difference; infinity where the shapes differ or a number is not finite."""
    if actual.shape != expected.shape or not np.isfinite(actual).all():
        return float("inf")
    return float(np.abs(actual.astype(np.float64) - expected.astype(np.float64)).max(initial=0.0))


def fault(head: HeadSpec, actual: Array, expected: Array, tolerance: Tolerance, agreement: float = 1.0) -> str | None:
    """What is wrong with a head's output beside eager's, in words; None where nothing is.

    Values first, then decisions: the label of the largest logit, the side of the threshold, the direction of a vector.
    Args:
        head: its spec.
        actual, expected: raw outputs `[rows, …]`, the graph's and eager's.
        tolerance: of values.
        agreement: the least share of clear decisions that must be eager's.
    """
    if actual.shape != expected.shape:
        return f"shape {list(actual.shape)}, eager has {list(expected.shape)}"
    for name, values in (("its", actual), ("eager's", expected)):
        if not np.isfinite(values).all():
            return f"{int((~np.isfinite(values)).sum())} of {name} values are not finite"
    wide, reference = actual.astype(np.float64), expected.astype(np.float64)
    error = np.abs(wide - reference)
    scale = np.abs(reference).reshape(len(reference), -1).max(axis=1, initial=0.0)
    allowed = (tolerance.atol + tolerance.rtol * scale).reshape(-1, *(1,) * (error.ndim - 1))
    beyond = error > allowed
    if beyond.any():
        row = int(np.argmax((error / allowed).reshape(len(error), -1).max(axis=1)))
        return (
            f"error {error[row].max():.3g} in row {row}, allowed {allowed[row].max():.3g} "
            f"({int(beyond.sum())} of {beyond.size} values beyond it)"
        )
    clear, same = decisions(head, wide, reference, tolerance)
    if same >= agreement * clear:
        return None
    wanted = "" if agreement == 1.0 else f", wanted {agreement:.2%} the same"
    return f"{clear - same} of {clear} clear decisions differ{wanted}"


def decisions(head: HeadSpec, actual: Array, expected: Array, tolerance: Tolerance) -> tuple[int, int]:
    """How many of eager's decisions are clear, and how many of these the graph makes too.

    A decision is the label of the largest logit, the side of the threshold, the direction of a vector; it is clear
    where eager's own margin is wider than twice the absolute tolerance. A regression decides nothing.
    """
    margin = 2 * tolerance.atol
    match head:
        case ClassificationHead() | TokensHead() | SegmentationHead():
            axis = 2 if isinstance(head, TokensHead) else 1
            top = np.sort(expected, axis=axis).take([-2, -1], axis=axis)
            clear = np.ptp(top, axis=axis) > margin
            same = actual.argmax(axis=axis) == expected.argmax(axis=axis)
        case MultilabelHead():
            threshold = np.clip(np.broadcast_to(np.asarray(head.threshold), (len(head.labels),)), 1e-12, 1 - 1e-12)
            logit = np.log(threshold / (1 - threshold))
            clear = np.abs(expected - logit) > margin
            same = (actual >= logit) == (expected >= logit)
        case EmbeddingHead() | OneShotHead():
            lengths = np.linalg.norm(actual, axis=1) * np.linalg.norm(expected, axis=1)
            cosine = (actual * expected).sum(axis=1) / np.maximum(lengths, 1e-30)
            clear = lengths > margin
            same = cosine >= tolerance.cosine
        case _:
            return 0, 0
    return int(clear.sum()), int((clear & same).sum())

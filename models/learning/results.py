"""What a finished run leaves: weights, and what its held-out rows came to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_model
from torch.utils.tensorboard import SummaryWriter

from polyhead.models.calling import Caller
from polyhead.models.data import Rows
from polyhead.models.learning.predicting import predict
from polyhead.models.learning.tensorboard import log_projector
from polyhead.models.metrics import computed, head_metrics, update
from polyhead.models.spec import EmbeddingHead, HeadSpec, ModelSpec, OneShotHead, TextInput
from polyhead.models.textarray import texts_to_array
from polyhead.models.tokenizer import Tokenizer

__all__ = ["SAMPLES", "measured", "project", "prototypes", "save", "save_tokenizers"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]

SAMPLES = 64  # held-out rows that a run keeps for the export's golden samples


def measured(
    heads: Mapping[str, HeadSpec],
    outputs: Mapping[str, Array],
    targets: Mapping[str, Array],
    means: Mapping[str, Array],
) -> dict[str, dict[str, float]]:
    """Each head's metrics over all rows; without those for which too few targets are known.

    Rows of a oneshot head are held against the prototypes that will be served, where there are such `means`.
    """
    found = {}
    for name, head in heads.items():
        metrics = head_metrics(head)
        update(head, metrics, torch.from_numpy(outputs[name]), torch.from_numpy(targets[name]))
        found[name] = {key: round(value, 4) for key, value in computed(metrics).items()}
        if name in means:
            found[name]["nearest_prototype_accuracy"] = round(_nearest(outputs[name], targets[name], means[name]), 4)
    return found


def _nearest(vectors: Array, classes: Array, prototypes: Array) -> float:
    """The share of rows with a class whose nearest prototype is that class's; one of NaN is nobody's."""
    is_known = classes >= 0
    distances = np.linalg.norm(vectors[is_known, None] - prototypes[None], axis=2)
    nearest = np.where(np.isnan(distances), np.inf, distances).argmin(axis=1)
    return float((nearest == classes[is_known]).mean()) if is_known.any() else 0.0


def prototypes(spec: ModelSpec, caller: Caller, rows: Rows, device: torch.device | str) -> dict[str, Array]:
    """Of each oneshot head with labels that was trained: every label's mean vector over the rows.

    Snell, Swersky & Zemel 2017, "Prototypical networks for few-shot learning".

    Returns:
        By head `float32 [labels, dim]`, a row of NaN where no row has the label, and by `<head>.examples` how many rows
        each is the mean of, `int64 [labels]`.
    """
    wanted = {name: head for name, head in caller.heads.items() if isinstance(head, OneShotHead) and head.labels}
    if not wanted:
        return {}
    vectors = predict(Caller(caller.network, spec, tuple(wanted)), rows, device)
    found: dict[str, Array] = {}
    for name, head in wanted.items():
        classes = rows.targets[name]
        means = np.full((len(head.labels), head.dim), np.nan, dtype=np.float32)
        for label in np.unique(classes[classes >= 0]):
            means[label] = vectors[name][classes == label].mean(axis=0)
        found[name] = means
        found[f"{name}.examples"] = np.bincount(classes[classes >= 0], minlength=len(head.labels)).astype(np.int64)
    return found


def save(
    out: Path,
    caller: Caller,
    raw: Rows,
    outputs: Mapping[str, Array],
    targets: Mapping[str, Array],
    means: Mapping[str, Array],
) -> None:
    """Write weights, samples, predictions and prototypes.

    Args:
        out: the run's directory.
        caller: with the network, on the CPU.
        raw: the held-out rows as they came.
        outputs: of every held-out row, by head.
        targets: likewise, as the losses take them.
        means: of prototypes; no file is written where there are none.
    """
    save_model(caller.network, str(out / "weights.safetensors"))
    samples = {
        name: texts_to_array(list(rows[:SAMPLES])) if rows.dtype == object else np.ascontiguousarray(rows[:SAMPLES])
        for name, rows in raw.inputs.items()
    }
    save_arrays(samples, out / "samples.safetensors")
    predictions = {f"{name}.outputs": np.ascontiguousarray(output) for name, output in outputs.items()}
    predictions |= {f"{name}.targets": np.ascontiguousarray(targets[name]) for name in outputs}
    save_arrays(predictions, out / "predictions.safetensors")
    if means:
        save_arrays(dict(means), out / "prototypes.safetensors")


def project(
    out: Path, heads: Mapping[str, HeadSpec], raw: Rows, outputs: Mapping[str, Array], targets: Mapping[str, Array]
) -> None:
    """Write the vectors of embedding and oneshot heads for TensorBoard's projector, each at its class."""
    images = [
        raw.inputs[name] for name in raw.inputs if raw.inputs[name].dtype == np.uint8 and raw.inputs[name].ndim == 4
    ]
    with SummaryWriter(str(out / "tensorboard")) as writer:
        for name, head in heads.items():
            if isinstance(head, EmbeddingHead | OneShotHead):
                names = dict(enumerate(head.labels if isinstance(head, OneShotHead) else ()))
                labels = ["?" if index < 0 else names.get(index, str(index)) for index in targets[name].tolist()]
                log_projector(writer, name, outputs[name], labels, images[0] if len(images) == 1 else None)


def save_tokenizers(out: Path, spec: ModelSpec, tokenizers: Mapping[str, Tokenizer]) -> None:
    """Write each text input's tokenizer beside the spec, where the spec says it is."""
    for name, tokenizer in tokenizers.items():
        value = spec.inputs[name]
        assert isinstance(value, TextInput)
        path = out / value.tokenizer
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tokenizer.data)

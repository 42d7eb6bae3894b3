"""Run directories as training leaves them, with made-up numbers."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from polyhead.models.recipe import Recipe
from polyhead.models.run import Parameters, Run, RunRecord
from polyhead.models.spec import ModelSpec

METRICS = {
    "classification": ("accuracy", "f1"),
    "multilabel": ("f1", "exact_match"),
    "regression": ("mae", "r2"),
    "tokens": ("span_f1", "token_accuracy"),
    "embedding": ("nearest_neighbour_accuracy",),
    "oneshot": ("nearest_prototype_accuracy",),
    "segmentation": ("iou", "pixel_accuracy"),
}

HEADS = {
    "intent": {"kind": "classification", "labels": ["light_on", '<b>bold</b> & "bad"', "dimmé", "日本 $x$ 😀"]},
    "alerts": {"kind": "multilabel", "labels": ["smoke", "never"], "threshold": [0.5, 0.9]},
    "temperature": {"kind": "regression", "unit": "<°C>", "description": "set <script>alert(1)</script>"},
    "slots": {"kind": "tokens", "labels": ["O", "B-room", "I-room", "B-time"]},
    "sentence": {"kind": "embedding", "dim": 8},
    "person": {"kind": "oneshot", "dim": 8, "labels": ["anna", "böb"]},
    "region": {"kind": "segmentation", "labels": ["background", "road"]},
}

ROWS = 24


def spec_of(heads=HEADS, **changes):
    return ModelSpec.parse(
        {
            "name": "synthetic",
            "version": "1.0",
            "inputs": {
                "text": {"kind": "text", "tokenizer": "tokenizer.json"},
                "image": {"kind": "image", "size": [6, 8], "channels": "rgb"},
            },
            "heads": heads,
            **changes,
        }
    )


def write_run(folder: Path, spec: ModelSpec | None = None, epochs: int = 3) -> Run:
    """A finished run with everything that a page can show."""
    spec = spec or spec_of()
    folder.mkdir(parents=True, exist_ok=True)
    history = [_entry(spec, epoch, epochs) for epoch in range(1, epochs + 1)]
    (folder / "history.json").write_text(json.dumps(history))
    random = np.random.default_rng(0)
    arrays = {}
    for head, content in spec.heads.items():
        outputs, targets = outcome(content, random)
        arrays[f"{head}.outputs"] = np.ascontiguousarray(outputs, dtype=np.float32)
        arrays[f"{head}.targets"] = np.ascontiguousarray(targets)
    save_file(arrays, folder / "predictions.safetensors")
    save_file({"image": random.integers(0, 256, (4, 6, 8, 3), dtype=np.uint8)}, folder / "samples.safetensors")
    (folder / "weights.safetensors").touch()
    record = RunRecord(
        factory="module:network",
        recipe=Recipe(loss_weights={next(iter(spec.heads)): 2.5}),
        data="0" * 64,
        epochs=epochs,
        best_epoch=max(1, epochs - 1),
        monitor="loss",
        score=1.25,
        seconds=12.5,
        parameters=Parameters(total=22713216, trunk=22000000, heads=dict.fromkeys(spec.heads, 99), trainable=713216),
        metrics={h: dict.fromkeys(METRICS[c.kind], 0.9375) for h, c in spec.heads.items()},
        versions={"torch": "2.13.0"},
    )
    run = Run(folder, record, spec)
    run.write()
    return run


def outcome(head, random):
    """Outputs that are mostly right, and targets of which some are missing."""
    match head.kind:
        case "classification" | "embedding" | "oneshot":
            count = len(head.labels) if head.kind != "embedding" else 2
            targets = random.integers(-1, count, ROWS)
            outputs = random.normal(size=(ROWS, head.dim if head.kind != "classification" else count))
            outputs[np.arange(ROWS), targets.clip(0)] += 3
        case "multilabel":
            targets = (random.random((ROWS, len(head.labels))) < 0.4).astype(np.float32)
            outputs = (targets - 0.5) * 4 + random.normal(size=targets.shape)
            targets[0] = np.nan
        case "regression":
            targets = random.normal(20, 4, (ROWS, head.dim)).astype(np.float32)
            outputs = targets + random.normal(size=targets.shape)
            targets[0] = np.nan
        case "tokens":
            targets = random.integers(-1, len(head.labels), (ROWS, 5))
            outputs = random.normal(size=(ROWS, 5, len(head.labels)))
        case "segmentation":
            targets = random.integers(-1, len(head.labels), (ROWS, 6, 8))
            outputs = random.normal(size=(ROWS, len(head.labels), 6, 8))
    return outputs, targets


def _entry(spec, epoch, epochs):
    losses = {head: (index + 1) / epoch for index, head in enumerate(spec.heads)}
    tasks = sorted(spec.heads)
    return {
        "epoch": epoch,
        "steps": 10 * epoch,
        "seconds": 1.5,
        "loss": {"train": 10 / epoch, "validation": 11 / epoch},
        "train": losses,
        "validation": {
            head: {"loss": 1.1 * loss, **dict.fromkeys(METRICS[spec.heads[head].kind], 1 - 0.5 / epoch)}
            for head, loss in losses.items()
        },
        "weights": dict.fromkeys(spec.heads, 1.0),
        "learning_rates": {"trunk": 1e-5, "heads": 1e-3},
        "trainable": 713216,
        "gradients": {
            "norms": dict.fromkeys(tasks, 1 / epoch),
            "cosines": {f"{a}|{b}": epoch / epochs - 0.5 for i, a in enumerate(tasks) for b in tasks[i + 1 :]},
        },
    }

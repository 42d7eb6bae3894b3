"""How well classes are told apart that were enrolled from one example, or five, and never trained on."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from polyhead.export.source import from_run
from polyhead.models.preprocess import Preprocess
from polyhead.models.run import Run
from polyhead.models.zoo import digits_oneshot
from polyhead.serving.golden import Array
from polyhead.serving.prototypes import Prototypes

__all__ = ["accuracies", "measure", "table"]

DRAWS = 20
SHOTS = (1, 5)


def measure(runs: Mapping[int, Sequence[Run]]) -> dict[str, list[float]]:
    """Accuracies of every draw of every seed, by `<examples> <what tells them apart> <among which>`.

    Raw pixels, each picture scaled to length 1, tell the new digits apart too: what is learnt has to beat them.
    """
    found: dict[str, list[float]] = {}
    for seed, (run,) in runs.items():
        vectors, classes, trained = embedded(run, seed)
        images = digits_oneshot.new(seed).inputs["image"].reshape(len(classes), -1).astype(np.float32)
        pixels = images / np.linalg.norm(images, axis=1, keepdims=True)
        for shots in SHOTS:
            ways = {
                "learnt new": (vectors, Prototypes.empty(vectors.shape[1])),
                "pixels new": (pixels, Prototypes.empty(pixels.shape[1])),
                "learnt all": (vectors, trained),
            }
            for way, (rows, prototypes) in ways.items():
                found.setdefault(f"{shots} {way}", []).extend(accuracies(rows, classes, prototypes, shots, seed))
    return found


def embedded(run: Run, seed: int) -> tuple[Array, Array, Prototypes]:
    """Every row of the new classes as the model's vectors, with its class; and the prototypes of the trained ones."""
    source = from_run(run.folder)
    rows = digits_oneshot.new(seed)
    spec = source.spec.inputs["image"]
    prepared = Preprocess({"image": spec})({"image": torch.from_numpy(rows.inputs["image"])})
    with torch.inference_mode():
        vectors = source.network(**prepared)["sign"].numpy()
    return vectors, rows.targets["sign"], source.prototypes["sign"]


def accuracies(vectors: Array, classes: Array, trained: Prototypes, shots: int, seed: int) -> list[float]:
    """The share of rows whose nearest prototype is their class's, for each draw of the examples; these not counted."""
    generator = np.random.default_rng([seed, shots])
    results = []
    for _ in range(DRAWS):
        prototypes, used = trained, np.zeros(len(classes), dtype=bool)
        for index, label in enumerate(digits_oneshot.NEW):
            examples = generator.choice(np.flatnonzero(classes == index), shots, replace=False)
            prototypes = prototypes.enrol(label, vectors[examples])
            used[examples] = True
        nearest = prototypes.distances(vectors[~used]).argmin(axis=1)
        wanted = np.array([prototypes.labels.index(digits_oneshot.NEW[i]) for i in classes[~used]])
        results.append(float((nearest == wanted).mean()))
    return results


def table(found: Mapping[str, Sequence[float]]) -> str:
    """A Markdown table."""
    count = len(next(iter(found.values())))
    lines = [
        f"Digits 7, 8 and 9, in no training row of any head, enrolled without training: {DRAWS} draws of the",
        f"examples a seed, {count} in all; accuracy over all other rows of these digits, mean ± standard deviation",
        "over the draws. `pixels` is the nearest mean of the raw pictures, without any model.",
        "",
        "| examples of each | by | to tell apart | accuracy | worst draw |",
        "| ---: | --- | --- | ---: | ---: |",
    ]
    for key, values in found.items():
        shots, by, place = key.split(" ")
        among = "the three new digits" if place == "new" else "all ten digits"
        mean, deviation = statistics.fmean(values), statistics.stdev(values)
        lines.append(f"| {shots} | {by} | {among} | {mean:.3f} ± {deviation:.3f} | {min(values):.3f} |")
    return "\n".join(lines) + "\n\n"

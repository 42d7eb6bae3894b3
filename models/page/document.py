"""A run's page: `report.html`, one file that needs no other, and `report.png`, its plots on one sheet."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from polyhead.models.markup import facts, flat, metric_rows, opening, paragraph, said, table
from polyhead.models.page.canvas import figure, pixels, png, printable, styled
from polyhead.models.page.evidence import Evidence
from polyhead.models.page.panels import Panel, panels
from polyhead.models.run import Run, RunRecord
from polyhead.models.spec import ModelSpec

__all__ = ["write_page"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]

COLUMNS = 2  # of the sheet
MARGIN = 24  # pixels between its plots


def write_page(run: Run) -> Path:
    """Draw what a run left in its directory, and write `report.html` and `report.png` into it.

    What a run does not have has no place on the page: without `history.json` there are no curves, without
    `predictions.safetensors` no verdicts on the test rows, without measured gradients no conflicts.

    Returns:
        The path of `report.html`.

    Raises:
        RunError: one of the run's files is damaged.
    """
    evidence = Evidence.of(run)
    with styled():
        drawn = list(panels(evidence))
        sheet = _sheet(evidence.spec, drawn)
    (run.folder / "report.png").write_bytes(png(sheet))
    path = run.folder / "report.html"
    path.write_text("\n".join(_html(evidence, drawn)) + "\n", encoding="utf-8")
    return path


def _html(evidence: Evidence, drawn: Sequence[Panel]) -> Iterator[str]:
    spec, record = evidence.spec, evidence.record
    yield from opening(f"{spec.name} {spec.version}: training report")
    yield f"<h1>{escape(spec.name)} <small>{escape(spec.version)}, training report</small></h1>"
    yield paragraph(spec.description)
    yield facts(_facts(record))
    yield "<h2>Metrics on the test rows</h2>"
    yield table(("head", "metric", "value"), metric_rows(spec, record.metrics))
    yield from _plots("All tasks", "", [panel for panel in drawn if panel.head is None])
    for head, content in spec.heads.items():
        about = f"{content.kind}{'. ' if content.description else ''}{content.description}"
        yield from _plots(head, about, [panel for panel in drawn if panel.head == head])
    details = record.model_dump(mode="json", include={"parameters", "recipe", "versions"})
    for name, values in details.items():
        yield f"<h2>{name.capitalize()}</h2>"
        yield table(("", ""), [(place, said(value)) for place, value in flat(values)])
    yield f"<footer>Factory: {escape(record.factory)}</footer></body></html>"


def _facts(record: RunRecord) -> Iterator[tuple[str, str]]:
    """What a reader looks for first."""
    yield "parameters", said(record.parameters.total)
    yield "of them learnt", said(record.parameters.trainable)
    yield "seconds", said(record.seconds)
    yield "epochs", said(record.epochs)
    yield "best epoch", said(record.best_epoch)
    yield f"validation {record.monitor}", said(record.score)


def _plots(title: str, about: str, drawn: Sequence[Panel]) -> Iterator[str]:
    if drawn:
        yield f"<h2>{escape(title)}</h2>{paragraph(about)}"
        yield f'<div class="plots">{"".join(map(_plot, drawn))}</div>'


def _plot(panel: Panel) -> str:
    height, width = panel.image.shape[:2]
    data = base64.b64encode(png(panel.image)).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
        f'alt="{escape(panel.words)}"></figure>'
    )


def _sheet(spec: ModelSpec, drawn: Sequence[Panel]) -> Array:
    """The plots on white under the model's name, each head's in a row of its own."""
    title = figure(0.5)
    title.text(0.01, 0.3, printable(f"{spec.name} {spec.version}"), fontsize=14)
    rows = [[pixels(title)]]
    for _, group in groupby(drawn, key=lambda panel: panel.head):
        images = [panel.image for panel in group]
        rows += [images[start : start + COLUMNS] for start in range(0, len(images), COLUMNS)]
    width = rows[0][0].shape[1] + MARGIN
    heights = [max(image.shape[0] for image in row) for row in rows]
    sheet = np.full((sum(heights) + MARGIN * (len(rows) + 1), COLUMNS * width + MARGIN, 3), 255, np.uint8)
    top = MARGIN
    for row, height in zip(rows, heights, strict=True):
        for column, image in enumerate(row):
            left = MARGIN + column * width
            sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
        top += height + MARGIN
    return sheet

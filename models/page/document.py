"""A run's page: `report.html`, one file that needs no other, and `report.png`, its plots on one sheet."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from polyhead.models.page.canvas import figure, pixels, png, printable, styled
from polyhead.models.page.evidence import Evidence
from polyhead.models.page.panels import Panel, panels
from polyhead.models.run import Run, RunRecord
from polyhead.models.spec import HeadSpec, ModelSpec, RegressionHead

__all__ = ["write_page"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]

COLUMNS = 2  # of the sheet
MARGIN = 24  # pixels between its plots
SPACE = "\N{NARROW NO-BREAK SPACE}"  # between thousands

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 90rem; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a;
  background: #fff; }
h1, h2, p, dd, footer { overflow-wrap: anywhere; }
h1 { margin: 0; font-size: 1.6rem; } h1 small { color: #595959; font-weight: normal; }
h2 { margin: 2.2rem 0 .6rem; font-size: 1.2rem; border-bottom: 2px solid #0072b2; }
p { margin: .3rem 0 .8rem; max-width: 50rem; }
.facts { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0; padding: 0; }
.facts div { background: #f2f5f8; border-radius: .4rem; padding: .4rem .9rem; }
.facts dt { font-size: .8rem; color: #595959; } .facts dd { margin: 0; font-size: 1.1rem; font-weight: 600; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; flex: 1 1 26rem; min-width: 0; max-width: 48rem; }
img { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid #e4e4e4; vertical-align: top; }
td.value { font-variant-numeric: tabular-nums; }
footer { margin-top: 2rem; color: #595959; font-size: .85rem; }
""".strip()


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
    title = escape(f"{spec.name} {spec.version}")
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    # Nothing is loaded from anywhere, whatever a label may hold.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{title}: training report</title><style>{STYLE}</style></head><body>"
    yield f"<h1>{escape(spec.name)} <small>{escape(spec.version)}, training report</small></h1>"
    yield _paragraph(spec.description)
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in _facts(record))
    yield f'<dl class="facts">{facts}</dl>'
    yield "<h2>Metrics on the test rows</h2>"
    yield _table(("head", "metric", "value"), _metrics(spec, record))
    yield from _plots("All tasks", "", [panel for panel in drawn if panel.head is None])
    for head, content in spec.heads.items():
        about = f"{content.kind}{'. ' if content.description else ''}{content.description}"
        yield from _plots(head, about, [panel for panel in drawn if panel.head == head])
    details = record.model_dump(mode="json", include={"parameters", "recipe", "versions"})
    for name, values in details.items():
        yield f"<h2>{name.capitalize()}</h2>"
        yield _table(("", ""), [(place, _said(value)) for place, value in _flat(values)])
    yield f"<footer>Factory: {escape(record.factory)}</footer></body></html>"


def _facts(record: RunRecord) -> Iterator[tuple[str, str]]:
    """What a reader looks for first."""
    yield "parameters", _said(record.parameters.total)
    yield "of them learnt", _said(record.parameters.trainable)
    yield "seconds", _said(record.seconds)
    yield "epochs", _said(record.epochs)
    yield "best epoch", _said(record.best_epoch)
    yield f"validation {record.monitor}", _said(record.score)


def _metrics(spec: ModelSpec, record: RunRecord) -> Iterator[tuple[str, ...]]:
    for head, values in record.metrics.items():
        content = spec.heads[head]
        for place, (name, value) in enumerate(values.items()):
            yield "" if place else head, name.replace("_", " "), f"{_said(value)}{_unit(content, name)}"


def _unit(head: HeadSpec, metric: str) -> str:
    return f" {head.unit}" if isinstance(head, RegressionHead) and metric == "mae" and head.unit else ""


def _plots(title: str, about: str, drawn: Sequence[Panel]) -> Iterator[str]:
    if drawn:
        yield f"<h2>{escape(title)}</h2>{_paragraph(about)}"
        yield f'<div class="plots">{"".join(map(_plot, drawn))}</div>'


def _plot(panel: Panel) -> str:
    height, width = panel.image.shape[:2]
    data = base64.b64encode(png(panel.image)).decode()
    return (
        f'<figure><img src="data:image/png;base64,{data}" width="{width}" height="{height}" '
        f'alt="{escape(panel.words)}"></figure>'
    )


def _paragraph(text: str) -> str:
    return f"<p>{escape(text)}</p>" if text else ""


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose last column holds values."""
    head = f"<tr>{''.join(f'<th>{escape(name)}</th>' for name in names)}</tr>" if any(names) else ""
    body = "".join(
        f'<tr>{"".join(f"<td>{escape(cell)}</td>" for cell in row[:-1])}<td class="value">{escape(row[-1])}</td></tr>'
        for row in rows
    )
    return f'<div class="wide"><table>{head}{body}</table></div>'


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in nested mappings, with its place: `loss_weights / ink`."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{place} / {key}" if place else str(key))
    else:
        yield place, value


def _said(value: Any) -> str:
    """A value as a reader wants it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", SPACE) if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value)) or "none"
    return "none" if value is None or value == {} else str(value)


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

"""What every page of ours is made of: its look, its tables, its numbers in words. HTML that needs no other file.

Texts are escaped here, so that nothing a spec says is taken for markup; what is markup is `Markup`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from polyhead.models.spec import ModelSpec, RegressionHead

__all__ = [
    "STYLE",
    "Markup",
    "facts",
    "flat",
    "metric_rows",
    "opening",
    "paragraph",
    "rounded",
    "said",
    "table",
    "written",
]

SPACE = "\N{NARROW NO-BREAK SPACE}"  # between thousands, and before a unit
PREFIXES = ("", "k", "M", "G", "T", "P")

STYLE = """
:root { color-scheme: light; --paper: #fff; --ink: #1a1a1a; --quiet: #595959; --line: #e4e4e4; --card: #f2f5f8;
  --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 90rem; padding: 1rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--paper); }
h1, h2, p, dd, footer { overflow-wrap: anywhere; }
h1 { margin: 0; font-size: 1.6rem; } h1 small { color: var(--quiet); font-weight: normal; }
h2 { margin: 2.2rem 0 .6rem; font-size: 1.2rem; border-bottom: 2px solid var(--accent); }
p { margin: .3rem 0 .8rem; max-width: 50rem; }
.facts { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1rem 0; padding: 0; }
.facts div { background: var(--card); border-radius: .4rem; padding: .4rem .9rem; }
.facts dt { font-size: .8rem; color: var(--quiet); } .facts dd { margin: 0; font-size: 1.1rem; font-weight: 600; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; }
figure { margin: 0; flex: 1 1 26rem; min-width: 0; max-width: 48rem; }
img { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; } table { border-collapse: collapse; }
th, td { padding: .25rem .9rem .25rem 0; text-align: left; border-bottom: 1px solid var(--line); vertical-align: top; }
td.value { font-variant-numeric: tabular-nums; }
footer { margin-top: 2rem; color: var(--quiet); font-size: .85rem; }
""".strip()


class Markup(str):
    """HTML that is written as it stands."""

    __slots__ = ()


def written(text: str) -> Markup:
    """A text as HTML; markup is that already."""
    return text if isinstance(text, Markup) else Markup(escape(text))


def opening(title: str, style: str = STYLE) -> Iterator[str]:
    """Everything of a page up to its body's first element."""
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    # Nothing is loaded from anywhere, whatever a label may hold.
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escape(title)}</title><style>{style}</style></head><body>"


def paragraph(text: str) -> Markup:
    """A text; nothing where it is empty."""
    return Markup(f"<p>{written(text)}</p>" if text else "")


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Names and values that a reader looks for first."""
    cards = "".join(f"<div><dt>{written(name)}</dt><dd>{written(value)}</dd></div>" for name, value in pairs)
    return Markup(f'<dl class="facts">{cards}</dl>')


def table(names: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "", values: int = 1) -> Markup:
    """A table that scrolls by itself where it is wider than the page.

    Args:
        names: of the columns; no heading where all are empty.
        rows: a text per column.
        caption: what it shows.
        values: how many columns, the last ones, hold values.
    """
    head = "".join(f'<th scope="col">{written(name)}</th>' for name in names)
    head = f"<thead><tr>{head}</tr></thead>" if any(names) else ""
    body = "".join(f"<tr>{_cells(row, len(row) - values)}</tr>" for row in rows)
    titled = f"<caption><span>{written(caption)}</span></caption>" if caption else ""
    # What scrolls can be reached by the keyboard, and says what it is.
    reached = f' role="region" tabindex="0" aria-label="{escape(caption)}"' if caption else ""
    return Markup(f'<div class="wide"{reached}><table>{titled}{head}<tbody>{body}</tbody></table></div>')


def _cells(row: Sequence[str], first: int) -> str:
    """A row whose values begin at a column."""
    kinds = ("" if place < first else ' class="value"' for place in range(len(row)))
    return "".join(f"<td{kind}>{written(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))


def metric_rows(spec: ModelSpec, metrics: Mapping[str, Mapping[str, float]]) -> Iterator[tuple[str, ...]]:
    """Head, metric and value, each head named once; an error in a regression's own unit."""
    for head, values in metrics.items():
        content = spec.heads[head]
        unit = content.unit if isinstance(content, RegressionHead) else ""
        for place, (name, value) in enumerate(values.items()):
            own = f" {unit}" if unit and name == "mae" else ""
            yield "" if place else head, name.replace("_", " "), f"{said(value)}{own}"


def flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in nested mappings, with its place: `loss_weights / ink`."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{place} / {key}" if place else str(key))
    else:
        yield place, value


def said(value: Any) -> str:
    """A value as a reader wants it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}".replace(",", SPACE) if abs(value) >= 10_000 else str(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(said, value)) or "none"
    return "none" if value is None or value == {} else str(value)


def rounded(value: float, unit: str = "") -> str:
    """A number in three digits: `1.23 M`, `340 kB`; whole below a thousand."""
    power = 0
    while abs(value) >= 999.5 and power < len(PREFIXES) - 1:
        value, power = value / 1000, power + 1
    digits = f"{value:.0f}" if power == 0 or value >= 99.95 else f"{value:.2f}" if value < 9.995 else f"{value:.1f}"
    suffix = f"{PREFIXES[power]}{unit}"
    return f"{digits}{SPACE}{suffix}" if suffix else digits

"""Forms of Grafana's panels: lines, a figure, bars of a histogram, a table."""

from __future__ import annotations

from typing import Any

SOURCE = {"type": "prometheus", "uid": "${source}"}
Target = tuple[str, str]  # a query, and the legend of what it gives
Panel = dict[str, Any]


def panel(kind: str, title: str, targets: list[Target], unit: str, about: str, **more: Any) -> Panel:
    """Any panel: what it asks, its unit, and what a reader should know of it."""
    defaults = {"unit": unit, "custom": {}, **more.pop("defaults", {})}
    instant = kind != "timeseries" and kind != "heatmap"
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": SOURCE,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": SOURCE,
                "expr": query,
                "legendFormat": legend,
                **({"instant": True, "range": False} if instant else {"range": True}),
                **({"format": "heatmap"} if kind == "heatmap" else {"format": "table"} if kind == "table" else {}),
            }
            for number, (query, legend) in enumerate(targets)
        ],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        **more,
    }


def lines(title: str, targets: list[Target], unit: str, about: str, stack: bool = False, **defaults: Any) -> Panel:
    """Values over time."""
    custom = {"lineWidth": 1, "fillOpacity": 20 if stack else 5, "showPoints": "never", "spanNulls": 60000}
    custom |= {"stacking": {"mode": "normal"}} if stack else {}
    options = {
        "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel(
        "timeseries", title, targets, unit, about, defaults={"custom": custom, "min": 0, **defaults}, options=options
    )


def figure(title: str, query: str, unit: str, about: str, steps: list[tuple[float | None, str]]) -> Panel:
    """One number on a colour, which changes at each step."""
    thresholds = {"mode": "absolute", "steps": [{"value": value, "color": color} for value, color in steps]}
    options = {"colorMode": "background", "graphMode": "area", "reduceOptions": {"calcs": ["lastNotNull"]}}
    return panel("stat", title, [(query, "")], unit, about, defaults={"thresholds": thresholds}, options=options)


def bars(title: str, query: str, about: str) -> Panel:
    """How a histogram's buckets fill over time."""
    options = {"calculate": False, "yAxis": {"unit": "short"}, "color": {"scheme": "Blues", "mode": "scheme"}}
    return panel("heatmap", title, [(query, "{{le}}")], "short", about, options=options)

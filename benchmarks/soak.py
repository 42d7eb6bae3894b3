"""The samples of a soak: how fast each role grows, and a plot. `python -m benchmarks.soak SAMPLES.json PLOT.png`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["main", "slopes"]

WARM_UP = 1 / 3  # of the run: Java's heap and the allocators' pools fill before they stay as they are
KINDS = {"mib": "resident memory, MiB", "fds": "descriptors", "threads": "threads"}


def series(samples: Sequence[Mapping[str, Any]], role: str, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and values of one role."""
    there = [one for one in samples if role in one["roles"]]
    return np.array([one["seconds"] for one in there]), np.array([one["roles"][role][kind] for one in there])


def slopes(samples: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """By role, MiB an hour that its memory grows by after the warm-up: the median of all pairs' slopes (Theil, Sen).

    A median, for a garbage collection makes steps that a fit by least squares takes for a trend.
    """
    found = {}
    for role in samples[-1]["roles"]:
        seconds, values = series(samples, role, "mib")
        late = seconds >= WARM_UP * seconds[-1]
        x, y = seconds[late], values[late]
        first, second = np.triu_indices(len(x), 1)
        found[role] = float(np.median((y[second] - y[first]) / (x[second] - x[first]))) * 3600 if len(x) > 1 else 0.0
    return found


def main(source: str, target: str) -> None:
    """Draw the samples."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    content = json.loads(Path(source).read_text(encoding="utf-8"))
    samples, roles = content["samples"], sorted(content["samples"][-1]["roles"])
    growth = slopes(samples)
    figure, axes = pyplot.subplots(len(KINDS), 1, figsize=(8, 9), sharex=True, layout="constrained")
    for axis, (kind, title) in zip(axes, KINDS.items(), strict=True):
        for role in roles:
            seconds, values = series(samples, role, kind)
            label = f"{role} ({growth[role]:+.1f} MiB/h)" if kind == "mib" else role
            axis.plot(seconds / 60, values, label=label)
        axis.set_ylabel(title)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].legend(loc="upper center", ncols=len(roles), fontsize="small")
    axes[0].set_ylim(top=axes[0].get_ylim()[1] * 1.15)
    axes[-1].set_xlabel("minutes")
    figure.suptitle(f"{content['figures']['requests']} requests in {content['figures']['seconds']} s")
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The workers' counts as metric families: summed over workers, those that have ended counted on."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from polyhead.serving.golden import Array
from polyhead.serving.metrics.cells import CellsFile
from polyhead.serving.metrics.families import FAMILIES, OTHER, Series

__all__ = ["LABELS", "Workers"]

LABELS = 100  # label values of one head that have a series of their own; of more, those that were answered first
MODEL = ("model", "version")

logger = logging.getLogger(__name__)

# A series of all workers: model, version, and what it is; cells lie elsewhere in another worker.
Key = tuple[str, str, str, tuple[tuple[str, str], ...]]


class Workers(Collector):
    """Reads the workers' files whenever it is asked.

    Args:
        folder: where the workers write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._known: dict[str, CellsFile] = {}
        self._ended: dict[Key, tuple[Series, Array]] = {}  # the last counts of workers that are no more, in sum
        self._starts: dict[tuple[str, str], int] = {}
        self._shown: dict[Key, dict[str, None]] = {}

    def describe(self) -> list[Metric]:
        """Nothing: the families are the workers' own, and known once they run."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every family that there is to tell of."""
        with self._lock:
            found, alive = self._read()
            families = [*self._families(found), *self._about(alive)]
        yield from families

    def _read(self) -> tuple[dict[Key, tuple[Series, Array]], list[tuple[CellsFile, psutil.Process]]]:
        """The sums by series, and the workers that live. A worker that has ended is added to `_ended`, once."""
        alive, counts = [], []
        for file in CellsFile.all_in(self.folder, self._known):
            process = file.process()  # before the cells are read: what ends later is read again
            if process is not None:
                alive.append((file, process))
                counts.append((file, file.read()))
                continue
            _add(self._ended, file, file.read())
            model = (file.about.model, file.about.version)
            self._starts[model] = self._starts.get(model, 0) + 1
            file.path.unlink()
            del self._known[file.path.name]
        sums = {key: (series, cells.copy()) for key, (series, cells) in self._ended.items()}
        for file, cells in counts:
            _add(sums, file, cells)
        return sums, alive

    def _families(self, found: dict[Key, tuple[Series, Array]]) -> Iterator[Metric]:
        for family, text in FAMILIES.items():
            parts = {key: value for key, value in found.items() if key[2] == family}
            if not parts:
                continue
            series = next(iter(parts.values()))[0]
            names = (*MODEL, *series.labels, *([series.over] if series.over else []))
            metric = (HistogramMetricFamily if series.bounds else CounterMetricFamily)(family, text, labels=names)
            for key, (one, cells) in parts.items():
                values = [*key[:2], *one.labels.values()]
                if isinstance(metric, HistogramMetricFamily):
                    metric.add_metric(values, _buckets(one, cells), float(cells[-1]))
                elif one.over:
                    for name, count in self._by_name(key, one, cells).items():
                        metric.add_metric([*values, name], count)
                else:
                    metric.add_metric(values, float(cells[0]))
            yield metric

    def _by_name(self, key: Key, series: Series, cells: Array) -> dict[str, float]:
        """A labelled counter's values; of very many labels those that were seen first, the others in one."""
        counts = dict(zip(series.names, cells.tolist(), strict=True))
        if len(counts) <= LABELS:
            return counts
        shown = self._shown.setdefault(key, {})
        for name, count in counts.items():
            if count and len(shown) < LABELS:
                shown[name] = None
        rest = sum(count for name, count in counts.items() if name not in shown)
        return {name: counts[name] for name in shown} | {OTHER: rest}

    def _about(self, alive: Sequence[tuple[CellsFile, psutil.Process]]) -> Iterator[Metric]:
        yield InfoMetricFamily("polyhead_build", "What is installed", _build())
        bundle = InfoMetricFamily("polyhead_bundle", "What answers", labels=MODEL)
        told = {(*file.labels().values(), *file.about.bundle.items()): file for file, _ in alive}
        for file in told.values():
            bundle.add_metric([*file.labels().values()], file.about.bundle)
        yield bundle
        workers: dict[tuple[str, str], int] = dict.fromkeys(self._starts, 0)
        for file, _ in alive:
            model = (file.about.model, file.about.version)
            workers[model] = workers.get(model, 0) + 1
        up = GaugeMetricFamily("polyhead_workers", "Workers that have loaded the model and run", labels=MODEL)
        starts = CounterMetricFamily("polyhead_worker_starts", "Workers that have loaded the model", labels=MODEL)
        for (name, version), count in workers.items():
            up.add_metric([name, version], count)
            starts.add_metric([name, version], count + self._starts.get((name, version), 0))
        yield from (up, starts)
        yield from _resources(alive)


def _add(sums: dict[Key, tuple[Series, Array]], file: CellsFile, cells: Array) -> None:
    about = file.about
    for series in about.series:
        key = (about.model, about.version, series.family, tuple(series.labels.items()))
        part = cells[series.place]
        known = sums.get(key)
        if known is None:
            sums[key] = (series, part.copy())
        elif (known[0].names, known[0].bounds) == (series.names, series.bounds):
            known[1][:] += part
        else:  # a worker of another release or bundle: its numbers are of other labels
            logger.warning("%s: counts of %s are of other labels, and left out", file.path.name, series.family)


def _buckets(series: Series, cells: Array) -> list[tuple[str, float]]:
    """Cumulated counts by upper bound, as Prometheus has them."""
    bounds = [*(f"{bound:.12g}" for bound in series.bounds), "+Inf"]
    return list(zip(bounds, np.cumsum(cells[:-1]).tolist(), strict=True))


def _build() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("polyhead", "torchserve", "onnxruntime-gpu", "torch"):
        with suppress(importlib.metadata.PackageNotFoundError):
            name = "version" if package == "polyhead" else package.partition("-")[0]
            found[name] = importlib.metadata.version(package)
    return found


def _resources(alive: Sequence[tuple[CellsFile, psutil.Process]]) -> Iterator[Metric]:
    """Memory, descriptors, threads and processor time of each worker that lives."""
    labels = (*MODEL, "pid")
    memory = GaugeMetricFamily("polyhead_worker_resident_memory_bytes", "Memory of a worker", labels=labels)
    files = GaugeMetricFamily("polyhead_worker_open_files", "Descriptors that a worker holds open", labels=labels)
    threads = GaugeMetricFamily("polyhead_worker_threads", "Threads of a worker", labels=labels)
    seconds = CounterMetricFamily("polyhead_worker_cpu_seconds", "Processor time of a worker", labels=labels)
    for file, process in alive:
        values = [*file.labels().values(), str(process.pid)]
        with suppress(psutil.Error), process.oneshot():  # it may end at any moment
            times = process.cpu_times()
            rss, descriptors, number = process.memory_info().rss, process.num_fds(), process.num_threads()
            memory.add_metric(values, rss)
            files.add_metric(values, descriptors)
            threads.add_metric(values, number)
            seconds.add_metric(values, times.user + times.system)
    yield from (memory, files, threads, seconds)

"""Readiness: each model's golden samples, sent through the real path again and again, and held to eager's numbers.

Neither a process nor TorchServe is asked how it is: both say that all is well while nothing answers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import httpx
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import GoldenMismatch, LaunchError, NoAnswer, Overloaded, PolyheadError
from polyhead.serving.served import Served
from polyhead.serving.torchserve.readiness import GoldenSamples

__all__ = ["Health", "ModelHealth", "Prober"]

PATIENCE = 3  # intervals without a right answer, after which a model is not ready
CLOSE_SECONDS = 1.0
AGAIN = 20  # times an interval that a sample which met a full queue is sent again
REST = 4  # times the time that a sample takes is at least left to others before the next one

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelHealth:
    """What is known of one version.

    Attributes:
        ready: whether it has answered right not too long ago.
        age: seconds since then; None where the last answer was wrong, or there was none.
        seconds: that the last right answer took.
        fault: what was wrong with the last try; None where nothing was.
        failures: tries that failed, a full queue not counted.
    """

    name: str
    version: str
    ready: bool
    age: float | None
    seconds: float
    fault: str | None
    failures: int


@dataclass(frozen=True)
class Health:
    """What is known of the server.

    Attributes:
        starting: whether models are still being loaded.
        draining: whether it is about to stop.
    """

    starting: bool
    draining: bool
    models: tuple[ModelHealth, ...] = field(default_factory=tuple)

    @property
    def ready(self) -> bool:
        """Whether requests should come here: every model answers, and nobody has asked the server to stop."""
        return not self.starting and not self.draining and all(model.ready for model in self.models)


class _Watch:
    """One version's samples in turn, in a thread."""

    def __init__(self, served: Served, url: str, interval: float, answered: Callable[[Bundle], float]) -> None:
        self._samples = GoldenSamples(served.bundle, served.graph, served.device)
        self._url, self._interval, self._answered = url, interval, answered
        self._good: float | None = time.monotonic()  # it was proven before it came here
        self._seconds, self._fault, self._failures = 0.0, None, 0  # type: float, str | None, int
        self._fastest = float("inf")  # of the right answers, in seconds: the others waited for requests before them
        self._row, self._before = 0, 0.0  # the next sample, and how many requests were answered at the last one
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"probe {served.bundle.title}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        # Less than half of the time after which a model is not ready: then there is time to see that it answers others.
        with httpx.Client(timeout=PATIENCE / 2 * self._interval, trust_env=False) as client:
            pause = self._interval
            while not self._closed.wait(pause):
                try:
                    pause = self._probe(client)
                except Exception as error:
                    logger.exception("the golden sample of %s could not be sent or read", self._samples.bundle.title)
                    self._failed(LaunchError(f"the golden sample could not be sent or read: {error!r}"))
                    pause = self._interval

    def _probe(self, client: httpx.Client) -> float:
        """Send the next sample; returns after how many seconds the one after it is due."""
        started = time.monotonic()
        try:
            self._samples.replay(client, self._url, self._row % self._samples.rows)
        except Overloaded as error:  # says nothing of the model: there is time to try again
            self._fault = str(error)
            self._get_on()
            return self._interval / AGAIN
        except PolyheadError as error:
            self._failed(error)
            if isinstance(error, NoAnswer):  # a long queue looks like this too
                self._get_on()
        else:
            self._row += 1
            self._good = time.monotonic()
            self._seconds, self._fault = self._good - started, None
            self._fastest = min(self._fastest, self._seconds)
            self._before = self._answered(self._samples.bundle)  # this one was among them
        return max(self._interval / AGAIN, started + self._period - time.monotonic())

    @property
    def _period(self) -> float:
        """Seconds between two samples: a slow model shall not be busy with them alone."""
        return self._interval if self._fastest == float("inf") else max(self._interval, (1 + REST) * self._fastest)

    def _get_on(self) -> None:
        """Where the model has answered more requests than before, its workers are well, if busy."""
        before, self._before = self._before, self._answered(self._samples.bundle)
        if self._before > before and self._good is not None:
            self._good = time.monotonic()

    def _failed(self, error: PolyheadError) -> None:
        if self._closed.is_set():
            return
        self._failures += 1
        self._fault = str(error)
        if isinstance(error, GoldenMismatch):  # worse than no answer: clients get such ones too
            self._good = None

    def health(self, bundle: Bundle) -> ModelHealth:
        """What is known now."""
        good = self._good
        age = None if good is None else time.monotonic() - good
        ready = age is not None and age <= PATIENCE * self._period
        spec = bundle.spec
        return ModelHealth(spec.name, spec.version, ready, age, self._seconds, self._fault, self._failures)

    def close(self) -> None:
        """Ask no more."""
        self._closed.set()
        self._thread.join(CLOSE_SECONDS)  # one that waits for an answer that never comes ends by itself


class Prober(Collector):
    """Asks every version that it is told of.

    Args:
        interval: seconds between two samples of one version.
        answered: how many requests a version has answered: while its queue is full, that it gets on is enough.
    """

    def __init__(self, interval: float, answered: Callable[[Bundle], float] = lambda _: 0.0) -> None:
        self._interval, self._answered = interval, answered
        self._lock = threading.Lock()
        self._watched: dict[str, tuple[Bundle, _Watch]] = {}
        self._starting, self._draining = True, False

    def watch(self, served: Served, url: str) -> None:
        """Begin to ask a version that has just been proven.

        Args:
            served: the version.
            url: of what clients reach it through.
        """
        with self._lock:
            self._watched[served.bundle.title] = (served.bundle, _Watch(served, url, self._interval, self._answered))

    def forget(self, bundle: Bundle) -> None:
        """Ask a version no more. Safe to call again."""
        with self._lock:
            found = self._watched.pop(bundle.title, None)
        if found is not None:
            found[1].close()

    def started(self) -> None:
        """From now on the server may be ready."""
        self._starting = False

    def drain(self) -> None:
        """From now on it is not."""
        self._draining = True

    def health(self) -> Health:
        """What is known of every version, now."""
        with self._lock:
            watched = list(self._watched.values())
        return Health(self._starting, self._draining, tuple(watch.health(bundle) for bundle, watch in watched))

    def describe(self) -> list[Metric]:
        """Nothing: models come and go."""
        return []

    def collect(self) -> Iterable[Metric]:
        """What is known of every version, for Prometheus."""
        health, labels = self.health(), ("model", "version")
        server = GaugeMetricFamily("polyhead_ready", "Whether the server wants requests")
        server.add_metric([], health.ready)
        ready = GaugeMetricFamily("polyhead_model_ready", "Whether a model answers its golden samples", labels=labels)
        seconds = GaugeMetricFamily("polyhead_probe_seconds", "Time of the last golden sample's answer", labels=labels)
        failures = CounterMetricFamily(
            "polyhead_probe_failures", "Golden samples without a right answer", labels=labels
        )
        for model in health.models:
            values = [model.name, model.version]
            ready.add_metric(values, model.ready)
            seconds.add_metric(values, model.seconds)
            failures.add_metric(values, model.failures)
        return server, ready, seconds, failures

    def close(self) -> None:
        """Ask nobody any more. Safe to call again."""
        with self._lock:
            watched, self._watched = list(self._watched.values()), {}
        for _, watch in watched:
            watch.close()

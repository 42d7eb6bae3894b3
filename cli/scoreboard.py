"""What a person sees of a scoring job: a bar and a line a worker on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from polyhead.cli.console import note

if TYPE_CHECKING:
    from polyhead.serving.scoring.progress import Progress
    from polyhead.serving.scoring.report import Report
    from polyhead.serving.scoring.tally import Tally

__all__ = ["Scoreboard", "duration", "scoreboard", "summary"]

PLAIN_SECONDS = 5.0  # between two lines where nobody can see a bar move
WINDOW = 20.0  # seconds that the rate is taken over
WORKERS_SHOWN = 16
BAR_WIDTH = 20


class Scoreboard:
    """Gathers what the driver tells, and puts it into words.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = clock()
        self._tally: Tally | None = None
        self._workers: dict[int, Progress] = {}
        self._seen: deque[tuple[float, int]] = deque()
        self._speeds: dict[int, tuple[float, float]] = {}
        self.notes: list[str] = []

    def told(self, news: Progress | Tally) -> None:
        """Take in one piece of news."""
        from polyhead.serving.scoring.tally import Tally

        now = self._clock()
        if isinstance(news, Tally):
            self._tally = news
        else:
            self._time(news, now)
            self._workers[news.worker] = news
            if news.note:
                self.notes.append(f"worker {news.worker}: {news.note}")
        if self._tally is not None:
            self._seen.append((now, self.done))
            while len(self._seen) > 2 and now - self._seen[0][0] > WINDOW:
                self._seen.popleft()

    def _time(self, news: Progress, now: float) -> None:
        """Since when a worker is on its unit, and how many rows a second it has done of it."""
        before = self._workers.get(news.worker)
        if before is None or before.ordinal != news.ordinal or news.worker not in self._speeds:
            self._speeds[news.worker] = (now, 0.0)
            return
        since, _ = self._speeds[news.worker]
        self._speeds[news.worker] = (since, news.rows / (now - since) if now > since else 0.0)

    @property
    def done(self) -> int:
        """Rows that are committed, and those that workers have done of units in hand."""
        committed = 0 if self._tally is None else self._tally.done
        working = sum(progress.rows for progress in self._workers.values() if progress.ordinal is not None)
        return committed + working

    @property
    def share(self) -> float:
        """Of all rows, done; 0 to 1."""
        total = 0 if self._tally is None else self._tally.total
        return min(1.0, self.done / total) if total else 0.0

    @property
    def rate(self) -> float:
        """Rows a second, lately."""
        if len(self._seen) < 2:
            return 0.0
        (then, before), (now, done) = self._seen[0], self._seen[-1]
        return max(0.0, (done - before) / (now - then)) if now > then else 0.0

    def headline(self) -> str:
        """Everything in one line."""
        if self._tally is None:
            return "planning"
        tally = self._tally
        words = f"{min(self.done, tally.total):,} of {tally.total:,} rows"
        if self.rate:
            left = max(0, tally.total - self.done) / self.rate
            words += f", {self.rate:,.0f} rows/s, {duration(left)} left"
        if tally.quarantined:
            words += f", {tally.quarantined:,} quarantined"
        return words

    def lines(self) -> list[str]:
        """A line for each worker."""
        shown = [self._line(self._workers[number]) for number in sorted(self._workers)[:WORKERS_SHOWN]]
        hidden = len(self._workers) - len(shown)
        return [*shown, *([f"and {hidden} more workers"] if hidden > 0 else [])]

    def _line(self, progress: Progress) -> str:
        if progress.ordinal is None:
            waits = progress.state == "scoring"
            return f"worker {progress.worker}: {'between two units' if waits else progress.state}"
        words = f"worker {progress.worker}: unit {progress.ordinal}, {progress.rows:,} of {progress.total:,} rows"
        _, speed = self._speeds.get(progress.worker, (0.0, 0.0))
        if speed:
            words += f", {speed:,.0f} rows/s, {duration(max(0, progress.total - progress.rows) / speed)} left"
        return words + (f", {progress.stage}" if progress.stage else "")


@contextmanager
def scoreboard(console: Console | None = None) -> Iterator[Callable[[Progress | Tally], None]]:
    """Shows what it is told, while the job runs."""
    console = console or Console(stderr=True)
    board = Scoreboard()
    if console.is_terminal:
        with Live(console=console, refresh_per_second=8, transient=True) as live:
            yield lambda news: _shown(board, live, news)
        return
    last = [board._clock()]

    def say(news: Progress | Tally) -> None:
        board.told(news)
        _said(board)
        now = time.monotonic()
        if now - last[0] >= PLAIN_SECONDS:
            last[0] = now
            note(board.headline())

    yield say


def _said(board: Scoreboard) -> None:
    for line in board.notes:
        note(line)
    board.notes.clear()


def _shown(board: Scoreboard, live: Live, news: Progress | Tally) -> None:
    board.told(news)
    for line in board.notes:
        live.console.print(line, highlight=False, markup=False)
    board.notes.clear()
    head = Table.grid(padding=(0, 1))
    head.add_row(ProgressBar(total=1.0, completed=board.share, width=BAR_WIDTH), Text(board.headline()))
    live.update(Group(head, *(Text(f"  {line}", style="dim") for line in board.lines())))


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def summary(report: Report) -> list[str]:
    """What was done; the last line holds all that a log must keep."""
    lines = []
    for example in report.examples:
        place = f"{example['file']}, row {example['row']}"
        lines.append(f"quarantined, for example: {place}: {example['stage']}/{example['type']}: {example['message']}")
    if report.resumed:
        lines.append(f"{report.resumed:,} of {report.units:,} units were done before")
    if report.fresh:
        lines.append(f"{report.fresh:,} rows in {duration(report.seconds)}, {report.rows_per_second:,.0f} rows/s")
    return [*lines, _last(report)]


def _last(report: Report) -> str:
    words = f"{report.destination}: {report.scored:,} of {report.rows:,} rows scored"
    if report.filtered:
        words += f", {report.filtered:,} left out by the filter"
    if report.quarantined:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in report.faults.items())
        words += f", {report.quarantined:,} quarantined in _quarantine/ ({kinds})"
    return words

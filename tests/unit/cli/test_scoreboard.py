"""What a person sees of a scoring job."""

from __future__ import annotations

import io

from rich.console import Console

from polyhead.cli.scoreboard import Scoreboard, duration, scoreboard, summary
from polyhead.serving.scoring.progress import Progress
from polyhead.serving.scoring.report import Report
from polyhead.serving.scoring.tally import Tally


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def told(*news: tuple[float, Progress | Tally]) -> Scoreboard:
    clock = Clock()
    board = Scoreboard(clock)
    for now, piece in news:
        clock.now = 100.0 + now
        board.told(piece)
    return board


def test_before_the_plan_there_is_nothing_to_count():
    board = Scoreboard()
    assert board.headline() == "planning"
    assert (board.done, board.share, board.rate) == (0, 0.0, 0.0)
    assert board.lines() == []


def test_the_headline_counts_committed_rows_and_those_in_hand():
    board = told(
        (0, Tally(10_000, scored=1000, resumed=1000)),
        (0, Progress(0, "scoring", 1, 0, 1000, "read")),
        (2, Progress(0, "scoring", 1, 500, 1000, "forward")),
        (2, Tally(10_000, scored=1480, quarantined=20, resumed=1000)),
    )
    assert board.done == 1500 + 500
    assert board.share == 0.2
    assert board.rate == 500.0
    assert board.headline() == "2,000 of 10,000 rows, 500 rows/s, 16 s left, 20 quarantined"


def test_rows_of_earlier_runs_are_not_in_the_rate():
    board = told((0, Tally(100, scored=90, resumed=90)), (5, Tally(100, scored=95, resumed=90)))
    assert board.rate == 1.0


def test_every_worker_has_its_line_with_its_own_rate_and_what_is_left_of_its_unit():
    board = told(
        (0, Progress(1, "scoring", 7, 0, 100)),
        (0, Progress(0, "starting")),
        (4, Progress(1, "scoring", 7, 40, 100, "forward")),
    )
    assert board.lines() == ["worker 0: starting", "worker 1: unit 7, 40 of 100 rows, 10 rows/s, 6 s left, forward"]


def test_a_new_unit_begins_a_new_rate():
    board = told(
        (0, Progress(0, "scoring", 1, 0, 9)), (1, Progress(0, "scoring", 1, 9, 9)), (2, Progress(0, "scoring", 2, 3, 9))
    )
    assert board.lines() == ["worker 0: unit 2, 3 of 9 rows"]


def test_many_workers_do_not_fill_the_screen():
    board = told(*[(0, Progress(number, "starting")) for number in range(40)])
    assert len(board.lines()) == 17
    assert board.lines()[-1] == "and 24 more workers"


def test_where_nobody_sees_a_bar_there_are_plain_lines(capsys):
    with scoreboard(Console(file=io.StringIO())) as watch:
        watch(Tally(10))
        watch(Progress(0, "restarting", note="died of SIGSEGV"))
    assert capsys.readouterr().err == "worker 0: died of SIGSEGV\n"


def test_on_a_terminal_notes_stay_and_the_bar_goes():
    file = io.StringIO()
    with scoreboard(Console(file=file, force_terminal=True, width=100)) as watch:
        watch(Tally(10, scored=5))
        watch(Progress(3, "restarting", note="died of SIGSEGV"))
    assert "worker 3: died of SIGSEGV" in file.getvalue()
    assert "5 of 10 rows" in file.getvalue()


def test_durations_are_read_at_a_glance():
    assert [duration(s) for s in (0.4, 59, 200, 7500)] == ["0 s", "59 s", "3 min 20 s", "2 h 05 min"]


def report(**changes: object) -> Report:
    values = {
        "destination": "out", "job": "1", "rows": 1000, "scored": 990, "quarantined": 10, "filtered": 0,
        "faults": {"read/unreadable": 7, "decode/invalid_instance": 3},
        "examples": ({"file": "a.csv", "row": 4, "stage": "read", "type": "unreadable", "message": "no"},),
        "parts": 2, "units": 2, "resumed": 1, "fresh": 500, "seconds": 2.0,
    }  # fmt: skip
    return Report(**{**values, **changes})


def test_the_last_line_says_how_many_of_which_kind_and_where():
    assert summary(report()) == [
        "quarantined, for example: a.csv, row 4: read/unreadable: no",
        "1 of 2 units were done before",
        "500 rows in 2 s, 250 rows/s",
        "out: 990 of 1,000 rows scored, 10 quarantined in _quarantine/ (read/unreadable 7, decode/invalid_instance 3)",
    ]


def test_nothing_is_said_of_what_did_not_happen():
    done = report(scored=900, quarantined=0, filtered=100, faults={}, examples=(), resumed=2, fresh=0)
    assert summary(done)[-1] == "out: 900 of 1,000 rows scored, 100 left out by the filter"
    assert summary(done)[:-1] == ["2 of 2 units were done before"]

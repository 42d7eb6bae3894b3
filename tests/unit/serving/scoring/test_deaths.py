"""What is learnt from each death of a worker, without one having to die."""

from __future__ import annotations

import pytest

from polyhead.serving.scoring.beats import Place
from polyhead.serving.scoring.deaths import Deaths
from polyhead.serving.scoring.errors import UnitFailed
from polyhead.serving.scoring.faults import Stage
from polyhead.serving.scoring.journal import Step
from polyhead.serving.scoring.process import Death
from polyhead.serving.scoring.units import InputFile, Unit

UNIT = Unit(4, (InputFile("in/a.parquet", 1, "v"),), 1_000, 500)


def at(stage: Stage, number: int, row: int | None = None, thread: int = 1) -> Place:
    return Place(thread, Step(stage, number), row)


def death(*places: Place, cause: str = "SIGSEGV", sure: bool = True, said: str = "") -> Death:
    return Death(cause, sure, places, said)


def test_every_thread_is_suspected_but_the_reader() -> None:
    deaths = Deaths(UNIT)
    here = death(at("read", 9, thread=1), at("decode", 7, thread=2), at("forward", 5, thread=3), sure=False)
    deaths.add(here)
    assert deaths.care == {}
    assert deaths.add(here).endswith("decode 7, forward 5 will be done row by row")
    assert deaths.care == {Step("decode", 7): "first", Step("forward", 5): "first"}


def test_only_what_was_there_both_times_is_suspected() -> None:
    deaths = Deaths(UNIT)
    deaths.add(death(at("decode", 7), at("forward", 5)))
    deaths.add(death(at("decode", 8), at("forward", 5)))
    assert deaths.care == {Step("forward", 5): "first"}


def test_a_row_is_only_blamed_twice_where_others_may_have_killed() -> None:
    deaths = Deaths(UNIT)
    for _ in range(2):
        deaths.add(death(at("forward", 5)))
    killed = {"cause": "SIGKILL", "sure": False}
    deaths.add(death(at("forward", 5, 40), **killed))
    deaths.add(death(at("forward", 5, 41), **killed))
    assert deaths.killers == {}
    assert deaths.add(death(at("forward", 5, 41), **killed)).endswith("row 41 is quarantined")
    fault = deaths.killers[41]
    assert (fault.row, fault.stage, fault.type, fault.attempts) == (41, "forward", "crashed", 5)
    assert "died of it (SIGKILL), in stage forward, with this row alone" in fault.message


def test_the_last_row_told_of_is_not_blamed_where_all_rows_live_alone() -> None:
    deaths = Deaths(UNIT)
    for _ in range(3):
        deaths.add(death(at("forward", 5)))
    assert deaths.care == {Step("forward", 5): "alone"}
    last = death(at("forward", 5, 99))
    deaths.add(last)
    deaths.add(last)
    with pytest.raises(UnitFailed, match="SIGSEGV in forward 5"):
        deaths.add(last)
    assert deaths.killers == {}


def test_killed_from_outside_is_not_taken_for_rows_that_die_together() -> None:
    deaths = Deaths(UNIT)
    for _ in range(3):
        deaths.add(death(at("forward", 5), cause="SIGKILL", sure=False))
    assert deaths.care == {Step("forward", 5): "first"}


def test_it_ends_after_three_deaths_that_teach_nothing() -> None:
    deaths = Deaths(UNIT)
    deaths.add(death(at("read", 2)))
    deaths.add(death(at("read", 2)))
    with pytest.raises(UnitFailed) as caught:
        deaths.add(death(at("read", 2), said="one\ncorrupt page"))
    assert str(caught.value) == (
        "unit 4 (in/a.parquet, rows 1000 to 1499): 3 workers died of it, the last of SIGSEGV in read 2; "
        "it said: corrupt page: look at these rows, then go on with --resume"
    )


def test_want_of_memory_is_named() -> None:
    deaths = Deaths(UNIT)
    killed = death(cause="SIGKILL", sure=False)
    deaths.add(killed)
    deaths.add(killed)
    with pytest.raises(UnitFailed, match="too little memory: fewer --workers"):
        deaths.add(killed)

"""Milliseconds: every part, by turns, on this machine."""

from __future__ import annotations

import time

from polyhead.export.report.times import FEW, ROUNDS, interleaved, measure
from polyhead.serving.bundle import Bundle
from tests.unit.export.report.wild import HEADS


def test_every_part_and_the_fused_graph_are_timed_at_every_batch_size(wild):
    times = measure(wild, 1, (1, 8))
    assert times.threads == 1
    assert "onnxruntime" in times.machine
    assert set(times.whole) == {1, 8}
    assert set(times.parts) == {"trunk", *(f"heads/{head}" for head in HEADS)} == set(wild.manifest.parts)
    assert all(set(found) == {1, 8} for found in times.parts.values())
    assert all(0 < seconds < 1 for found in (times.whole, *times.parts.values()) for seconds in found.values())


def test_a_bundle_that_was_not_split_has_times_of_the_fused_graph_alone(wild):
    fused = tuple(graph for graph in wild.manifest.graphs if graph.part == "fused")
    bundle = Bundle(wild.folder, wild.manifest.model_copy(update={"graphs": fused}), wild.digest)
    times = measure(bundle, 1, (1,))
    assert set(times.whole) == {1}
    assert times.parts == {}


def test_a_bundle_without_onnx_graphs_has_no_times(wild):
    other = tuple(graph.model_copy(update={"format": "program"}) for graph in wild.manifest.graphs)
    bundle = Bundle(wild.folder, wild.manifest.model_copy(update={"graphs": other}), wild.digest)
    times = measure(bundle, 1)
    assert (times.whole, times.parts) == ({}, {})


def test_parts_take_turns_and_the_median_is_that_of_the_rounds():
    calls: list[str] = []

    def sleeping(name: str, seconds: float):
        def run() -> None:
            calls.append(name)
            time.sleep(seconds)

        return run

    found = interleaved({"a": sleeping("a", 0.012), "b": sleeping("b", 0.024)})
    assert found["a"] >= 0.012  # no upper bound: the machine may be busy
    assert found["b"] >= 0.024
    assert calls[-2 * ROUNDS :] == ["a", "b"] * ROUNDS


def test_a_slow_part_is_visited_less_often():
    calls: list[float] = []

    def slow() -> None:
        calls.append(time.perf_counter())
        time.sleep(1.01 if len(calls) == 3 else 0)  # the pass that decides how many rounds are made

    interleaved({"slow": slow})
    assert len(calls) == 3 + FEW


def test_nothing_to_time_takes_no_time():
    assert interleaved({}) == {}

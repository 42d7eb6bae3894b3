"""Answers counted by route and status, from lines as nginx writes them."""

from __future__ import annotations

import os

import pytest

from polyhead.serving.frontdoor.counts import SECONDS, Counts
from tests.server import eventually


@pytest.fixture
def counts(tmp_path):
    made = Counts(tmp_path)
    made.open()
    yield made
    made.close()


def values(counts: Counts, name: str) -> dict[tuple[str, ...], float]:
    samples = [sample for family in counts.collect() for sample in family.samples if sample.name == name]
    return {tuple(sample.labels.values()): sample.value for sample in samples}


def test_lines_are_added_up_wherever_they_are_cut(counts):
    pipe = os.open(counts.path, os.O_WRONLY)
    try:
        text = b"predict 200 0.003\n" * 40 + b"predict 503 0.000\nhealth 200 0.001\nother 404 0.000\nnonsense\n"
        text += b"predict 499 12.500\npredict 200 61.000\n"
        for start in range(0, len(text), 7):
            os.write(pipe, text[start : start + 7])
    finally:
        os.close(pipe)
    name = "polyhead_front_requests_total"
    assert eventually(lambda: values(counts, name)["predict", "200"] == 41)
    answers = values(counts, name)
    assert answers["predict", "503"] == answers["predict", "499"] == 1
    assert (answers["health", "200"], answers["other", "404"]) == (1, 1)
    assert answers["predict", "429"] == 0, "a series that matters is there before its first answer"
    buckets = values(counts, "polyhead_front_request_seconds_bucket")
    labels = {key[-1]: value for key, value in buckets.items()} | {key[0]: value for key, value in buckets.items()}
    assert (labels["0.0025"], labels["0.005"], labels["10.0"], labels["30.0"], labels["+Inf"]) == (1, 41, 41, 42, 43)
    assert len(buckets) == len(SECONDS) + 1
    (total,) = values(counts, "polyhead_front_request_seconds_sum").values()
    assert total == pytest.approx(40 * 0.003 + 12.5 + 61)


def test_more_lines_than_a_pipe_holds_are_all_read(counts):
    pipe = os.open(counts.path, os.O_WRONLY)
    for _ in range(200):
        os.write(pipe, b"predict 200 0.001\n" * 200)
    os.close(pipe)
    assert eventually(lambda: values(counts, "polyhead_front_requests_total")["predict", "200"] == 40_000)


def test_it_can_be_closed_twice_and_before_it_was_opened(tmp_path):
    never = Counts(tmp_path / "nowhere")
    never.close()
    made = Counts(tmp_path)
    made.open()
    made.close()
    made.close()
    assert values(made, "polyhead_front_requests_total")["predict", "200"] == 0

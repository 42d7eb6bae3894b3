"""Digits that no head was trained on, enrolled from examples."""

from __future__ import annotations

import statistics

import numpy as np
import pytest
import torch

from benchmarks.oneshot import DRAWS, embedded, measure
from polyhead.models.reference import load
from polyhead.models.run import Run
from polyhead.models.zoo import digits_oneshot
from tests.command import run_polyhead


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits_oneshot"
    run_polyhead("train", "digits_oneshot", "--out", folder)
    return Run.open(folder)


def test_no_head_ever_sees_a_digit_that_is_to_be_new():
    parts = digits_oneshot.split(0).parts()
    assert set(parts) == {"train", "validation", "test"}
    for part in parts.values():
        assert set(np.unique(part.targets["sign"])) == set(range(7))
        assert len(part.targets["ink"]) == len(part)
    new = digits_oneshot.new(0)
    assert set(np.unique(new.targets["sign"])) == {0, 1, 2}
    seen = {row.tobytes() for part in parts.values() for row in part.inputs["image"]}
    assert not [row for row in new.inputs["image"] if row.tobytes() in seen]


def test_new_digits_are_known_from_one_example_and_better_from_five(run):
    found = measure({0: [run]})
    means = {key: statistics.fmean(values) for key, values in found.items()}
    assert {len(values) for values in found.values()} == {DRAWS}
    assert means["1 learnt new"] >= 0.75
    assert means["5 learnt new"] >= 0.88
    assert means["5 learnt all"] < means["5 learnt new"]
    for shots in (1, 5):  # what is learnt is worth more than the picture itself
        assert means[f"{shots} learnt new"] > means[f"{shots} pixels new"]


def test_the_trained_digits_are_enrolled_with_the_run(run):
    _, _, trained = embedded(run, 0)
    assert trained.labels == digits_oneshot.KNOWN
    counts = np.bincount(digits_oneshot.split(0).train.targets["sign"])
    assert trained.examples.tolist() == counts.tolist()


def test_imagined_signs_are_classes_of_their_own():
    rows = digits_oneshot.split(0).train
    inputs = {"image": torch.from_numpy(rows.inputs["image"][:64])}
    targets = {name: torch.from_numpy(column[:64]) for name, column in rows.targets.items()}
    before = {name: column.clone() for name, column in targets.items()}
    image = inputs["image"].clone()
    changed, learnt = digits_oneshot.imagine(inputs, targets, torch.Generator().manual_seed(0))
    assert torch.equal(inputs["image"], image)
    assert all(torch.equal(targets[name], before[name]) for name in before)
    assert torch.equal(learnt["sign"] % 7, before["sign"])
    assert learnt["sign"].max() >= 7
    assert changed["image"].dtype == torch.uint8
    untouched = ~torch.isnan(learnt["ink"][:, 0])
    assert torch.equal(learnt["ink"][untouched], before["ink"][untouched])


def test_a_turn_is_a_turn_and_loses_no_pixel():
    image = torch.arange(64, dtype=torch.uint8).reshape(1, 8, 8, 1).repeat(8, 1, 1, 1)
    turned = digits_oneshot.turned(image, torch.arange(8))
    assert len({row.numpy().tobytes() for row in turned}) == 8
    assert all(sorted(row.flatten().tolist()) == list(range(64)) for row in turned)
    assert torch.equal(turned[0], image[0])


def test_half_of_another_digit_is_the_same_digits_half_throughout_the_batch():
    sign = torch.arange(14) % 7
    image = (sign * 10 + 1).to(torch.uint8)[:, None, None, None].expand(14, 8, 8, 1).contiguous()
    for seed in range(6):
        mixed = digits_oneshot.combined(image, sign, torch.Generator().manual_seed(seed))
        assert all(torch.equal(mixed[row], mixed[row + 7]) for row in range(7))


def test_the_model_is_in_the_zoo():
    assert load("digits_oneshot").spec.heads["sign"].kind == "oneshot"

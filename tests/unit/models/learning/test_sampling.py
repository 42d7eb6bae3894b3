import numpy as np
import pytest

from polyhead.models.learning.sampling import WINDOW, grouped, order, shares
from polyhead.models.learning.seeds import epoch_seed
from polyhead.models.spec import SpecError

# 100 rows: 80 for `large`, 20 for `small`, 10 of them for both; 10 for none.
LARGE, SMALL = np.arange(100) < 80, (np.arange(100) >= 70) & (np.arange(100) < 90)
BOTH = {"large": LARGE, "small": SMALL}


def test_shuffle_gives_every_row_once_and_another_order_each_epoch():
    shuffled = order("shuffle", 100, BOTH, 0)
    assert sorted(shuffled(0)) == sorted(shuffled(1)) == list(range(100))
    assert not np.array_equal(shuffled(0), shuffled(1))
    assert not np.array_equal(shuffled(0), np.arange(100))


@pytest.mark.parametrize("sampling", ["shuffle", "proportional", "balanced"])
def test_the_order_follows_from_seed_and_epoch_alone(sampling):
    one, two, other = (order(sampling, 100, BOTH, seed) for seed in (3, 3, 4))
    one(0), one(1)  # what came before does not matter
    assert np.array_equal(one(5), two(5))
    assert not np.array_equal(one(5), other(5))
    assert not np.array_equal(one(5), one(6))


@pytest.mark.parametrize(
    ("sampling", "temperature", "drawn"),
    [
        ("balanced", 1, {"large": 50, "small": 50}),
        ("proportional", 1, {"large": 80, "small": 20}),
        ("proportional", 2, {"large": 67, "small": 33}),
    ],
)
def test_an_epoch_draws_so_many_rows_for_each_task(sampling, temperature, drawn):
    # Rows that are the task's alone tell for whom a row was drawn.
    alone = {"large": np.arange(100) < 80, "small": np.arange(100) >= 80}
    counts = np.zeros(100)
    epochs = 20
    for epoch in range(epochs):
        index = order(sampling, 100, alone, 0, temperature)(epoch)
        assert len(index) == 100
        counts += np.bincount(index, minlength=100)
    assert {task: round(counts[known].sum() / epochs) for task, known in alone.items()} == drawn


def test_no_row_comes_again_before_all_of_its_task_have_come():
    alone = {"large": np.arange(100) < 80, "small": np.arange(100) >= 80}
    counts = np.bincount(order("balanced", 100, alone, 0)(0), minlength=100)
    assert set(counts[:80]) == {0, 1}  # 50 of 80
    assert set(counts[80:]) == {2, 3}  # 50 of 20


def test_rows_without_labels_are_never_drawn_for_a_task():
    for sampling in ("proportional", "balanced"):
        assert order(sampling, 100, BOTH, 0)(0).max() < 90


def test_tasks_are_mixed_within_an_epoch():
    index = order("balanced", 100, {"a": np.arange(100) < 50, "b": np.arange(100) >= 50}, 0)(0)
    assert 15 < (index[:50] < 50).sum() < 35


@pytest.mark.parametrize("sampling", ["proportional", "balanced"])
def test_a_task_without_rows_is_refused(sampling):
    with pytest.raises(
        SpecError, match=rf"^sampling: {sampling}, but no training row has labels for 'none': leave that"
    ):
        order(sampling, 100, {**BOTH, "none": np.zeros(100, bool)}, 0)
    assert len(order("shuffle", 100, {**BOTH, "none": np.zeros(100, bool)}, 0)(0)) == 100


@pytest.mark.parametrize(
    ("sampling", "temperature", "expected"),
    [
        ("proportional", 1.0, [0.9, 0.09, 0.01]),
        ("balanced", 1.0, [1 / 3, 1 / 3, 1 / 3]),
        ("proportional", 2.0, [30 / 43.487, 9.4868 / 43.487, 4 / 43.487 * 0.79057]),
    ],
)
def test_shares_by_hand(sampling, temperature, expected):
    found = shares(sampling, {"a": 900, "b": 90, "c": 10}, temperature)
    assert list(found.values()) == pytest.approx(expected, rel=2e-2)
    assert sum(found.values()) == pytest.approx(1)


def test_a_high_temperature_comes_near_to_balance():
    found = shares("proportional", {"a": 900, "b": 10}, 1e6)
    assert list(found.values()) == pytest.approx([0.5, 0.5], abs=1e-4)


# Lengths


@pytest.fixture
def lengths():
    return np.random.default_rng(0).integers(2, 40, 1003)


def test_grouped_rows_are_the_same_rows_in_batches_of_about_one_length(lengths):
    plain = order("shuffle", len(lengths), {}, 0)
    index = grouped(plain, lengths, 8, 0)(0)
    assert sorted(index) == list(range(len(lengths)))

    def padding(rows):
        return (
            sum(lengths[rows[i : i + 8]].max() * len(rows[i : i + 8]) for i in range(0, len(rows), 8)) - lengths.sum()
        )

    assert padding(index) < 0.2 * padding(plain(0))


def test_grouped_batches_are_shuffled_and_others_each_epoch(lengths):
    drawn = grouped(order("shuffle", len(lengths), {}, 0), lengths, 8, 0)
    longest = [lengths[drawn(0)[i : i + 8]].max() for i in range(0, 1000, 8)]
    assert np.corrcoef(longest, np.arange(len(longest)))[0, 1] < 0.3  # not from short to long
    first, second = ({frozenset(drawn(e)[i : i + 8]) for i in range(0, 1000, 8)} for e in (0, 1))
    assert len(first & second) < 5
    assert np.array_equal(drawn(1), grouped(order("shuffle", len(lengths), {}, 0), lengths, 8, 0)(1))


def test_grouping_sorts_among_neighbours_of_the_given_order_only():
    lengths = np.arange(64 * WINDOW) % 7
    drawn = grouped(lambda _epoch: np.arange(64 * WINDOW), lengths, 4, 0)(0)
    windows = {tuple(sorted({row // (4 * WINDOW) for row in drawn[i : i + 4]})) for i in range(0, len(drawn), 4)}
    assert all(len(window) == 1 for window in windows)


@pytest.mark.parametrize("count", [1, 3, 8, 9])
def test_few_rows_are_grouped_too(count):
    assert sorted(grouped(order("shuffle", count, {}, 0), np.arange(count), 8, 0)(0)) == list(range(count))


# Seeds


def test_every_purpose_and_epoch_has_a_seed_of_its_own():
    seeds = {epoch_seed(s, e, p) for s in range(5) for e in range(5) for p in ("order", "augment", "steps", "group")}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert epoch_seed(0, 0, "order") == epoch_seed(0, 0, "order")

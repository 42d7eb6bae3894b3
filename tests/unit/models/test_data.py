import numpy as np
import pytest
import torch

from polyhead.models.data import Rows, loader


def rows(count=10):
    return Rows(
        inputs={"image": np.arange(count * 4, dtype=np.uint8).reshape(count, 2, 2), "id": np.arange(count)},
        targets={"value": np.arange(count, dtype=np.float32)[:, None] / 2},
    )


def ids(batches):
    return [batch[1].tolist() for batch in batches]


def flat(batches):
    return [i for batch in ids(batches) for i in batch]


# Rows


@pytest.mark.parametrize(("inputs", "targets"), [((5, 5), (4,)), ((5, 4), (5,)), ((0, 1), (0,))])
def test_columns_of_different_lengths_are_refused_and_listed(inputs, targets):
    with pytest.raises(ValueError, match="columns differ in their number of rows") as caught:
        Rows(
            {f"in{i}": np.zeros((n, 2)) for i, n in enumerate(inputs)},
            {f"t{i}": np.zeros(n) for i, n in enumerate(targets)},
        )
    assert str(caught.value).endswith(f": {{'in0': {inputs[0]}, 'in1': {inputs[1]}, 't0': {targets[0]}}}")


@pytest.mark.parametrize("count", [0, 1, 10])
def test_the_length_is_the_number_of_rows(count):
    assert len(rows(count)) == count


@pytest.mark.parametrize("index", [[3, 1, 2], [9, 9, 0], []])
def test_take_gives_these_rows_in_this_order(index):
    everything = rows()
    taken = everything.take(np.array(index, dtype=np.int64))
    assert len(taken) == len(index)
    assert taken.inputs["id"].tolist() == index
    assert taken.targets["value"].ravel().tolist() == [i / 2 for i in index]
    assert np.array_equal(taken.inputs["image"], everything.inputs["image"][index])
    assert taken.inputs["image"].dtype == np.uint8


def test_take_leaves_the_original_alone():
    everything = rows()
    everything.take(np.array([0])).inputs["id"][0] = 99
    assert everything.inputs["id"][0] == 0


# Batches


def test_without_a_seed_rows_come_in_order_and_the_last_batch_is_short():
    assert ids(loader(rows(), 4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_a_batch_holds_inputs_then_targets_row_by_row_with_their_types():
    image, number, value = next(iter(loader(rows(), 4, seed=0)))
    assert (image.dtype, number.dtype, value.dtype) == (torch.uint8, torch.int64, torch.float32)
    assert (image.shape, number.shape, value.shape) == ((4, 2, 2), (4,), (4, 1))
    assert torch.equal(value, number[:, None] / 2)
    assert torch.equal(image[:, 0, 0].long(), number * 4)


def test_a_seed_shuffles_and_every_row_comes_once_an_epoch():
    batches = loader(rows(100), 8, seed=0)
    first, second = flat(batches), flat(batches)
    assert sorted(first) == sorted(second) == list(range(100))
    assert first != list(range(100))
    assert first != second


def test_the_same_seed_gives_the_same_epochs_whatever_else_draws_numbers():
    one = loader(rows(100), 8, seed=3)
    expected = [ids(one), ids(one)]
    torch.manual_seed(12345)
    two = loader(rows(100), 8, seed=3)
    torch.rand(7)
    assert [ids(two), ids(two)] == expected


def test_another_seed_gives_another_order():
    assert flat(loader(rows(100), 8, seed=3)) != flat(loader(rows(100), 8, seed=4))

import numpy as np
import pytest
import torch

from polyhead.models.data import Batches, Rows, Split, join
from polyhead.models.learning.sampling import order
from polyhead.models.spec import ModelSpec, SpecError


def rows(count=10):
    return Rows(
        inputs={"image": np.arange(count * 4, dtype=np.uint8).reshape(count, 2, 2), "id": np.arange(count)},
        targets={"value": np.arange(count, dtype=np.float32)[:, None] / 2},
    )


def ids(batches):
    return [inputs["id"].tolist() for inputs, _ in batches]


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


def test_take_takes_texts_spans_and_lengths_along():
    texts = np.array(["a", "b b", "c c c"], dtype=object)
    spans = np.array([((0, 1, "x"),), None, ()], dtype=object)
    taken = Rows({"text": texts}, {"slots": spans}, {"ids": np.array([1, 2, 3])}).take(np.array([2, 0]))
    assert taken.inputs["text"].tolist() == ["c c c", "a"]
    assert taken.targets["slots"].tolist() == [(), ((0, 1, "x"),)]
    assert taken.lengths["ids"].tolist() == [3, 1]


def test_of_keeps_the_targets_of_some_heads():
    both = Rows({"x": np.zeros(2)}, {"a": np.zeros(2), "b": np.ones(2)})
    assert list(both.of(["b", "absent"]).targets) == ["b"]
    assert list(both.of([]).targets) == []
    assert list(both.of(["b"]).inputs) == ["x"]


def test_the_longest_column_is_a_rows_length():
    lengths = {"a": np.array([1, 5]), "b": np.array([3, 2])}
    assert Rows({"x": np.zeros(2)}, {}, lengths).longest().tolist() == [3, 5]
    assert Rows({"x": np.zeros(2)}, {}).longest() is None


# Joining tasks of unequal data


SPEC = ModelSpec.parse(
    {
        "name": "toy",
        "version": "1",
        "inputs": {"text": {"kind": "text", "tokenizer": "tokenizer.json"}},
        "heads": {
            "intent": {"kind": "classification", "labels": ["a", "b"]},
            "tags": {"kind": "multilabel", "labels": ["x", "y"]},
            "size": {"kind": "regression"},
            "mask": {"kind": "segmentation", "labels": ["no", "yes"]},
            "slots": {"kind": "tokens", "labels": ["O", "B-x", "I-x"]},
            "never": {"kind": "embedding", "dim": 2},
        },
    }
)
TARGETS = {
    "intent": np.array([0, 1]),
    "tags": np.array([[0, 1], [1, 0]], dtype=np.float32),
    "size": np.array([[1.5], [2.5]], dtype=np.float32),
    "mask": np.ones((2, 3, 4), dtype=np.int64),
    "slots": np.array([((0, 1, "x"),), ()], dtype=object),
}


def texts(*values):
    return np.array(values, dtype=object)


@pytest.mark.parametrize("head", TARGETS)
def test_a_part_without_a_heads_targets_has_them_missing(head):
    spare = "size" if head == "intent" else "intent"
    first = Rows({"text": texts("a", "b")}, {head: TARGETS[head]})
    second = Rows({"text": texts("c", "d")}, {spare: TARGETS[spare]})
    joined = join([first, second], SPEC)
    assert joined.inputs["text"].tolist() == ["a", "b", "c", "d"]
    assert set(joined.targets) == {head, spare}
    column = joined.targets[head]
    assert column.dtype == TARGETS[head].dtype
    assert column.shape == (4, *TARGETS[head].shape[1:])
    if head == "slots":
        assert column.tolist() == [((0, 1, "x"),), (), None, None]
    else:
        assert np.array_equal(column[:2], TARGETS[head])
        assert np.isnan(column[2:]).all() if column.dtype.kind == "f" else (column[2:] == -1).all()


def test_join_keeps_the_order_of_the_spec_and_of_the_parts():
    parts = [Rows({"text": texts(name)}, {name: TARGETS[name][:1]}) for name in ("size", "intent")]
    joined = join(parts, SPEC)
    assert list(joined.targets) == ["intent", "size"]
    assert joined.targets["intent"].tolist() == [-1, 0]


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([], "there are no rows"),
        ([Rows({"txt": texts("a")}, {})], r"a part has inputs \['txt'\], the spec's are \['text'\]"),
        (
            [
                Rows({"text": texts("a")}, {"size": np.zeros((1, 1), np.float32)}),
                Rows({"text": texts("a")}, {"size": np.zeros((1, 2))}),
            ],
            r"'size' is float32 \[rows, 1\] and float64 \[rows, 2\]: give all parts one dtype and shape",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(parts, says):
    with pytest.raises(SpecError, match=says):
        join(parts, SPEC)


# Batches


def test_without_an_order_rows_come_as_they_are_and_the_last_batch_is_short():
    batches = Batches(rows(), 4)
    assert ids(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(batches) == 3


@pytest.mark.parametrize(("count", "sizes"), [(9, [4, 5]), (5, [5]), (1, [1]), (4, [4]), (0, [])])
def test_one_row_left_over_joins_the_batch_before_it(count, sizes):
    batches = Batches(rows(count), 4)
    assert [len(batch) for batch in ids(batches)] == sizes
    assert len(batches) == len(sizes)


def test_a_batch_holds_inputs_and_targets_row_by_row_with_their_types():
    inputs, targets = next(iter(Batches(rows(), 4, order("shuffle", 10, {}, 0))))
    assert (inputs["image"].dtype, inputs["id"].dtype, targets["value"].dtype) == (
        *(torch.uint8, torch.int64),
        torch.float32,
    )
    assert (inputs["image"].shape, targets["value"].shape) == ((4, 2, 2), (4, 1))
    assert torch.equal(targets["value"], inputs["id"][:, None] / 2)
    assert torch.equal(inputs["image"][:, 0, 0].long(), inputs["id"] * 4)


def test_the_epoch_decides_the_order_whatever_else_draws_numbers():
    batches = Batches(rows(100), 8, order("shuffle", 100, {}, 3))
    first = ids(batches)
    assert ids(batches) == first  # the same epoch again
    batches.epoch = 1
    second = ids(batches)
    assert second != first
    torch.manual_seed(12345)
    np.random.default_rng().random()
    batches.epoch = 0
    assert ids(batches) == first
    assert sorted(i for batch in second for i in batch) == list(range(100))


def test_padded_columns_are_cut_to_the_longest_row_of_the_batch():
    ids_, labels = np.arange(24).reshape(4, 6), np.arange(24, 48).reshape(4, 6)
    lengths = np.array([2, 4, 6, 0])
    padded = Rows({"ids": ids_, "x": np.zeros((4, 6))}, {"slots": labels}, {"ids": lengths, "slots": lengths})
    batches = list(Batches(padded, 2))
    assert [tuple(inputs["ids"].shape) for inputs, _ in batches] == [(2, 4), (2, 6)]
    assert [tuple(targets["slots"].shape) for _, targets in batches] == [(2, 4), (2, 6)]
    assert all(inputs["x"].shape == (2, 6) for inputs, _ in batches)
    assert batches[0][0]["ids"].tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]
    (inputs, _) = next(iter(Batches(padded.take(np.array([3, 3])), 2)))
    assert inputs["ids"].shape == (2, 1)  # never of no length at all


def test_columns_of_objects_are_refused():
    with pytest.raises(SpecError, match=r"^column 'text' holds Python objects: encode texts before"):
        Batches(Rows({"text": texts("a")}, {}), 2)


def test_a_split_has_three_parts_by_name():
    parts = [rows(n) for n in (3, 2, 1)]
    assert Split(*parts).parts() == dict(zip(("train", "validation", "test"), parts, strict=True))

"""What a right answer is, and that the peers' own worker code gives it."""

import copy

import numpy as np
import pytest
import torch

from benchmarks.peers.expected import answer, decided, fault
from benchmarks.peers.forward import batch_arrays
from benchmarks.peers.servers.work import answers, octets
from polyhead.models.spec import ModelSpec

HEADS = {
    "kind": {"kind": "classification", "labels": ["a", "b", "c"]},
    "tags": {"kind": "multilabel", "labels": ["x", "y"], "threshold": 0.7},
    "size": {"kind": "regression", "unit": "m"},
    "vector": {"kind": "embedding", "dim": 4},
}
SPEC = ModelSpec.parse({"name": "m", "version": "1", "inputs": {"v": {"kind": "tensor", "shape": [2]}}, "heads": HEADS})
WIDTHS = {"kind": 3, "tags": 2, "size": 1, "vector": 4}


@pytest.fixture
def outputs():
    generator = torch.Generator().manual_seed(0)
    return {name: 3 * torch.randn(50, width, generator=generator) for name, width in WIDTHS.items()}


def test_the_peers_worker_code_gives_the_right_answers(outputs):
    heads = [(name, head.model_dump(mode="json")) for name, head in SPEC.heads.items()]
    found = answers(heads, [outputs[name].numpy() for name, _ in heads])
    for row, given in enumerate(found):
        plain = {
            name: {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in part.items()}
            for name, part in given.items()
        }
        assert fault(plain, answer(SPEC, outputs, row)) is None


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("kind", "label"), "z", "answer.kind.label: 'z', expected"),
        (("kind", "score"), 0.5, "answer.kind.score: 0.5, expected"),
        (("size", "unit"), None, "answer.size.unit: None, expected 'm'"),
        (("vector", "vector"), [1.0], "expected a list of 4"),
        (("tags",), {"labels": []}, "answer.tags: fields ['labels'], expected ['labels', 'scores']"),
    ],
)
def test_a_wrong_answer_is_told_with_its_place(outputs, place, value, words):
    right = answer(SPEC, outputs, 0)
    wrong = copy.deepcopy(right)
    inside = wrong
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    assert words in fault(wrong, right)
    assert fault(right, copy.deepcopy(right)) is None


def test_rows_near_a_decision_are_not_asked_about():
    clear = {"kind": torch.tensor([[2.0, 1.0, 0.0]]), "tags": torch.tensor([[2.0, -2.0]])}
    clear |= {"size": torch.zeros(1, 1), "vector": torch.zeros(1, 4)}
    assert decided(SPEC, clear, 0)
    assert not decided(SPEC, {**clear, "kind": torch.tensor([[2.0, 2.0, 0.0]])}, 0)
    edge = float(torch.logit(torch.tensor(0.7)))
    assert not decided(SPEC, {**clear, "tags": torch.tensor([[edge, -2.0]])}, 0)


def test_bodies_of_several_rows_are_read_as_such():
    rows = np.arange(10, dtype="<f4").reshape(5, 2)
    (array,), counts = octets([rows[:2].tobytes(), rows[2:].tobytes()], [2])
    assert np.array_equal(array, rows)
    assert counts == [2, 3]


def test_texts_of_a_batch_are_filled_up():
    rows = [{"ids": np.full((1, length), length)} for length in (2, 5, 3)]
    found = batch_arrays(rows)["ids"]
    assert found.shape == (3, 5)
    assert (found != 0).sum(axis=1).tolist() == [2, 5, 3]

"""A network as one program: what each operation belongs to, and nothing in it that is not arithmetic."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from polyhead.export.errors import ExportError
from polyhead.export.graphs import FusedGraph
from polyhead.export.program import NOTES, OWNERS, capture, copied, outputs_of
from tests.unit.export.networks import (
    KIND,
    MLP_HEADS,
    NUMBER,
    Captured,
    Mlp,
    captured,
    mlp,
    numbers,
    picture,
    reader,
    rows,
    seeded,
    spec,
)


@pytest.fixture(scope="module", params=[mlp, picture, reader], ids=lambda make: make.__name__)
def made(request) -> Captured:
    found: Captured = request.param()
    return found


@pytest.mark.parametrize(("count", "length"), [(1, 1), (2, 5), (7, 3), (64, 24)])
def test_a_program_answers_as_its_network_at_any_size(made: Captured, count: int, length: int):
    given = made.rows(count, text_tokens=length)
    for actual, expected in zip(made.call(made.program, given), made.eager(given), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_outputs_are_the_heads_sorted_by_name(made: Captured):
    assert made.heads == tuple(sorted(made.heads))
    for head, node in zip(made.heads, outputs_of(made.program.graph), strict=True):
        assert head in node.meta[OWNERS]


def test_every_free_dimension_is_symbolic(made: Captured):
    for node in made.program.graph.nodes:
        if node.op == "placeholder":
            assert not isinstance(node.meta["val"].shape[0], int)
    if "input_ids" in made.graph.input_names:
        ids, mask = (node.meta["val"] for node in made.program.graph.nodes if node.op == "placeholder")
        assert not isinstance(ids.shape[1], int)
        assert str(ids.shape) == str(mask.shape)


def test_nothing_is_in_place_and_nothing_tells_where_it_came_from(made: Captured):
    for node in made.program.graph.nodes:
        assert not set(NOTES) & set(node.meta)
        if isinstance(node.target, torch._ops.OpOverload):
            assert not node.target._schema.is_mutable
    assert str(Path(__file__).parent) not in made.program.code


def test_each_weight_belongs_to_the_heads_that_depend_on_it():
    owners = {
        node.target.removeprefix("caller.network."): set(node.meta[OWNERS])
        for node in mlp().program.graph.nodes
        if node.op == "get_attr"
    }
    everyone = {"echo", "kind", "size", "tags"}
    assert owners == {
        "trunk.0.weight": everyone,
        "trunk.0.bias": everyone,
        "kind.weight": {"echo", "kind"},  # a head that another answers from is what these two share
        "kind.bias": {"echo", "kind"},
        "tags.weight": {"tags"},
        "size.0.weight": {"size"},
        "size.0.bias": {"size"},
        "size.2.weight": {"size"},
        "size.2.bias": {"size"},
        "echo.weight": {"echo"},
        "echo.bias": {"echo"},
    }


def test_a_copy_has_a_graph_of_its_own_and_the_same_weights():
    made = mlp()
    other = copied(made.program)
    before = len(made.program.graph.nodes)
    with other.graph.inserting_before(other.graph.output_node()):
        other.graph.call_function(torch.ops.aten.neg.default, (next(iter(other.graph.nodes)),))
    assert len(made.program.graph.nodes) == before
    mine, its = dict(made.program.named_parameters()), dict(other.named_parameters())
    assert set(mine) == set(its)
    assert all(mine[name].data_ptr() == its[name].data_ptr() for name in mine)


class ChangesItsInput(Mlp):
    def forward(self, x):
        return super().forward(x.mul_(2))


def test_a_network_that_works_in_its_input_leaves_a_programs_rows_as_they_are():
    made = captured(seeded(ChangesItsInput), numbers(MLP_HEADS))
    given = made.rows(3)
    before = given[0].clone()
    expected = made.eager([given[0].clone()])
    for actual, wanted in zip(made.call(made.program, given), expected, strict=True):
        torch.testing.assert_close(actual, wanted)
    torch.testing.assert_close(given[0], before, rtol=0, atol=0)


class Counts(Mlp):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.seen.add_(1)
        output = super().forward(x)
        return {**output, "size": output["size"] + 0 * self.seen}


class NormsInTraining(Mlp):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(16)

    def forward(self, x):
        mean, variance = self.norm.running_mean, self.norm.running_var
        features = functional.batch_norm(self.trunk(x), mean, variance, training=True)
        kind = self.kind(features)
        return {"kind": kind, "tags": self.tags(features), "size": self.size(features), "echo": self.echo(kind)}


@pytest.mark.parametrize(("network", "buffer"), [(Counts, "seen"), (NormsInTraining, "norm.running_mean")])
def test_a_forward_that_changes_its_buffers_is_refused(network: type[nn.Module], buffer: str):
    with pytest.raises(ExportError) as caught:
        captured(seeded(network), numbers(MLP_HEADS))
    assert str(caught.value) == (
        f"the network's forward changes its buffer 'caller.network.{buffer}': an exported graph keeps no state between "
        "requests (is a BatchNorm in training mode?)"
    )


def test_a_batch_normalisation_that_was_left_in_training_is_captured_in_evaluation():
    class Normed(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.trunk.append(nn.BatchNorm1d(16))
            self.trunk.append(nn.Dropout(0.5))

    network = seeded(Normed).train()
    made = captured(network, numbers(MLP_HEADS))
    given = made.rows(5)
    assert not network.training
    alone = made.call(made.program, [given[0][:1]])
    for one, every in zip(alone, made.call(made.program, given), strict=True):
        torch.testing.assert_close(one[0], every[0], rtol=1e-5, atol=1e-6)


class Tied(Mlp):
    """Both ends of the network hold one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Linear(16, 6)
        self.again.weight = nn.Parameter(torch.randn(16, 6))
        self.trunk[0].weight = self.again.weight

    def forward(self, x):
        output = super().forward(x)
        return {**output, "size": (self.trunk(x) @ self.again.weight).sum(1, keepdim=True)}


def test_tied_weights_stay_one():
    made = captured(seeded(Tied), numbers(MLP_HEADS))
    given = made.rows(3)
    for actual, expected in zip(made.call(made.program, given), made.eager(given), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    places = {value.data_ptr() for name, value in made.program.named_parameters() if value.shape == (16, 6)}
    assert len(places) == 1


class Kinds(nn.Module):
    """Integers, yes and no, and numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.kind = nn.Linear(4, 3)

    def forward(self, index, flag, scale):
        features = self.table(index) * torch.where(flag, scale, -scale).unsqueeze(1)
        return {"kind": self.kind(features), "size": features.sum(1, keepdim=True)}


def test_integers_and_booleans_go_in_as_they_are():
    inputs = {
        "index": {"kind": "tensor", "dtype": "int64", "shape": []},
        "flag": {"kind": "tensor", "dtype": "bool", "shape": []},
        "scale": {"kind": "tensor", "shape": []},
    }
    made = captured(seeded(Kinds), spec(inputs, {"kind": KIND, "size": NUMBER}))
    places = [node.meta["val"] for node in made.program.graph.nodes if node.op == "placeholder"]
    assert [value.dtype for value in places] == [torch.int64, torch.bool, torch.float32]
    given = made.rows(9)
    for actual, expected in zip(made.call(made.program, given), made.eager(given), strict=True):
        torch.testing.assert_close(actual, expected)


def test_an_example_of_one_row_is_refused():
    graph = FusedGraph(seeded(Mlp), numbers(MLP_HEADS))
    with pytest.raises(ExportError, match=r"^an export needs an example of two rows or more, got \[1\]$"):
        capture(graph, rows(graph, 1))


class LooksAtItsNumbers(Mlp):
    def forward(self, x):
        return super().forward(x if float(x.sum()) > 0 else -x)


class FixesTheBatch(Mlp):
    def forward(self, x):
        return super().forward(x.reshape(2, 6))


@pytest.mark.parametrize("network", [LooksAtItsNumbers, FixesTheBatch])
def test_what_cannot_be_captured_is_refused_in_one_line(network: type[nn.Module]):
    with pytest.raises(ExportError, match=r"^torch\.export refuses the network: ") as caught:
        captured(seeded(network), numbers(MLP_HEADS))
    assert "\n" not in str(caught.value)
    assert "site-packages" not in str(caught.value)

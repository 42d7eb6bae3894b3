"""Trunk and heads as programs of their own: one behind the other they are the whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from polyhead.export.program import OWNERS
from polyhead.export.splitting import Split, Unsplit, split
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
    seeded,
    spec,
)


def cut(made: Captured) -> Split:
    return split(made.program, made.graph.input_names, made.heads)


def chained(made: Captured, pieces: Split, rows: list[Tensor]) -> tuple[Tensor, ...]:
    """The trunk once, then each head on what it returned."""
    known = dict(zip(made.graph.input_names, rows, strict=True))
    with torch.inference_mode():
        features = pieces.trunk.module(*(known[name] for name in pieces.trunk.inputs))
        known |= dict(zip(pieces.trunk.outputs, features, strict=True))
        return tuple(
            pieces.heads[head].module(*(known[name] for name in pieces.heads[head].inputs))[0] for head in made.heads
        )


@pytest.mark.parametrize("make", [mlp, picture, reader])
def test_trunk_and_heads_one_behind_the_other_are_the_whole(make):
    made = make()
    pieces = cut(made)
    assert tuple(pieces.heads) == made.heads
    for count, length in ((1, 1), (2, 5), (5, 9)):
        rows = made.rows(count, text_tokens=length)
        for actual, expected in zip(chained(made, pieces, rows), made.eager(rows), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("make", [mlp, picture, reader])
def test_every_weight_is_in_one_piece(make):
    made = make()
    pieces = cut(made)
    every = [name for piece in (pieces.trunk, *pieces.heads.values()) for name, _ in piece.module.named_parameters()]
    assert sorted(every) == sorted(name for name, _ in made.program.named_parameters())
    for head, piece in pieces.heads.items():
        assert tuple(piece.outputs) == (head,)


def test_the_program_is_left_as_it_is():
    made = reader()
    before = made.program.code
    cut(made)
    made.program.recompile()
    assert made.program.code == before


def test_a_head_takes_the_features_that_it_needs_and_no_others():
    pieces = cut(mlp())
    assert set(pieces.trunk.inputs) == {"x"}
    assert set(pieces.trunk.outputs) == {"relu", "linear_1"}  # the features, and what "echo" answers from
    assert {head: set(piece.inputs) for head, piece in pieces.heads.items()} == {
        "echo": {"linear_1"},
        "kind": {"linear_1"},
        "size": {"relu"},
        "tags": {"relu"},
    }


def test_a_head_that_takes_an_array_itself_gets_it():
    pieces = cut(reader())
    assert set(pieces.heads["slots"].inputs) >= {"attention_mask"}
    assert "input_ids" not in {name for piece in pieces.heads.values() for name in piece.inputs}


class Parametrised(Mlp):
    """The heads share a number that is made of weights alone."""

    def forward(self, x):
        output = super().forward(x)
        scale = self.echo.weight.norm().unsqueeze(0).exp()
        return {name: value * scale for name, value in output.items()}


def test_what_heads_share_of_weights_alone_is_computed_in_each():
    made = captured(seeded(Parametrised), numbers(MLP_HEADS))
    pieces = cut(made)
    rows = made.rows(3)
    for actual, expected in zip(chained(made, pieces, rows), made.eager(rows), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)
    assert set(pieces.trunk.outputs) == {"relu", "linear_1"}


def test_a_feature_is_told_from_an_array_of_its_name():
    model = spec({"relu": {"kind": "tensor", "shape": [6]}}, MLP_HEADS)

    class Named(Mlp):
        def forward(self, relu):
            return super().forward(relu)

    made = captured(seeded(Named), model)
    pieces = cut(made)
    assert set(pieces.trunk.inputs) == {"relu"}
    assert not set(pieces.trunk.inputs) & set(pieces.trunk.outputs)
    rows = made.rows(3)
    for actual, expected in zip(chained(made, pieces, rows), made.eager(rows), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6)


class Apart(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.kind, self.size = nn.Linear(6, 3), nn.Linear(6, 1)

    def forward(self, x):
        return {"kind": self.kind(x), "size": self.size(x)}


class Alone(Apart):
    def forward(self, x):
        return {"kind": super().forward(x)["kind"]}


class Pooled(Apart):
    """The heads share something of the whole batch."""

    def forward(self, x):
        mean = x.relu().mean(0)
        return {"kind": self.kind(x) + self.kind(mean), "size": self.size(x) + self.size(mean)}


@pytest.mark.parametrize(
    ("network", "heads", "reason"),
    [
        (Alone, {"kind": KIND}, "it has one head"),
        (Apart, {"kind": KIND, "size": NUMBER}, "its heads share no operation"),
        (
            Pooled,
            {"kind": KIND, "size": NUMBER},
            "its heads share 'mean' of shape [6], which has no row for each row",
        ),
    ],
)
def test_what_has_no_trunk_is_not_split_and_it_is_said_why(network: type[nn.Module], heads, reason: str):
    with pytest.raises(Unsplit) as caught:
        cut(captured(seeded(network), numbers(heads)))
    assert str(caught.value) == reason


def test_owners_of_a_piece_are_its_own():
    pieces = cut(mlp())
    for head, piece in pieces.heads.items():
        for node in piece.module.graph.nodes:
            if node.op == "call_function":
                assert node.meta[OWNERS] == {head}

"""Parameters and operations by part, against numbers worked out by hand."""

from __future__ import annotations

import torch
from torch import nn

from polyhead.export.counting import parts
from polyhead.serving.manifest import Part
from tests.unit.export.networks import KIND, NUMBER, captured, mlp, numbers, picture, reader, seeded, spec


def counted(made):
    return parts(made.program, made.heads, made.rows(1))


def test_a_network_of_linear_layers():
    assert counted(mlp()) == {
        # The layer of "kind" is the trunk's: "echo" answers from it.
        "trunk": Part(parameters=(6 * 16 + 16) + (16 * 3 + 3), flops=2 * 6 * 16 + 2 * 16 * 3),
        "heads/echo": Part(parameters=3 * 2 + 2, flops=2 * 3 * 2),
        "heads/kind": Part(parameters=0, flops=0),
        "heads/size": Part(parameters=(16 * 8 + 8) + (8 + 1), flops=2 * 16 * 8 + 2 * 8),
        "heads/tags": Part(parameters=16 * 4, flops=2 * 16 * 4),
    }


def test_convolutions_count_every_pixel_and_statistics_are_no_parameters():
    found = counted(picture())
    pixels = 6 * 8
    convolutions = 2 * pixels * (3 * 9 * 8) + 2 * pixels * (8 * 9 * 8)
    assert found["trunk"] == Part(parameters=3 * 9 * 8 + (8 * 9 * 8 + 8) + 2 * (8 + 8), flops=convolutions)
    assert found["heads/ground"] == Part(parameters=8 * 2 + 2, flops=2 * pixels * 8 * 2)
    assert found["heads/wet"] == Part(parameters=8 * 3 + 3, flops=2 * 8 * 3)


def test_a_layer_at_every_token_counts_every_token():
    made = reader()
    found = parts(made.program, made.heads, made.rows(1, text_tokens=7))
    assert found["heads/slots"] == Part(parameters=16 * 3 + 3, flops=2 * 7 * 16 * 3)
    assert found["trunk"].parameters == 10 * 16 + 16 * 16 + 16 + 2 * 16


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.kind = nn.Linear(6, 6, bias=False), nn.Linear(6, 3)
        self.size = nn.Linear(6, 6, bias=False)
        self.size.weight = self.trunk.weight

    def forward(self, x):
        features = self.trunk(x).relu()
        return {"kind": self.kind(features), "size": self.size(features).sum(1, keepdim=True)}


def test_a_weight_that_is_used_twice_is_counted_once_and_works_twice():
    found = counted(captured(seeded(Tied), numbers({"kind": KIND, "size": NUMBER})))
    assert sum(part.parameters for part in found.values()) == 6 * 6 + 6 * 3 + 3
    assert found["trunk"] == Part(parameters=36, flops=2 * 36)
    assert found["heads/size"] == Part(parameters=0, flops=2 * 36)


class Single(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(6, 4), nn.Linear(4, 1)

    def forward(self, x):
        return {"size": self.two(self.one(x))}


def test_of_one_head_everything_is_the_heads():
    found = counted(captured(seeded(Single), numbers({"size": NUMBER})))
    assert found == {"heads/size": Part(parameters=28 + 5, flops=2 * 6 * 4 + 2 * 4)}


class Steps(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.kind, self.size = nn.Linear(5, 3), nn.Linear(5, 1)

    def forward(self, x):
        last = self.lstm(x)[0][:, -1]
        return {"kind": self.kind(last), "size": self.size(last)}


def test_a_recurrent_layer_works_at_every_step():
    model = spec({"x": {"kind": "tensor", "shape": [9, 6]}}, {"kind": KIND, "size": NUMBER})
    found = counted(captured(seeded(Steps), model))
    weights = 4 * 5 * (6 + 5)
    assert found["trunk"] == Part(parameters=weights + 2 * 4 * 5, flops=2 * 9 * weights)


def test_counting_leaves_no_trace_in_the_numbers():
    made = mlp()
    rows = made.rows(3)
    before = made.call(made.program, rows)
    counted(made)
    for one, other in zip(before, made.call(made.program, rows), strict=True):
        assert torch.equal(one, other)

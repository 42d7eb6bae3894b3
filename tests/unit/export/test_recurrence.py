"""Recurrent layers, captured whole: a program of any number of steps, and PyTorch left as it was."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from polyhead.export.quiet import quiet
from polyhead.export.recurrence import OPERATIONS, whole_sequences

STEPS = ({0: Dim("batch", min=1), 1: Dim("steps", min=1, max=64)},)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], **options: Any) -> None:
        super().__init__()
        self.layer = kind(6, 8, batch_first=True, **options)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features, state = self.layer(x)
        return features, state[0] if isinstance(state, tuple) else state


def captured(network: nn.Module) -> torch.export.ExportedProgram:
    with quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The tensor attributes", category=UserWarning)
        return torch.export.export(network.eval(), (torch.randn(2, 7, 6),), dynamic_shapes=STEPS, strict=False)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.LSTM, {}),
        (nn.GRU, {}),
        (nn.LSTM, {"bidirectional": True, "num_layers": 2, "bias": False}),
        (nn.LSTM, {"proj_size": 5}),
    ],
    ids=["LSTM", "GRU", "two ways, two layers", "projected"],
)
def test_a_captured_layer_takes_any_number_of_steps(kind: type[nn.RNNBase], options: dict[str, Any]):
    torch.manual_seed(1)
    network = Recurrent(kind, **options)
    with quiet(), whole_sequences():
        program = captured(network).run_decompositions({})
    assert [node.target for node in program.graph.nodes if node.target in OPERATIONS]
    with quiet():
        module = program.module(check_guards=False)
    for rows, steps in ((1, 1), (2, 7), (5, 64)):
        x = torch.randn(rows, steps, 6)
        with torch.no_grad():
            for found, expected in zip(module(x), network(x), strict=True):
                torch.testing.assert_close(found, expected)


def test_pytorch_is_left_as_it_was():
    before = {operation: dict(operation.py_kernels) for operation in OPERATIONS}
    with pytest.raises(KeyError), whole_sequences():
        raise KeyError
    assert {operation: dict(operation.py_kernels) for operation in OPERATIONS} == before
    with pytest.raises(Exception, match="steps"):  # unrolled: as many as the example has
        captured(Recurrent(nn.LSTM))

"""TorchScript of a captured program, and the trace of a network that cannot be captured."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path

import pytest
import torch

from polyhead.export import merging, torchscript
from polyhead.export.errors import ExportError
from polyhead.export.graphs import FusedGraph, PackedGraph
from tests.unit.export.networks import MLP_HEADS, Mlp, mlp, numbers, picture, reader, rows, seeded


def loaded(data: bytes) -> torch.jit.ScriptModule:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*torch.jit.*")
        module: torch.jit.ScriptModule = torch.jit.load(io.BytesIO(data))
    return module


@pytest.mark.parametrize("make", [mlp, picture, reader])
def test_a_script_answers_as_its_program_at_any_size(make):
    made = make()
    fused = merging.fuse(made.program, made.heads, made.graph.row_heads, "polyhead_packed")
    module = loaded(torchscript.write(fused.module))
    for count, length in ((1, 1), (3, 9), (7, 2)):
        given = made.rows(count, text_tokens=length)
        for actual, expected in zip(made.call(module, given), made.call(fused.module, given), strict=True):
            torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_a_script_is_frozen_and_tells_no_path():
    data = torchscript.write(mlp().program)
    assert not list(loaded(data).parameters())
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            content = archive.read(name)
            for place in (str(Path(__file__).parent), str(Path(torch.__file__).parent), "networks.py"):
                assert place.encode() not in content, f"{name} names {place}"


def test_the_program_itself_is_left_as_it_is():
    made = mlp()
    before = made.program.code
    torchscript.write(made.program)
    made.program.recompile()
    assert made.program.code == before


class Branches(Mlp):
    """Python control flow that torch.export refuses."""

    def forward(self, x):
        return super().forward(x * 0 if float(x.sum()) > 1e30 else x)


def test_a_trace_answers_as_its_network_where_it_takes_the_branch_of_the_example():
    graph = FusedGraph(seeded(Branches), numbers(MLP_HEADS))
    module = loaded(torchscript.trace(PackedGraph(graph), rows(graph, 2)))
    given = rows(graph, 5, seed=3)
    with torch.inference_mode():
        expected, actual = graph(*given), module(*given)
    for one, other in zip(actual, expected, strict=False):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert torch.equal(actual[-1], torch.cat(actual[:-1], dim=1))  # the packed output


class Fails(Mlp):
    def forward(self, x):
        raise ValueError("not today\nand not tomorrow")


def test_what_cannot_be_traced_is_refused_in_one_line():
    graph = FusedGraph(seeded(Fails), numbers(MLP_HEADS))
    with pytest.raises(ExportError, match=r"^the network cannot be traced to TorchScript: not today$"):
        torchscript.trace(PackedGraph(graph), rows(graph, 2))

"""Half precision inside a program, fp32 at its doors, and kept heads as they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from polyhead.export import merging
from polyhead.export.precision import HALF, halved
from polyhead.export.program import OWNERS
from tests.unit.export.networks import KIND, NUMBER, Captured, captured, mlp, numbers, picture, reader, seeded

PACKED = "polyhead_packed"
ERROR = {"fp16": 5e-3, "bf16": 4e-2}  # of the largest number of a head


def fused(made: Captured, keep: tuple[str, ...] = ()) -> merging.Fused:
    return merging.fuse(made.program, made.heads, made.graph.row_heads, PACKED, keep)


class Types(fx.Interpreter):
    """Runs a program, and notes the type of what each operation takes and returns."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.returned: dict[fx.Node, torch.dtype] = {}
        self.taken: dict[fx.Node, set[torch.dtype]] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.taken[n] = {self.env[source].dtype for source in n.all_input_nodes if _is_float(self.env[source])}
        result = super().run_node(n)
        if _is_float(result):
            self.returned[n] = result.dtype
        return result


def _is_float(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def types(module: fx.GraphModule, rows: list[Tensor]) -> Types:
    found = Types(module)
    with torch.inference_mode():
        found.run(*rows)
    return found


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("make", [mlp, picture, reader])
def test_a_half_program_takes_and_returns_what_it_did_and_is_close(make, precision: str):
    made = make()
    module = halved(fused(made).module, precision)
    rows = made.rows(6)
    actual = made.call(module, rows)
    assert all(output.dtype == torch.float32 for output in actual)
    for output, expected in zip(actual, made.eager(rows), strict=False):
        assert output.shape == expected.shape
        assert 0 < (output - expected).abs().max() <= ERROR[precision] * expected.abs().max()
    assert HALF[precision] in types(module, rows).returned.values()


def test_the_program_itself_is_left_as_it_is():
    whole = fused(mlp()).module
    before = whole.code
    halved(whole, "fp16")
    whole.recompile()
    assert whole.code == before
    assert {value.dtype for value in whole.parameters()} == {torch.float32}


def test_products_run_in_half_precision_and_what_loses_numbers_there_does_not():
    made = reader()
    found = types(halved(fused(made).module, "fp16"), made.rows(4))
    taken: dict[str, set[torch.dtype]] = {}
    for node, dtypes in found.taken.items():
        if node.op == "call_function":
            taken.setdefault(str(node.target).removeprefix("aten.").partition(".")[0], set()).update(dtypes)
    assert taken["linear"] == taken["matmul"] == taken["gelu"] == {torch.float16}
    assert taken["layer_norm"] == taken["softmax"] == taken["sum"] == {torch.float32}


@pytest.mark.parametrize("keep", [("size",), ("kind", "echo"), ("tags", "size")])
def test_the_layers_of_kept_heads_stay_in_fp32(keep: tuple[str, ...]):
    made = mlp()
    whole = fused(made, keep)
    module = halved(whole.module, "fp16", keep)
    found = types(module, made.rows(4))
    own = {node for node in module.graph.nodes if node.meta.get(OWNERS) and node.meta[OWNERS] <= set(keep)}
    layers = {node for node in own if node.target is torch.ops.aten.linear.default}
    assert layers
    for node in own:
        assert found.returned.get(node, torch.float32) == torch.float32
        assert found.taken[node] <= {torch.float32} or node.target is torch.ops.aten.to.dtype
    others = {node for node in found.taken if node.target is torch.ops.aten.linear.default and node not in own}
    assert others
    assert all(found.returned[node] == torch.float16 for node in others)


def test_the_trunk_is_in_half_precision_also_where_every_head_is_kept():
    made = mlp()
    keep = tuple(made.heads)
    module = halved(fused(made, keep).module, "fp16", keep)
    found = types(module, made.rows(4))
    layers = [node for node in found.returned if node.target is torch.ops.aten.linear.default]
    trunk = {node for node in layers if node.meta[OWNERS] == set(keep)}
    assert trunk
    assert {found.returned[node] for node in trunk} == {torch.float16}
    assert {found.returned[node] for node in layers if node not in trunk} == {torch.float32}


def test_a_kept_head_of_a_trunk_in_half_precision_answers_closer():
    made = mlp()
    rows = made.rows(64)
    position = made.heads.index("size")
    expected = made.eager(rows)[position]
    errors = [
        float((made.call(halved(fused(made, keep).module, "bf16", keep), rows)[position] - expected).abs().mean())
        for keep in ((), ("size",))
    ]
    assert errors[1] < errors[0]


def test_weights_of_products_are_stored_in_half():
    made = mlp()
    whole = fused(made)
    module = halved(whole.module, "fp16")
    assert {value.dtype for value in module.parameters()} == {torch.float16}
    assert sum(v.nbytes for v in module.parameters()) * 2 == sum(v.nbytes for v in whole.module.parameters())


class Large(nn.Module):
    """Products beyond what fp16 can hold, and within what bf16 can."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(6, 8)
        self.kind, self.size = nn.Linear(8, 3), nn.Linear(8, 1)
        nn.init.constant_(self.trunk.weight, 3e4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.trunk(x)
        return {"kind": self.kind(features), "size": self.size(features)}


@pytest.mark.parametrize(("precision", "finite"), [("fp16", False), ("bf16", True)])
def test_an_overflow_is_not_hidden(precision: str, finite: bool):
    """It is the gate that refuses it."""
    made = captured(seeded(Large), numbers({"kind": KIND, "size": NUMBER}))
    outputs = made.call(halved(fused(made).module, precision), [torch.ones(2, 6)])
    assert all(bool(torch.isfinite(output).all()) is finite for output in outputs)

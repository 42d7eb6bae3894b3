"""Linear heads as one product, and per-row heads in one output: exactly what they were."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from polyhead.export import merging, onnx
from polyhead.export.program import dimensions, exported
from polyhead.serving.manifest import Packed
from tests.unit.export.networks import Captured, captured, mlp, numbers, picture, reader

PACKED = "polyhead_packed"


def fuse(made: Captured, apart: tuple[str, ...] = (), merge: bool = True) -> merging.Fused:
    return merging.fuse(made.program, made.heads, made.graph.row_heads, PACKED, apart, merge)


def require_packed(made: Captured, fused: merging.Fused, outputs: tuple[Tensor, ...]) -> None:
    """The packed output holds every per-row head bit for bit, side by side without a gap."""
    packed = fused.packed
    assert isinstance(packed, Packed)
    assert set(packed.columns) == set(packed.shapes) == set(made.graph.row_heads)
    *heads, whole = outputs
    by_name = dict(zip(made.heads, heads, strict=True))
    end = 0
    for head, (start, stop) in sorted(packed.columns.items(), key=lambda item: item[1]):
        assert start == end
        end = stop
        assert torch.equal(whole[:, start:stop].reshape(by_name[head].shape), by_name[head])
        assert packed.shapes[head] == tuple(by_name[head].shape[1:])
    assert end == whole.shape[1]


@dataclass(frozen=True)
class Head:
    width: int
    bias: bool
    tail: str  # what follows its linear layer
    feature: int  # of the two that the trunk has


class Many(nn.Module):
    """Heads as they are drawn, on one of two features of one trunk."""

    def __init__(self, heads: dict[str, Head]) -> None:
        super().__init__()
        torch.manual_seed(len(heads))
        self.trunk = nn.Linear(6, 8)
        self.kinds = heads
        self.layers = nn.ModuleDict({name: nn.Linear(8, head.width, bias=head.bias) for name, head in heads.items()})
        self.tails = nn.ModuleDict(
            {name: nn.Linear(head.width, head.width) for name, head in heads.items() if head.tail == "layer"}
        )

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        linear = self.trunk(x)
        features = (linear.relu(), linear.tanh())
        return {name: self._head(name, head, features[head.feature]) for name, head in self.kinds.items()}

    def _head(self, name: str, head: Head, features: Tensor) -> Tensor:
        output: Tensor = self.layers[name](features)
        match head.tail:
            case "layer":
                output = self.tails[name](output.relu())
            case "scale":
                output = output * 2 + 1
            case "normalised":
                output = nn.functional.normalize(output, dim=1)
        return output


HEADS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", "e"]),
    st.builds(
        Head,
        width=st.integers(1, 4),
        bias=st.booleans(),
        tail=st.sampled_from(["", "", "layer", "scale", "normalised"]),
        feature=st.integers(0, 1),
    ),
    min_size=1,
)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(heads=HEADS, kept=st.sets(st.sampled_from(["a", "b", "c"])))
def test_any_set_of_heads_is_merged_and_packed_exactly(heads: dict[str, Head], kept: set[str]):
    model = numbers({name: {"kind": "regression", "dim": head.width} for name, head in heads.items()})
    made = captured(Many(heads), model)
    plain, fused = fuse(made, merge=False), fuse(made, tuple(kept))
    assert plain.merged == ()
    for group in fused.merged:
        assert len(group) > 1
        assert not set(group) & kept
        assert len({heads[name].feature for name in group}) == 1
    for feature in (0, 1):  # all that can be one product is
        able = {name for name, head in heads.items() if head.feature == feature and name not in kept}
        assert (tuple(sorted(able)) in fused.merged) is (len(able) > 1)
    for count in (1, 5):
        rows = made.rows(count)
        expected, actual = made.call(plain.module, rows), made.call(fused.module, rows)
        for one, other, eager in zip(actual, expected, made.eager(rows), strict=False):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(other, eager, rtol=0, atol=0)
        require_packed(made, plain, expected)
        require_packed(made, fused, actual)


@pytest.mark.parametrize("make", [mlp, picture, reader])
def test_the_program_itself_is_left_as_it_is(make):
    made = make()
    code, names = made.program.code, [name for name, _ in made.program.named_parameters()]
    fuse(made)
    made.program.recompile()
    assert made.program.code == code
    assert [name for name, _ in made.program.named_parameters()] == names


@pytest.mark.parametrize("make", [mlp, picture, reader])
@pytest.mark.parametrize("count", [1, 4])
def test_networks_of_every_kind_are_merged_and_packed(make, count: int):
    made = make()
    fused = fuse(made)
    rows = made.rows(count)
    outputs = made.call(fused.module, rows)
    for actual, expected in zip(outputs, made.eager(rows), strict=False):
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    require_packed(made, fused, outputs)


def test_a_head_that_another_answers_from_is_not_merged():
    assert fuse(mlp()).merged == (("size", "tags"),)  # "kind" is shared with "echo"


def test_heads_of_tokens_are_merged_but_not_packed():
    made = reader()
    fused = fuse(made)
    assert fused.merged == (("part", "slots"),)
    assert fused.packed is not None
    assert set(fused.packed.columns) == {"intent", "vector"}


def test_there_is_no_packed_output_where_there_is_no_head_of_rows():
    made = reader()
    fused = merging.fuse(made.program, made.heads, (), PACKED)
    assert fused.packed is None
    assert len(made.call(fused.module, made.rows(2))) == len(made.heads)


def test_linear_heads_are_one_product_in_the_onnx_graph():
    heads = {name: Head(3, True, "", 0) for name in "abcdefgh"}
    made = captured(Many(heads), numbers({name: {"kind": "regression", "dim": 3} for name in heads}))
    plain, fused = fuse(made, merge=False), fuse(made)
    linear = torch.ops.aten.linear.default
    assert sum(node.target is linear for node in plain.module.graph.nodes) == 1 + len(heads)
    program = exported(fused.module, made.rows(2), dimensions(made.graph.arrays.values()))
    model = onnx.write(program, ["x"], [*made.heads, PACKED])
    assert sum(node.op_type in ("Gemm", "MatMul") for node in model.graph.node) == 2  # the trunk's, and one for all

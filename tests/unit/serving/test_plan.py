"""Which heads run apart: by their operations, by what they cost, as asked."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from polyhead.export.assemble import export
from polyhead.export.source import Source, random_samples
from polyhead.models.spec import ModelSpec
from polyhead.serving import plan
from polyhead.serving.bundle import Bundle
from polyhead.serving.choosing import Chosen, choose
from polyhead.serving.cobatching import Cobatching
from polyhead.serving.errors import RuntimeUnavailable
from polyhead.serving.manifest import Part
from polyhead.serving.plan import Cost, Plan, candidates, decide, measure, pays_below
from polyhead.serving.runtimes.onnxruntime import OnnxRuntime

SPEC = ModelSpec.parse(
    {
        "name": "uneven",
        "version": "1",
        "inputs": {"x": {"kind": "tensor", "shape": [16]}},
        "heads": {"dear": {"kind": "regression", "dim": 4}, "cheap": {"kind": "regression"}},
    }
)


class Uneven(nn.Module):
    """A head of a hundred times the operations of trunk and other head together."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.cheap = nn.Linear(16, 64), nn.Linear(64, 1)
        self.dear = nn.Sequential(nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 4))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.trunk(x).relu()
        return {"dear": self.dear(features), "cheap": self.cheap(features)}


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.manual_seed(0)
    folder: Path = tmp_path_factory.mktemp("bundles") / "uneven"
    return export(Source(Uneven().eval(), SPEC, random_samples(SPEC)), folder, ["onnx", "torchscript"])[0]


def chosen(bundle: Bundle, runtime: str = "onnxruntime") -> Chosen:
    return choose(bundle, runtime, "cpu", "fp32")


def with_operations(bundle: Bundle, **flops: int | None) -> Bundle:
    parts = {name.replace("_", "/"): Part(parameters=1, flops=count) for name, count in flops.items()}
    return Bundle(bundle.folder, bundle.manifest.model_copy(update={"parts": parts}), bundle.digest)


def cost(rows: int, fused: float, base: float, **heads: float) -> Cost:
    return Cost(rows, fused, base, heads)


def test_a_dear_head_runs_apart(uneven: Bundle):
    made, runtime = plan.load(uneven, chosen(uneven), "cpu", 1)
    assert made.apart == ("dear",)
    assert isinstance(runtime, Cobatching)
    assert runtime.apart == ("dear",)
    assert not runtime.head_rows  # what was measured is no request
    assert [cost.rows for cost in made.costs] == [1, 8, 64]
    assert made.why.startswith("pays ")
    assert made == decide(made.costs)


def test_larger_batches_than_there_are_are_not_measured(uneven: Bundle):
    made, _ = plan.load(uneven, chosen(uneven), "cpu", 1, max_rows=8)
    assert [cost.rows for cost in made.costs] == [1, 8]


def test_a_slow_model_is_measured_at_one_row(uneven: Bundle):
    graph = uneven.manifest.graph("fused-onnx")
    fused = plan.base.load("onnxruntime", graph, uneven.graph_files(graph), "cpu", 1)
    costs = measure(uneven, fused, Cobatching.load(uneven, graph, ["dear"], "cpu", 1), plan.SIZES, seconds=0)
    assert [cost.rows for cost in costs] == [1]
    assert min(costs[0].fused, costs[0].base, costs[0].heads["dear"]) > 0


def test_nothing_but_the_fused_graph_is_loaded_where_every_head_is_cheap(uneven: Bundle):
    bundle = with_operations(uneven, trunk=1000, heads_dear=30, heads_cheap=1)
    made, runtime = plan.load(bundle, chosen(bundle), "cpu", 1)
    assert made == Plan((), "no head has 3% of the model's operations")
    assert isinstance(runtime, OnnxRuntime)


@pytest.mark.parametrize(
    ("flops", "expected"),
    [
        ({"trunk": 960, "heads_dear": 30, "heads_cheap": 10}, ("dear",)),
        ({"trunk": 961, "heads_dear": 29, "heads_cheap": 10}, ()),
        ({"trunk": 960, "heads_dear": 10, "heads_cheap": None}, ("cheap",)),  # not counted: measure it
        ({"trunk": None, "heads_dear": 10, "heads_cheap": 1}, ("cheap", "dear")),
        ({}, ("cheap", "dear")),
    ],
)
def test_heads_of_many_operations_are_measured(uneven: Bundle, flops: dict[str, int | None], expected: tuple[str, ...]):
    assert candidates(with_operations(uneven, **flops).manifest) == expected


def test_a_head_that_costs_more_apart_than_it_saves_stays():
    # Left out it saves 10 - 9 = 1; for everybody it costs 9 + 3 - 10 = 2.
    costs = [cost(1, 10, 9, dear=3)]
    assert decide(costs).apart == ()
    assert decide(costs).why == (
        "a call of its own costs more than it saves (dear 3000.00 ms of 10000.00 ms at 1 rows, 2000.00 ms a call)"
    )


def test_a_head_that_saves_more_than_its_call_costs_runs_apart():
    # It saves 10 - 8.4 = 1.6, and costs 1.4.
    assert decide([cost(1, 10, 8.4, dear=3)]).apart == ("dear",)


def test_every_batch_size_must_agree():
    gains, loses = cost(64, 10, 5, dear=5.1), cost(1, 1, 0.9, dear=0.3)
    assert decide([gains]).apart == ("dear",)
    assert decide([loses, gains]).apart == ()


def test_a_head_too_small_to_matter_stays():
    assert decide([cost(64, 100, 98, small=2.0)]).apart == ()
    assert decide([cost(64, 100, 96, small=4.0)]).apart == ("small",)


def test_of_several_heads_those_that_pay_run_apart():
    made = decide([cost(64, 100, 40, dear=55, other=6, small=1)])  # a call costs 2 / 3
    assert made.apart == ("dear", "other")
    assert "small" not in made.why


def test_the_share_of_rows_below_which_it_pays():
    costs = [cost(1, 1, 0.5, dear=0.6), cost(64, 64, 32, dear=40)]
    # 0.6 + (rows - 1) * 39.4 / 63 is below 32 for up to 51 rows.
    assert pays_below(costs, ["dear"]) == 51 / 64
    assert (
        decide(costs).why
        == "pays where up to 80% of the rows ask (dear 40000.00 ms of 64000.00 ms at 64 rows, 8000.00 ms a call)"
    )


def test_a_head_that_costs_nothing_apart_always_pays():
    costs = [cost(1, 2, 1, dear=0.9), cost(8, 16, 8, dear=7.5)]
    assert pays_below(costs, ["dear"]) == 1
    assert decide(costs).why.startswith("pays however many rows ask (")


def test_what_the_settings_say_is_not_measured(uneven: Bundle):
    made, runtime = plan.load(uneven, chosen(uneven), "cpu", 1, apart="cheap, dear")
    assert made == Plan(("cheap", "dear"), "as asked")
    assert isinstance(runtime, Cobatching)
    made, whole = plan.load(uneven, chosen(uneven), "cpu", 1, apart="none")
    assert made == Plan((), "as asked")
    assert isinstance(whole, OnnxRuntime)


def test_a_head_that_is_not_there_cannot_be_asked_for(uneven: Bundle):
    with pytest.raises(RuntimeUnavailable) as caught:
        plan.load(uneven, chosen(uneven), "cpu", 1, apart="dear,chaep")
    assert str(caught.value) == "head 'chaep' is not in model uneven/1 (heads: dear, cheap): check apart"


def test_another_runtime_runs_the_fused_graph(uneven: Bundle):
    torchscript = chosen(uneven, "torchscript")
    made, runtime = plan.load(uneven, torchscript, "cpu", 1)
    why = "trunk and heads are ONNX graphs in fp32, and fused-torchscript on torchscript was chosen"
    assert made == Plan((), why)
    assert runtime.name == "torchscript"
    with pytest.raises(RuntimeUnavailable) as caught:
        plan.load(uneven, torchscript, "cpu", 1, apart="dear")
    assert str(caught.value) == f"heads dear cannot run apart: {why}; serve it with apart=auto"


def test_a_bundle_without_graphs_of_trunk_and_heads_runs_the_fused_graph(mlp):
    made, runtime = plan.load(mlp.bundle, chosen(mlp.bundle), "cpu", 1)
    assert made == Plan((), "the bundle has no graphs of trunk and heads: they were not asked for")
    assert isinstance(runtime, OnnxRuntime)
    with pytest.raises(RuntimeUnavailable) as caught:
        plan.load(mlp.bundle, chosen(mlp.bundle), "cpu", 1, apart="color")
    assert str(caught.value) == (
        "bundle mlp/1.0 has no graphs of trunk and heads (they were not asked for), "
        "so that no head can run apart: serve it with apart=none or auto"
    )

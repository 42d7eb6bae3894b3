"""Programs of torch.export behind the seam that every runtime has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from polyhead.export.assemble import export
from polyhead.export.source import Source, random_samples
from polyhead.models.spec import ModelSpec
from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import RuntimeUnavailable
from polyhead.serving.runtimes import base

FILE = "graphs/fused.pt2"
SPEC = ModelSpec.parse(
    {
        "name": "tiny",
        "version": "1",
        "inputs": {"x": {"kind": "tensor", "shape": ["steps", 6]}},
        "heads": {"kind": {"kind": "classification", "labels": ["a", "b", "c"]}, "size": {"kind": "regression"}},
    }
)


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk, self.kind, self.size = nn.Linear(6, 8), nn.Linear(8, 3), nn.Linear(8, 1)

    def forward(self, x):
        features = self.trunk(x).relu().mean(1)
        return {"kind": self.kind(features), "size": self.size(features)}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    source = Source(Tiny(), SPEC, random_samples(SPEC))
    return export(source, tmp_path_factory.mktemp("bundles") / "tiny", ["program"])[0]


@pytest.fixture
def loaded(bundle: Bundle) -> base.Runtime:
    graph = bundle.manifest.graph("fused-program")
    return base.load("program", graph, bundle.graph_files(graph), "cpu", 1)


@pytest.mark.parametrize(("count", "steps"), [(1, 1), (2, 7), (64, 3)])
def test_a_program_answers_as_its_network_at_any_size(loaded: base.Runtime, count: int, steps: int):
    x = np.random.default_rng(0).standard_normal((count, steps, 6)).astype(np.float32)
    with torch.inference_mode():
        expected = Tiny().eval()(torch.from_numpy(x))
    for head, output in zip(("size", "kind"), loaded.run([x], ["size", "kind"]), strict=True):
        np.testing.assert_allclose(output, expected[head].numpy(), rtol=1e-4, atol=1e-5)
    (packed,) = loaded.run([x], ["polyhead_packed"])
    assert packed.shape == (count, 4)
    assert (loaded.name, loaded.device) == ("program", "cpu")


def test_rows_that_cannot_be_written_to_are_taken_and_left_as_they_are(loaded: base.Runtime):
    data = np.ones((2, 3, 6), np.float32)
    frozen = np.frombuffer(data.tobytes(), np.float32).reshape(data.shape)
    np.testing.assert_array_equal(loaded.run([frozen], ["kind"])[0], loaded.run([data], ["kind"])[0])
    np.testing.assert_array_equal(data, 1)


def test_an_output_that_is_not_there_is_an_error(loaded: base.Runtime):
    with pytest.raises(KeyError):
        loaded.run([np.ones((2, 3, 6), np.float32)], ["nose"])


@pytest.mark.parametrize("harm", ["nothing", "pickle", "half", "noise"])
def test_a_damaged_file_is_refused_by_name(bundle: Bundle, harm: str):
    data = bundle.read(FILE)
    other = {
        "nothing": b"",
        "pickle": b"\x80\x04cposix\nsystem\n",
        "half": data[: len(data) // 2],
        "noise": bytes(len(data)),
    }[harm]
    with pytest.raises(RuntimeUnavailable, match=rf"^torch\.export cannot load {FILE}: ") as caught:
        base.load("program", bundle.manifest.graph("fused-program"), {FILE: other}, "cpu", 1)
    assert "\n" not in str(caught.value)

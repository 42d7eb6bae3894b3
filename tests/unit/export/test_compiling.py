"""A program compiled for this machine: in the cache, never in the bundle, and refused where it cannot be trusted."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from torch import nn

from polyhead.export import compiling
from polyhead.export.assemble import export
from polyhead.export.errors import ExportError
from polyhead.export.samples import random_samples
from polyhead.export.source import Source
from polyhead.models.spec import ModelSpec
from polyhead.serving.bundle import Bundle
from polyhead.serving.engine import Engine
from polyhead.serving.errors import GoldenMismatch, RuntimeUnavailable
from polyhead.serving.runtimes.aotinductor import cached

SPEC = ModelSpec.parse(
    {
        "name": "net",
        "version": "1",
        "inputs": {"x": {"kind": "tensor", "shape": [6]}},
        "heads": {"kind": {"kind": "classification", "labels": ["a", "b", "c"]}, "size": {"kind": "regression"}},
    }
)

needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in compiling.COMPILERS), reason="no C++ compiler on this machine"
)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Linear(6, 8)
        self.kind = nn.Linear(8, 3)
        self.size = nn.Linear(8, 1)

    def forward(self, x):
        features = torch.relu(self.trunk(x))
        return {"kind": self.kind(features), "size": self.size(features)}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    torch.manual_seed(0)
    source = Source(Net().eval(), SPEC, random_samples(SPEC))
    return export(source, tmp_path_factory.mktemp("bundles") / "net", ("program",))[0]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, cache):
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))


def test_without_a_compiled_program_the_runtime_says_how_to_make_one(bundle):
    with pytest.raises(
        RuntimeUnavailable, match=r"fused.pt2 is not compiled for this machine .* polyhead export --com"
    ):
        Engine.load(bundle, "aotinductor", "cpu")


def test_auto_never_takes_it_by_itself(bundle):
    assert Engine.load(bundle, "auto", "cpu").runtime.name == "program"


def test_a_bundle_without_a_program_is_refused(bundle, tmp_path):
    other, _ = export(Source(Net().eval(), SPEC, random_samples(SPEC)), tmp_path / "other", ("torchscript",))
    with pytest.raises(RuntimeUnavailable, match="no graph of fp32 for runtime 'aotinductor'"):
        compiling.compile_program(other, "cpu")


def test_without_a_compiler_it_says_what_to_install(bundle, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ExportError, match=r"needs a C\+\+ compiler.*install g\+\+"):
        compiling.compile_program(bundle, "cpu")


@needs_compiler
def test_a_compiled_program_answers_as_eager_does_and_is_refused_where_others_could_write_it(bundle):
    before = Bundle.open(bundle.folder).digest
    path = compiling.compile_program(bundle, "cpu")
    assert path == cached(bundle.read("graphs/fused.pt2"), "cpu")
    assert Bundle.open(bundle.folder).digest == before  # the bundle holds no machine code

    engine = Engine.load(bundle, "aotinductor", "cpu")
    engine.replay_golden()
    rows = np.random.default_rng(0).standard_normal((33, 6)).astype(np.float32)
    expected = Engine.load(bundle, "program", "cpu").run({"x": rows})
    for head, values in engine.run({"x": rows}).items():
        np.testing.assert_allclose(values, expected[head], atol=1e-5)

    path.chmod(0o666)
    with pytest.raises(RuntimeUnavailable, match="may have been written by somebody else"):
        Engine.load(bundle, "aotinductor", "cpu")
    path.chmod(0o600)

    path.write_bytes(b"not a package")
    with pytest.raises(RuntimeUnavailable, match=r"cannot be loaded .* remove it, and compile again"):
        Engine.load(bundle, "aotinductor", "cpu")


@needs_compiler
def test_what_computes_something_else_does_not_stay_in_the_cache(bundle, monkeypatch):
    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", _copy)
    monkeypatch.setattr(torch._inductor, "aoti_load_package", lambda path: _model)
    path = cached(bundle.read("graphs/fused.pt2"), "cpu")
    with pytest.raises(GoldenMismatch, match=r"head 'kind' .* does not reproduce the golden samples"):
        compiling.compile_program(bundle, "cpu")
    assert not path.exists()


def _copy(program, package_path, inductor_configs):
    with open(package_path, "wb") as file:  # noqa: PTH123
        file.write(b"machine code that computes something else")


def _model(x):
    return torch.ones(len(x), 3), torch.ones(len(x), 1), torch.ones(len(x), 4)

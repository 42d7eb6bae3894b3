"""Ways to break an export, each planted as it happens, each refused: head, graph, runtime and case, and a way out.

Some are in the network, so that nothing sound can be written of it; the others in the file, after it was written.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, helper
from torch import nn
from torch.nn import functional

from polyhead.export import assemble, parity, quantization
from polyhead.export.errors import ExportError, ParityError
from polyhead.export.graphs import FusedGraph
from polyhead.export.weights import whole
from polyhead.serving.bundle import Bundle
from polyhead.serving.engine import Engine
from polyhead.serving.errors import GoldenMismatch
from polyhead.serving.manifest import Format, Graph, Precision
from polyhead.serving.runtimes import base
from polyhead.serving.split import SplitRuntime
from tests.unit.export.breakable import (
    KIND,
    NUMBERS,
    Numbers,
    Pictures,
    Sound,
    Words,
    answer_the_first_row,
    bypass,
    earlier_trunk,
    fix_the_batch,
    fix_the_length,
    halve_weights,
    keep_padding,
    lose_the_mask,
    lose_the_normalisation,
    maker,
    reweigh,
    shuffle_labels,
    sound,
    source,
    spec,
    swap_heads,
    swap_outputs,
    turn_the_channels,
    weight,
)


@pytest.fixture(scope="module")
def numbers(tmp_path_factory) -> Sound:
    return sound(Numbers(), tmp_path_factory.mktemp("numbers"))


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> Sound:
    return sound(Words(), tmp_path_factory.mktemp("words"), apart=True)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Sound:
    return sound(Pictures(), tmp_path_factory.mktemp("pictures"))


# --- in the network -------------------------------------------------------------------------------------------------


class DropoutLeftOn(Numbers):
    def features(self, x):
        return functional.dropout(super().features(x), 0.5)


class KeepsState(Numbers):
    """What it answers depends on how many requests came before."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(16))

    def features(self, x):
        features = super().features(x)
        self.mean.mul_(0.9).add_(features.mean(0), alpha=0.1)
        return features - self.mean


class BranchesOnData(Numbers):
    """A branch of Python: torch.export refuses it, and a trace keeps the side that the example took."""

    def features(self, x):
        return super().features(x if bool((x.abs() > 4).any()) else x.clamp(-1, 1))


class IgnoresTheMask(Words):
    def mask(self, attention_mask):
        return None


class BranchesOnPadding(Words):
    """A way of its own for rows without padding, as nn.TransformerEncoder has one: a trace keeps the one it saw."""

    def forward(self, input_ids, attention_mask):
        output = super().forward(input_ids, attention_mask)
        return output if bool(attention_mask.all()) else {**output, "intent": output["intent"] * 1.01}


class Divides(Numbers):
    """A row of zeros has no direction."""

    def features(self, x):
        return super().features(x / x.norm(dim=1, keepdim=True))


class Overflows(Numbers):
    """A feature of a million is an everyday number in fp32, and none in fp16."""

    def features(self, x):
        return super().features(x) * 1e6

    def forward(self, x):
        return {name: output * 1e-6 if name != "vector" else output for name, output in super().forward(x).items()}


class Close(Numbers):
    """Labels that nearly agree on a large number: what tells them apart is finer than a step of eight bits."""

    spec = spec(NUMBERS, kind=KIND)

    def forward(self, x):
        return {"kind": self.kind(self.features(x))}

    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.kind.weight.copy_(self.kind.weight[:1] * 100 + torch.randn(3, 16) * 0.1)
            self.kind.bias.zero_()


class RunsOverPadding(nn.Module):
    """The last state of an LSTM is that after the padding."""

    spec = spec({"steps": {"kind": "tensor", "shape": ["time", 3], "lengths": {"time": [2, 12]}, "pad": 0}}, kind=KIND)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.LSTM(3, 8, batch_first=True)
        self.kind = nn.Linear(8, 3)

    def forward(self, steps):
        return {"kind": self.kind(self.trunk(steps)[0][:, -1])}


@dataclass(frozen=True)
class Broken:
    """A network that must be refused.

    Attributes:
        message: a pattern of the whole of it.
        samples: where random ones do not show it.
    """

    network: Callable[[], nn.Module]
    formats: tuple[Format, ...]
    error: type[ExportError]
    message: str
    precisions: tuple[Precision, ...] = ()
    samples: Mapping[str, Any] = field(default_factory=dict)


ROWS = np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32)
ONE_OF_ZEROS, ONE_LARGE = ROWS.copy(), ROWS.copy()
ONE_OF_ZEROS[17] = 0
ONE_LARGE[17] = 5

NETWORKS = {
    "dropout left on": Broken(
        DropoutLeftOn,
        ("torchscript",),
        ExportError,
        r"head 'colour' answers the same rows differently each time \(by .*\): is dropout on, or a random number "
        r"drawn in forward\? \(functional dropout needs training=self\.training\)",
    ),
    "state between requests": Broken(
        KeepsState, ("torchscript",), ExportError, r"head 'colour' answers the same rows differently each time .*"
    ),
    "a branch on data, traced": Broken(
        BranchesOnData,
        ("torchscript",),
        ParityError,
        r"head 'colour' of graph graphs/fused\.ts \(torchscript on cpu\) is not eager's: batch 64, shape \[64, 3\]: "
        r"error .* in row \d+, allowed .*; a graph holds no branch of Python on values or sizes: "
        r"write it with torch\.where, or leave --format torchscript out",
        samples={"x": ONE_LARGE},
    ),
    "a branch on data, exported": Broken(
        BranchesOnData, ("program",), ExportError, r"torch\.export refuses the network: .*", samples={"x": ONE_LARGE}
    ),
    "a mask ignored": Broken(
        IgnoresTheMask,
        ("torchscript",),
        ParityError,
        r"head 'intent' of graph graphs/fused\.ts \(torchscript on cpu\) is not eager's: row alone against row in "
        r"batch, shape \[64, 3\]: error .*; an answer may not depend on padding: the network must use attention_mask",
    ),
    "a branch on padding, traced": Broken(
        BranchesOnPadding,
        ("torchscript",),
        ParityError,
        r"head 'intent' of graph graphs/fused\.ts \(torchscript on cpu\) is not eager's: rows of differing lengths, "
        r"shape \[2, 3\]: error .*; a graph holds no branch of Python on values or sizes: "
        r"write it with torch\.where, or leave --format torchscript out",
        samples={
            "text": ["turn on the light in set", "in the kitchen on off zoe"]
        },  # eight tokens, a bucket of its own
    ),
    "padded steps leaking": Broken(
        RunsOverPadding,
        ("torchscript",),
        ParityError,
        r"head 'kind' of graph graphs/fused\.ts \(torchscript on cpu\) is not eager's: row alone against row in "
        r"batch, shape \[64, 3\]: error .*; "
        r"an answer may not depend on padding: give the network the lengths, or leave pad: out",
    ),
    "statistics of the batch": Broken(
        lambda: Pictures(running=False),
        ("torchscript",),
        ParityError,
        r"head 'ground' of graph graphs/fused\.ts \(torchscript on cpu\) is not eager's: row alone against row in "
        r"batch, shape \[64, 2, 4, 6\]: error .*; an answer may not depend on the other rows of a batch: take no "
        r"statistics of them in forward \(a mean over the rows, a BatchNorm with track_running_stats=False\)",
    ),
    "too few positions": Broken(
        lambda: Words(positions=16),
        ("torchscript",),
        ExportError,
        r"the network does not run on the spec's inputs \(input_ids \[2, 24\], attention_mask \[2, 24\], raw\): "
        r"IndexError: .* \(max_length of 'text' is 24: lower it if the network takes fewer\)",
    ),
    "a row without an answer": Broken(
        Divides,
        ("torchscript",),
        ExportError,
        r"head 'colour': the network itself answers 9 of 192 values that are not finite at batch 64, the first in row "
        r"17: an answer is made of numbers \(a division by zero, or a logarithm or root of nothing, in forward\?\)",
        samples={"x": ONE_OF_ZEROS},
    ),
    "fp16 overflow": Broken(
        Overflows,
        ("torchscript",),
        ParityError,
        r"head 'colour' of graph graphs/fused-fp16\.ts \(torchscript on cpu\) is not eager's: batch 1, "
        r"shape \[1, 3\]: \d of its values are not finite; fp16 ends at 65504: export bf16, which does not, or scale "
        r"what is so large; the first operation that diverges, at batch 1: 'mul_4' \(mul\.Tensor\), in fp16: .*",
        precisions=("fp16",),
    ),
    "int8 that decides otherwise": Broken(
        Close,
        ("onnx",),
        ParityError,
        r"head 'kind' of graph graphs/fused-int8\.onnx \(onnxruntime on cpu\) is not eager's: over all cases, \d+ of "
        r"\d+ clear decisions differ, 98\.0% must be the same; "
        r"keep the head in fp32 \(--keep-fp32 kind\), or leave --precision int8 out.*",
        precisions=("int8",),
    ),
}


def refused(broken: Broken, out: Path, force: bool = False) -> str:
    network = broken.network()
    with pytest.raises(broken.error) as caught:
        assemble.export(
            source(network, network.spec, **broken.samples),
            out,
            broken.formats,
            force,
            precisions=broken.precisions,
            apart=False,
        )
    assert type(caught.value) is broken.error
    return str(caught.value)


def refused_as_it_should_be(how: str, out: Path, force: bool = False) -> None:
    message = refused(NETWORKS[how], out, force)
    assert "\n" not in message
    assert re.fullmatch(NETWORKS[how].message, message), message


BESIDE_AN_OLD_ONE = ("dropout left on", "a mask ignored", "fp16 overflow")


@pytest.mark.parametrize("how", [how for how in NETWORKS if how not in BESIDE_AN_OLD_ONE])
def test_a_network_that_no_graph_can_be_true_to_is_refused_and_nothing_is_left(tmp_path, how):
    refused_as_it_should_be(how, tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", BESIDE_AN_OLD_ONE)
def test_a_network_that_is_refused_leaves_the_bundle_that_was_there(tmp_path, numbers, how):
    shutil.copytree(numbers.bundle.folder, tmp_path / "bundle")
    refused_as_it_should_be(how, tmp_path / "bundle", force=True)
    assert Bundle.open(tmp_path / "bundle").digest == numbers.bundle.digest
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


# --- in the file ----------------------------------------------------------------------------------------------------


BEYOND = r"error \S+ in row \d+, allowed \S+ \(\d+ of \d+ values beyond it\)"
WAY_OUT = (
    r"; a graph holds no branch of Python on values or sizes: write it with torch\.where, or leave --format onnx out"
)
ANY_SIZE = (
    r"; a graph takes any number of rows and any length of the spec: "
    r"is one of the example's in it \(a Python number of a shape, a reshape to a fixed size\)\?"
)


def differs(head: str, case: str, shape: str, wrong: str = BEYOND) -> str:
    return (
        rf"head '{head}' of graph graphs/fused\.onnx \(onnxruntime on cpu\) is not eager's: {case}, "
        rf"shape \[{shape}\]: {wrong}{WAY_OUT}"
    )


def fails(case: str, said: str) -> str:
    return rf"graph graphs/fused\.onnx \(onnxruntime on cpu\) fails at {case}: .*{said}.*{ANY_SIZE}"


FILES: dict[str, tuple[str, Callable[[ModelProto], None], str]] = {
    "outputs swapped": ("numbers", swap_outputs, differs("colour", "batch 1", "1, 3")),
    "heads swapped": ("numbers", swap_heads, differs("colour", "batch 1", "1, 3")),
    "labels shuffled": ("numbers", shuffle_labels, differs("kind", "batch 1", "1, 3")),
    "an earlier trunk": ("numbers", earlier_trunk, differs("colour", "batch 1", "1, 3")),
    "weights in half": ("numbers", halve_weights, differs(".*", "batch .*", r"\d+, \d")),
    "an activation lost": ("numbers", lambda model: bypass(model, "Relu"), differs("colour", "batch 1", "1, 3")),
    "a norm lost": ("numbers", lambda model: bypass(model, "Div"), differs("vector", "batch 1", "1, 4")),
    "a batch of one": ("numbers", lambda model: fix_the_batch(model, 1), fails("batch 2", "Reshape")),
    "a batch of two": ("numbers", lambda model: fix_the_batch(model, 2), fails("batch 1", "Reshape")),
    "the first row for all": (
        "numbers",
        answer_the_first_row,
        differs("colour", "batch 2", "2, 3", r"shape \[1, 3\], eager has \[2, 3\]"),
    ),
    "a length of eight": ("words", fix_the_length, fails(r"(batch \d+|24 tokens)", "Add")),
    "a mask lost": ("words", lose_the_mask, differs("intent", r"batch \d+", r"\d+, 3")),
    "padding not zero": ("words", keep_padding, differs("slots", r"batch \d+", r"\d+, \d+, 3")),
    "mean and deviation lost": ("pictures", lose_the_normalisation, differs("ground", "batch 1", "1, 2, 4, 6")),
    "channels in another order": ("pictures", turn_the_channels, differs("ground", "batch 1", "1, 2, 4, 6")),
}


@pytest.mark.parametrize("how", FILES)
def test_a_file_that_is_not_the_network_is_refused(request, how):
    name, plant, pattern = FILES[how]
    made: Sound = request.getfixturevalue(name)
    model = made.model()
    plant(model)
    onnx.checker.check_model(model)  # a sound graph of something else: no checker of graphs sees it
    message = made.refused(model)
    assert re.fullmatch(pattern, message), message


@pytest.mark.parametrize("name", ["numbers", "words", "pictures"])
def test_what_is_as_it_was_written_passes(request, name):
    made: Sound = request.getfixturevalue(name)
    found = made.check(made.model())
    assert found.agreement == 1.0
    assert found.largest < 1e-5
    assert sum(clear for clear, _ in found.decisions.values()) > 64


def test_the_weights_of_an_earlier_checkpoint_are_refused(numbers):
    """The network was trained on after its graph was written."""
    newer = copy.deepcopy(numbers.source.network)
    with torch.no_grad():
        newer.size.bias += 0.01
    pattern = differs("size", "batch 1", "1, 1", r"error 0\.01 in row 0, allowed \S+ \(1 of 1 values beyond it\)")
    message = numbers.refused(numbers.model(), network=newer)
    assert re.fullmatch(pattern, message), message


# --- in what the manifest says of the packed output -----------------------------------------------------------------


def repacked(made: Sound, **columns: tuple[int, int]) -> Graph:
    packed = made.entry.packed
    assert packed is not None
    return made.entry.model_copy(
        update={"packed": packed.model_copy(update={"columns": {**packed.columns, **columns}})}
    )


def test_packed_columns_that_are_shifted_are_refused(numbers):
    entry = repacked(numbers, colour=(1, 4), kind=(4, 7), size=(7, 8), vector=(8, 12))
    assert numbers.refused(numbers.model(), entry) == (
        "graph graphs/fused.onnx (onnxruntime on cpu): the packed output has 11 columns, which colour 1:4, kind 4:7, "
        "size 7:8, vector 8:12 do not fill one after the other, at batch 1: export again"
    )


def test_packed_columns_that_overlap_are_refused(numbers):
    message = numbers.refused(numbers.model(), repacked(numbers, kind=(2, 5)))
    assert "which colour 0:3, kind 2:5, size 6:7, vector 7:11 do not fill one after the other" in message


def test_packed_columns_of_another_head_are_refused(numbers):
    entry = repacked(numbers, colour=(3, 6), kind=(0, 3))
    assert numbers.refused(numbers.model(), entry) == (
        "head 'colour' of graph graphs/fused.onnx (onnxruntime on cpu): columns 3:6 of the packed output are not the "
        "head's own output, at batch 1: export again"
    )


def test_a_packed_output_that_holds_something_else_is_refused(numbers):
    """Every head by itself is right; what serving asks for is not."""
    model = numbers.model()
    maker(model, "polyhead_packed").output[:] = ["sound"]
    maker(model, "kind").input[0] = "sound"
    model.graph.node.append(helper.make_node("Neg", ["sound"], ["polyhead_packed"], name="last"))
    assert numbers.refused(model) == (
        "head 'colour' of graph graphs/fused.onnx (onnxruntime on cpu): columns 0:3 of the packed output are not the "
        "head's own output, at batch 1: export again"
    )


# --- in a graph of a part -------------------------------------------------------------------------------------------


def split(made: Sound, plant: Callable[[ModelProto], None] | None, broken: str = "") -> parity.Parity:
    """The gate on trunk and heads, with one of these graphs planted."""
    pieces = {}
    for entry in made.bundle.manifest.graphs:
        if entry.part != "fused":
            model = whole(made.bundle, entry)
            if plant is not None and entry.id == broken:
                plant(model)
            entry = entry.model_copy(update={"weights": None})
            files = {entry.file: model.SerializeToString()}
            pieces[entry.id] = (entry, base.load("onnxruntime", entry, files, "cpu", 1))
    arrays, heads = made.entry.inputs, made.source.spec.head_names
    runtime = SplitRuntime(arrays, pieces["trunk-onnx"], {head: pieces[f"head-onnx.{head}"] for head in heads})
    entry = pieces["trunk-onnx"][0].model_copy(update={"inputs": arrays, "outputs": heads})
    return parity.check(entry, runtime, FusedGraph(made.source.network, made.source.spec), made.source.batches())


def test_trunk_and_heads_as_they_were_written_pass(words):
    assert split(words, None).largest < 1e-5


def shuffle_intents(model: ModelProto) -> None:
    reweigh(model, "intent.weight", weight(model, "intent.weight")[[1, 2, 0]])


@pytest.mark.parametrize(
    ("broken", "plant", "head"),
    [
        ("head-onnx.intent", shuffle_intents, "intent"),
        ("trunk-onnx", lose_the_mask, "intent"),
        ("head-onnx.slots", keep_padding, "slots"),
    ],
    ids=["a head's labels shuffled", "the trunk's mask lost", "a head's padding not zero"],
)
def test_a_part_that_is_not_the_network_is_refused(words, broken, plant, head):
    with pytest.raises(ParityError) as caught:
        split(words, plant, broken)
    assert str(caught.value).startswith(
        f"head '{head}' of graph graphs/trunk.onnx with the head's own graph behind it (onnxruntime on cpu) "
        "is not eager's: batch "
    )


# --- when it is loaded ----------------------------------------------------------------------------------------------


def planted(made: Sound, folder: Path, plant: Callable[[ModelProto], None], entry: Graph | None = None) -> Engine:
    """A whole bundle with another graph in it, as somebody makes it who writes the hashes too."""
    shutil.copytree(made.bundle.folder, folder)
    model = made.model()
    plant(model)
    data = model.SerializeToString()
    (folder / made.entry.file).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][made.entry.file] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    place = [graph["id"] for graph in manifest["graphs"]].index(made.entry.id)
    manifest["graphs"][place] = (entry or made.entry).model_dump(mode="json")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Engine.load(Bundle.open(folder), "onnxruntime", "cpu")


def not_golden(head: str, how: str = "together") -> str:
    return (
        rf"bundle sound/1: head '{head}' of graphs/fused\.onnx does not reproduce the golden samples "
        rf"\({how}, onnxruntime on cpu\): {BEYOND}; export the bundle again"
    )


@pytest.mark.parametrize("name", ["numbers", "words", "pictures"])
def test_a_bundle_that_is_what_it_was_is_loaded(request, tmp_path, name):
    planted(request.getfixturevalue(name), tmp_path / "bundle", lambda model: None).replay_golden()


@pytest.mark.parametrize(
    ("name", "plant", "head"),
    [
        ("numbers", swap_heads, "(kind|colour)"),
        ("numbers", shuffle_labels, "kind"),
        ("numbers", earlier_trunk, "(kind|colour|size|vector)"),
        ("words", lose_the_mask, "(intent|slots)"),
        ("words", keep_padding, "slots"),
        ("pictures", lose_the_normalisation, "(kind|ground)"),
    ],
    ids=[
        "heads swapped",
        "labels shuffled",
        "an earlier trunk",
        "a mask lost",
        "padding not zero",
        "mean and deviation lost",
    ],
)
def test_golden_samples_show_it_at_load(request, tmp_path, name, plant, head):
    engine = planted(request.getfixturevalue(name), tmp_path / "bundle", plant)
    with pytest.raises(GoldenMismatch) as caught:
        engine.replay_golden()
    assert re.fullmatch(not_golden(head), str(caught.value)), str(caught.value)


def test_golden_samples_show_columns_that_changed_places(numbers, tmp_path):
    entry = repacked(numbers, colour=(3, 6), kind=(0, 3))
    engine = planted(numbers, tmp_path / "bundle", lambda model: None, entry)
    with pytest.raises(GoldenMismatch) as caught:
        engine.replay_golden()
    assert re.fullmatch(not_golden("(kind|colour)"), str(caught.value)), str(caught.value)


# --- int8 -----------------------------------------------------------------------------------------------------------


def test_a_scale_for_the_whole_batch_is_refused(numbers, tmp_path):
    """ONNX Runtime's own dynamic quantisation: one row of large numbers takes all others' digits away."""
    from onnxruntime.quantization import quantize_dynamic

    rows = {"x": np.array(numbers.source.arrays()["x"])}
    rows["x"][5] *= 1000
    fields = {"id": "fused-onnx-int8", "file": "graphs/fused-int8.onnx", "precision": "int8"}
    limits = {"tolerance": parity.TOLERANCE["int8"], "agreement": parity.AGREEMENT["int8"]}
    entry = numbers.entry.model_copy(update={**fields, **limits})
    graph = FusedGraph(numbers.source.network, numbers.source.spec)

    def check(data: bytes) -> parity.Parity:
        return parity.check(entry, base.load("onnxruntime", entry, {entry.file: data}, "cpu", 1), graph, [rows])

    model = numbers.model()
    del model.graph.value_info[:]  # it turns weights over, and leaves the shapes that are noted there
    quantize_dynamic(model, tmp_path / "int8.onnx")
    with pytest.raises(ParityError) as caught:
        check((tmp_path / "int8.onnx").read_bytes())
    assert re.fullmatch(
        r"head 'colour' of graph graphs/fused-int8\.onnx \(onnxruntime on cpu\) is not eager's: batch 7, "
        rf"shape \[7, 3\]: {BEYOND}; keep the head in fp32 \(--keep-fp32 colour\), or leave --precision int8 out",
        str(caught.value),
    ), str(caught.value)
    check(quantization.dynamic(numbers.model()).SerializeToString())

"""What is written is read back as TensorBoard reads it."""

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.graph_pb2 import GraphDef
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from polyhead.models.calling import Caller
from polyhead.models.learning.inspection import GradientReport, weight_norms
from polyhead.models.learning.tensorboard import (
    POINTS,
    InspectionError,
    log_gradients,
    log_graph,
    log_projector,
    log_weight_norms,
)
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.spec import ModelSpec
from polyhead.models.trunks.mlp import MLP

SPEC = ModelSpec.parse(
    {
        "name": "m",
        "version": "1",
        "inputs": {"left": {"kind": "tensor", "shape": [3]}, "right": {"kind": "tensor", "shape": [3]}},
        "heads": {"a": {"kind": "classification", "labels": ["x", "y"]}, "b": {"kind": "regression"}},
    }
)


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.normal = nn.BatchNorm1d(4)

    def forward(self, left, right):
        return self.normal(self.linear(left - right))


@pytest.fixture
def writer(tmp_path):
    with SummaryWriter(tmp_path) as opened:
        yield opened


def events(writer):
    writer.flush()
    return EventAccumulator(str(writer.log_dir)).Reload()


def scalars(writer):
    read = events(writer)
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def test_gradients_are_scalars_by_task_and_pair(writer):
    log_gradients(writer, GradientReport({"a": 2.0, "b-c": 0.5}, {"a|b-c": -0.25}), 7)
    log_gradients(writer, GradientReport({"a": 3.0}, {}), 9)
    assert scalars(writer) == {
        "gradient_norm/a": [(7, 2.0), (9, 3.0)],
        "gradient_norm/b-c": [(7, 0.5)],
        "gradient_cosine/a/b-c": [(7, -0.25)],
    }


def test_weight_norms_are_scalars_by_part(writer):
    network = MultiTaskNetwork(MLP(2, (3, 3)), {"a": nn.Linear(3, 1)})
    log_weight_norms(writer, network, 4)
    written = {tag: values[0] for tag, values in scalars(writer).items()}
    assert set(written) == {"weight_norm/trunk/0", "weight_norm/trunk/1", "weight_norm/heads/a"}
    for part, norm in weight_norms(network).items():
        assert written[f"weight_norm/{part}"] == (4, pytest.approx(norm))


def test_the_projector_gets_vectors_labels_and_thumbnails(writer, tmp_path):
    vectors = np.arange(15, dtype=np.float32).reshape(5, 3)
    images = np.zeros((5, 8, 6, 1), dtype=np.uint8)
    images[3] = 255
    log_projector(writer, "embedding", vectors, ["zero", "one", "two\tcells", "drei\nZeilen", "é😀"], images, step=2)
    folder = tmp_path / "00002" / "embedding"
    rows = [line.split("\t") for line in (folder / "tensors.tsv").read_text().splitlines()]
    np.testing.assert_array_equal(np.array(rows, dtype=np.float32), vectors)
    labels = (folder / "metadata.tsv").read_text(encoding="utf-8").splitlines()
    assert labels == ["zero", "one", "two cells", "drei Zeilen", "é😀"]
    with Image.open(folder / "sprite.png") as opened:
        sheet = np.asarray(opened)
    assert sheet.shape == (24, 24, 3)  # 3 x 3 squares of 8
    white = np.zeros((24, 24), dtype=bool)
    white[8:16, 0:6] = True  # the fourth, two columns short of a square
    np.testing.assert_array_equal(sheet[..., 0] > 127, white)
    config = (tmp_path / "projector_config.pbtxt").read_text()
    assert 'tensor_path: "00002/embedding/tensors.tsv"' in config


def test_two_heads_share_the_projector_and_a_resumed_run_replaces_its_files_in_silence(writer, tmp_path, capsys):
    log_projector(writer, "a", torch.zeros(2, 2), ["x", "y"])
    log_projector(writer, "b", torch.zeros(2, 2), ["x", "y"])
    with SummaryWriter(tmp_path) as resumed:
        log_projector(resumed, "a", torch.ones(3, 2), [1, 2, 3])
    assert (tmp_path / "00000" / "a" / "tensors.tsv").read_text() == "1.0\t1.0\n" * 3
    assert (tmp_path / "00000" / "b" / "metadata.tsv").read_text() == "x\ny\n"
    assert capsys.readouterr() == ("", "")


def test_the_projector_gets_no_more_rows_than_a_browser_shows(writer, tmp_path):
    rows = 2 * POINTS
    log_projector(writer, "a", np.arange(rows, dtype=np.float32)[:, None], range(rows))
    labels = (tmp_path / "00000" / "a" / "metadata.tsv").read_text().splitlines()
    vectors = (tmp_path / "00000" / "a" / "tensors.tsv").read_text().splitlines()
    assert len(labels) == POINTS
    assert (labels[0], labels[-1]) == ("0", str(rows - 1))
    assert [float(vector) for vector in vectors] == [float(label) for label in labels]


def test_large_images_shrink(writer, tmp_path):
    images = np.full((4, 200, 100, 3), 200, dtype=np.uint8)
    log_projector(writer, "a", np.zeros((4, 2)), "wxyz", images)
    with Image.open(tmp_path / "00000" / "a" / "sprite.png") as sheet:
        assert sheet.size == (96, 96)


@pytest.mark.parametrize(
    ("name", "vectors", "labels", "images", "said"),
    [
        ("a", (2, 3), "xyz", None, r"projector 'a': 3 labels, vectors \[2, 3\]: give vectors"),
        ("a", (3,), "xyz", None, r"vectors \[3\]"),
        ("a", (3, 2), "xyz", (2, 4, 4, 1), r"images \[2, 4, 4, 1\]"),
        ("../a", (3, 2), "xyz", None, r"projector '../a' is no name of a folder"),
        (".", (3, 2), "xyz", None, "no name of a folder"),
    ],
)
def test_the_projector_refuses_what_does_not_fit(writer, tmp_path, name, vectors, labels, images, said):
    before = set(tmp_path.rglob("*"))
    pictures = None if images is None else np.zeros(images, dtype=np.uint8)
    with pytest.raises(InspectionError, match=said):
        log_projector(writer, name, np.zeros(vectors), labels, pictures)
    assert set(tmp_path.rglob("*")) == before


def test_the_graph_shows_trunk_and_heads_and_leaves_every_mode_as_it_was(writer, capsys):
    torch.manual_seed(0)
    caller = Caller(MultiTaskNetwork(Sum(), {"a": nn.Linear(4, 2), "b": nn.Linear(4, 1)}), SPEC, ("a", "b"))
    caller.train()
    caller.network.trunk.eval()  # as a frozen trunk is
    before = caller.state_dict()
    log_graph(writer, caller, {"left": torch.randn(2, 3), "right": torch.randn(2, 3)})
    graph = GraphDef.FromString(events(writer).Graph().SerializeToString())
    names = [node.name for node in graph.node]
    assert any("Sum[trunk]/Linear[linear]" in name for name in names)
    assert any("Linear[a]" in name for name in names)
    assert any("Linear[b]" in name for name in names)
    assert caller.network.heads["a"].training
    assert not caller.network.trunk.normal.training
    assert all(torch.equal(before[key], value) for key, value in caller.state_dict().items())
    assert capsys.readouterr() == ("", "")


def test_a_network_that_cannot_be_traced_is_named_without_noise(writer, capsys):
    class Counts(nn.Module):
        def forward(self, left, right):
            raise RuntimeError("no trace of this\nsecond line")

    caller = Caller(MultiTaskNetwork(Counts(), {"a": nn.Linear(4, 2)}), SPEC, ("a",))
    with pytest.raises(InspectionError, match=r"cannot be traced \(no trace of this\): train without it$"):
        log_graph(writer, caller, {"left": torch.zeros(2, 3), "right": torch.zeros(2, 3)})
    assert capsys.readouterr() == ("", "")
    assert caller.training

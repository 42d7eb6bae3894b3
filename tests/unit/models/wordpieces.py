"""A real tokenizer of a few words, for tests of texts."""

from __future__ import annotations

from pathlib import Path

import tokenizers

WORDS = "turn on off the kitchen light dim lamp in my room to now please at 20 21 22 degrees make it"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def write_tokenizer(folder: Path) -> Path:
    """A `tokenizer.json` with BERT's special tokens; words of other pieces than these fall into two."""
    pieces = [
        *SPECIAL,
        *WORDS.split(),
        *"abcdefghijklmnopqrstuvwxyz0123456789",
        *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
    ]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = tokenizers.normalizers.BertNormalizer()
    made.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    path = folder / "tokenizer.json"
    made.save(str(path))
    return path

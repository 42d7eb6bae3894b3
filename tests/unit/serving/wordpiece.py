"""A small BERT tokenizer for the tests, made on the spot: lower case, no accents, letters as its smallest pieces."""

from __future__ import annotations

import string
from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

__all__ = ["SPECIAL", "VOCABULARY", "WORDS", "bytes_json", "tokenizer_json"]

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
WORDS = (
    *("turn", "on", "off", "the", "light", "in", "set", "to", "kitchen", "cafe", "zoe", "living", "room", "bath"),
    *("jose", "hello", "there", "my", "friend", "degrees"),
)
VOCABULARY = (
    *SPECIAL,
    *WORDS,
    "##room",
    *string.ascii_lowercase,
    *(f"##{letter}" for letter in string.ascii_lowercase),
    *string.digits,
    *(f"##{digit}" for digit in string.digits),
    "##°",
    *".,!?'’:",
    "灯",
)


def tokenizer_json(vocabulary: Iterable[str] = VOCABULARY, lower: bool = True, special: bool = True) -> bytes:
    """The content of a tokenizer.json: `[CLS] … [SEP]` where `special`, else the words alone."""
    ids = {token: index for index, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(vocab=ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower, strip_accents=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")]
        )
    # As published files have it: what the spec says counts, not this.
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=9)
    return tokenizer.to_str().encode()


def bytes_json() -> bytes:
    """A tokenizer of bytes, as GPT-2's: it counts the space before a word to it, and cuts characters in pieces."""
    alphabet = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return tokenizer.to_str().encode()

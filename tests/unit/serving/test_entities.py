"""Entities cut their own words out of any text, by offsets in code points."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyhead.models.spec import TextInput
from polyhead.models.tokenizer import Tokenizer
from polyhead.serving.entities import entities, words
from polyhead.serving.request import HttpRequest
from polyhead.serving.responder import Responder
from polyhead.serving.settings import Settings
from tests.unit.serving.wordpiece import bytes_json, tokenizer_json

SLOTS = ("O", "B-room", "I-room", "B-value", "I-value")
LONG = TextInput(kind="text", tokenizer="tokenizer.json", max_length=400)
FAMILY = "👩‍👩‍👧"


@pytest.fixture(scope="module")
def of_lexicon(lexicon) -> Responder:
    return Responder(lexicon.engine(), Settings())


def _answer(responder: Responder, text: str, *heads: str, **options: Any) -> dict[str, Any]:
    body = {"instances": [text], "heads": list(heads or ("slots",)), "options": options}
    (response,) = responder.respond([HttpRequest(orjson.dumps(body), "application/json")])
    assert response.status == 200, response.body
    return dict(orjson.loads(response.body)["predictions"][0])


def _found(text: str, answers: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Label and text of each entity; its offsets must cut that text out."""
    for entity in answers:
        assert text[entity["start"] : entity["end"]] == entity["text"]
        assert 0 < entity["score"] <= 1
    return [(entity["label"], entity["text"]) for entity in answers]


CASES = {
    "plain": ("turn on the kitchen light", [("room", "kitchen")]),
    "two words": ("in the living room", [("room", "living room")]),
    "pieces of a word": ("the bathroom light", [("room", "bathroom")]),
    "casing": ("THE LIVING Room", [("room", "LIVING Room")]),
    "precomposed accent": ("the Caf\u00e9", [("room", "Caf\u00e9")]),
    "combining accent": ("the Cafe\u0301 light", [("room", "Cafe\u0301")]),
    "combining accent at the end": ("Cafe\u0301", [("room", "Cafe\u0301")]),
    "accent before": ("Jos\u00e9, kitchen", [("room", "kitchen")]),
    "several marks on one letter": ("cafe\u0301\u0302\u0323!", [("room", "cafe\u0301\u0302\u0323")]),
    "apostrophe": ("Zoë’s café", [("room", "café")]),
    "emoji before": ("🔥 kitchen", [("value", "🔥"), ("room", "kitchen")]),
    "joined emoji": (f"{FAMILY} kitchen {FAMILY}", [("value", FAMILY), ("room", "kitchen"), ("value", FAMILY)]),
    "emoji with a presentation": ("\u2764\ufe0f bath", [("value", "\u2764\ufe0f"), ("room", "bath")]),
    "emoji with a skin": ("👍🏽 bath", [("value", "👍🏽"), ("room", "bath")]),
    "flag": ("🇩🇪 bath", [("value", "🇩🇪"), ("room", "bath")]),
    "CJK without spaces": ("on灯off", [("room", "灯")]),
    "CJK each its own": ("灯灯", [("room", "灯"), ("room", "灯")]),
    "right to left": ("مرحبا kitchen שלום", [("value", "مرحبا"), ("room", "kitchen"), ("value", "שלום")]),
    "right-to-left mark": ("\u200fkitchen\u200f", [("room", "kitchen")]),
    "degrees": ("to 2.5°C!", [("value", "2.5°C")]),
    "punctuation": ("(kitchen),bath;cafe", [("room", "kitchen"), ("room", "bath"), ("room", "cafe")]),
    "space around": ("  kitchen  bath   ", [("room", "kitchen"), ("room", "bath")]),
    "a double space inside": ("living  room", [("room", "living  room")]),
    "other spaces": ("\u3000living\u00a0room\t\n", [("room", "living\u00a0room")]),
    "NUL": ("the\0 kit\0chen", [("room", "kit\0chen")]),
    "byte order mark": ("\ufeffkitchen", [("room", "kitchen")]),
    "a letter that folds to two": ("İ kitchen ß bath", [("room", "kitchen"), ("room", "bath")]),
    "a special token's name": ("[SEP] kitchen [MASK]", [("room", "kitchen")]),
    "beyond the basic plane": ("𝒳 kitchen", [("value", "𝒳"), ("room", "kitchen")]),
    "empty": ("", []),
    "spaces only": ("   ", []),
    "one word": ("cafe", [("room", "cafe")]),
}


@pytest.mark.parametrize("name", list(CASES))
def test_entities_cut_the_right_words(of_lexicon: Responder, name: str):
    text, expected = CASES[name]
    found = _found(text, _answer(of_lexicon, text)["slots"]["entities"])
    unknown = {"(", ")", ";", "ß", "[", "]"}  # words that are not in the vocabulary count as values: see the lexicon
    assert [entity for entity in found if entity[1] not in unknown] == expected


def test_a_part_of_speech_is_of_each_word(of_lexicon: Responder):
    text = "Turn on Zoë’s bathroom!"
    answer = _answer(of_lexicon, text, "part", scores=True)["part"]
    assert _found(text, answer["entities"]) == [
        ("VERB", "Turn"),
        ("NOUN", "on"),
        ("NOUN", "Zoë"),
        ("OTHER", "’"),
        ("OTHER", "s"),
        ("NOUN", "bathroom"),
        ("OTHER", "!"),
    ]
    assert _found(text, answer["words"]) == _found(text, answer["entities"])


def test_words_have_a_label_each_and_entities_none_that_is_outside(of_lexicon: Responder):
    text = "the Living  Room light"
    answer = _answer(of_lexicon, text, scores=True)["slots"]
    assert _found(text, answer["words"]) == [("O", "the"), ("B-room", "Living"), ("I-room", "Room"), ("O", "light")]
    assert _found(text, answer["entities"]) == [("room", "Living  Room")]


def test_scores_are_those_of_the_network(of_lexicon: Responder):
    """Its logit of the label is 4, of the other four labels 0."""
    answer = _answer(of_lexicon, "the living room", scores=True)["slots"]
    expected = np.exp(4) / (np.exp(4) + 4)
    assert [word["score"] for word in answer["words"]] == pytest.approx([expected] * 3, rel=1e-6)
    assert answer["entities"][0]["score"] == pytest.approx(expected, rel=1e-6)


def test_a_text_of_the_greatest_length_is_answered_to_its_last_word(of_lexicon: Responder):
    text = "the " * 21 + "kitchen"  # and two special tokens: 24
    assert _found(text, _answer(of_lexicon, text)["slots"]["entities"]) == [("room", "kitchen")]


# --- any text -------------------------------------------------------------------------------------------------------

LETTERS = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from(list("aeétz 2.5°'灯👩🏽ßİﬁ½ⅷ\u0301\u0308\u20dd\u200d\ufe0f\u200f\u3000\u0345한각\0\n\ufeff")),
)
PIECES = st.sampled_from(["Café", "room", FAMILY, " ", "灯", "\u0301", "灯\u20dd", ".\u0301", "’s"])
TEXTS = st.one_of(st.text(LETTERS, max_size=20), st.lists(PIECES, max_size=8).map("".join))
TOKENIZERS = {
    "uncased": Tokenizer(tokenizer_json(), LONG),
    "cased": Tokenizer(tokenizer_json(lower=False), LONG),
    "without special tokens": Tokenizer(tokenizer_json(special=False), LONG),
    "of bytes": Tokenizer(bytes_json(), LONG),
}
FUZZ = settings(max_examples=300, deadline=None, database=None)


def _assert_apart(text: str, spans: list[tuple[int, int]]) -> None:
    """In order, none empty, none in another."""
    ends = [0, *(end for _, end in spans)]
    for (start, end), last in zip(spans, ends, strict=False):
        assert last <= start < end <= len(text)


def _read(name: str, text: str, seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Entities and words of a text, of labels drawn at random."""
    (encoding,) = TOKENIZERS[name].encode([text], words=True)
    best = np.random.default_rng(seed).integers(0, len(SLOTS), len(encoding.ids))
    scores = np.random.default_rng(seed).uniform(0.2, 1, len(encoding.ids)).astype(np.float32)
    return entities(encoding, best, scores, SLOTS), words(encoding, best, scores, SLOTS)


@FUZZ
@given(name=st.sampled_from(sorted(TOKENIZERS)), text=TEXTS, seed=st.integers(0, 99))
def test_entities_of_any_text_cut_out_their_own_words(name: str, text: str, seed: int):
    found, all_words = _read(name, text, seed)
    for answers in (found, all_words):
        _found(text, answers)
        _assert_apart(text, [(answer["start"], answer["end"]) for answer in answers])
    assert {entity["label"] for entity in found} <= {"room", "value"}
    edges = {word["start"] for word in all_words} | {word["end"] for word in all_words}
    assert all({entity["start"], entity["end"]} <= edges for entity in found)


@FUZZ
@given(name=st.sampled_from(sorted(TOKENIZERS)), text=TEXTS)
def test_no_word_begins_or_ends_with_a_space_or_cuts_a_character_in_two(name: str, text: str):
    _, all_words = _read(name, text, 0)
    for word in all_words:
        assert word["text"] == word["text"].strip()
        assert unicodedata.category(text[word["end"] :][:1] or " ") != "Mn"

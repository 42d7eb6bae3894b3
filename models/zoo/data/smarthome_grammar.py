"""Sentence templates and words, written out as texts with the spans of their slots.

A template is a text with alternatives `(turn|switch) on the {lights}(| now)` and names in braces, each a list of
further templates. `<...>` inside such a list bounds the slot's span where that is not the whole phrase: `at <7 am>`.
A template that ends in a mark (`.` or `?`) is a sentence and stands alone; one without is a command, which may be
preceded by a request ("could you") and followed by a circumstance ("before Anna gets home").
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np

__all__ = ["Piece", "Span", "Speaker", "Utterance", "Wording", "joined", "plain"]

Span = tuple[int, int, str]
Piece = tuple[str, str]  # text and its slot, "" for none
T = TypeVar("T")

SLOT_OF = {
    "room": "room",
    "person": "person",
    "at": "time",
    "past": "time",
    "duration": "time",
    "value": "value",
    "level": "value",
    "temperature": "temperature",
}
DEVICE_OF = {
    "light": "light",
    "lights": "light",
    "fan": "fan",
    "speaker": "speaker",
    "television": "television",
    "camera": "camera",
    "heating": "heating",
    "blinds": "blind",
    "door": "lock",
}
GADGETS = ("fan", "speaker", "television", "camera", "heating")  # what is switched as a whole, beside the lights

TEMPERATURES = tuple(half / 2 for half in range(30, 61))  # 15 to 30 °C
NUMBERS = (
    *("fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty"),
    *(f"twenty{{-}}{unit}" for unit in ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")),
    "thirty",
)
WHOLE = "({n}|{n}|{n} degrees|{n} degrees|{n}°|{n}°C|{n} °C|{n} degrees Celsius|{n}.0 degrees|{w}|{w} degrees)"
HALF = (
    "({n}.5|{n}.5|{n}.5 degrees|{n}.5 degrees|{n}.5°|{n}.5°C|{n}.5 °C|{n},5 degrees|{n},5 °C"
    "|{n} and a half|{n} and a half degrees|{w} and a half degrees|{w} point five|{w} point five degrees)"
)

EMOJI = ("💡", "🔥", "❄️", "🎶", "🙏", "😀", "🌙", "🏠", "👍🏽", "👩‍🍳", "🇫🇷", "⏰")


@dataclass(frozen=True)
class Wording:
    """What one part of the data is worded with: templates by intent, and the lists that braces name."""

    templates: Mapping[str, tuple[str, ...]]
    words: Mapping[str, tuple[str, ...]]


@dataclass
class Utterance:
    """What one expansion says: its pieces in order, and what they mean."""

    pieces: list[Piece] = field(default_factory=list)
    devices: set[str] = field(default_factory=set)
    temperature: float = float("nan")

    def add(self, text: str, slot: str = "") -> None:
        """Append a piece; nothing where the text is empty. A point after "p.m." is not doubled."""
        if text == "." and self.pieces and self.pieces[-1][0].endswith("."):
            return
        if text:
            self.pieces.append((text, slot))


def joined(pieces: Iterable[Piece]) -> tuple[str, tuple[Span, ...]]:
    """The text of the pieces, and where its slots are, in characters (Unicode code points)."""
    text, spans = "", []
    for piece, slot in pieces:
        if slot:
            spans.append((len(text), len(text) + len(piece), slot))
        text += piece
    return text, tuple(spans)


def plain(text: str) -> str:
    """What two texts share that differ only in case, spaces, marks or emoji."""
    letters = unicodedata.normalize("NFD", text.casefold())
    return re.sub(r"[^\w.,]+|[.,](?!\d)", " ", re.sub(r"[\u0300-\u036f]", "", letters)).strip()


class Speaker:
    """Draws utterances of one wording; every list is dealt like cards, so that each entry comes equally often."""

    def __init__(self, wording: Wording, generator: np.random.Generator) -> None:
        self.wording = wording
        self.generator = generator
        self.decks: dict[str, list[int]] = {}

    def deal(self, name: str, items: tuple[T, ...]) -> T:
        """The next card of a deck, which is shuffled anew when it runs out."""
        deck = self.decks.setdefault(name, [])
        if not deck:
            deck.extend(self.generator.permutation(len(items)).tolist())
        return items[deck.pop()]

    def chance(self, probability: float) -> bool:
        """Whether something with this probability happens."""
        return bool(self.generator.random() < probability)

    def any(self, items: Sequence[str]) -> str:
        """One of these, all equally likely."""
        return items[int(self.generator.integers(len(items)))]

    def chosen(self, template: str) -> str:
        """The template with one of each of its alternatives."""
        while match := re.search(r"\(([^()]*)\)", template):
            template = template[: match.start()] + self.any(match[1].split("|")) + template[match.end() :]
        return template

    def utter(self, intent: str, circumstances: tuple[str, ...]) -> Utterance:
        """An utterance of this intent; a command may be followed by one of the named circumstances."""
        said = Utterance()
        template = self.deal(intent, self.wording.templates[intent])
        if template.endswith((".", "?")):
            sentence = self.chosen(template[:-1])
            if self.chance(0.15):
                self.expand("{greeting}", said)
                sentence = sentence if re.match(r"I\b", sentence) else sentence[:1].lower() + sentence[1:]
            self.expand(sentence, said)
            said.add(self.any((template[-1], template[-1], "")))
            return said
        opening = self.any(("", "", "", "greeting", "opening", "opening", "request"))
        self.expand(f"{{{opening}}}" if opening else "", said)
        self.expand(template, said)
        if circumstances and "{at}" not in template and self.chance(0.25):
            self.expand(f" {{{self.any(circumstances)}}}", said)
        self.expand("(?||?)" if opening == "request" else "{ending}", said)
        return said

    def expand(self, template: str, said: Utterance, slot: str = "") -> None:
        """Write a template out; all of it belongs to `slot`, or what stands in `<...>` does."""
        parts = re.split(r"([<>])", self.chosen(template))
        inside = len(parts) == 1
        for part in parts:
            if part in ("<", ">"):
                inside = part == "<"
                continue
            for literal, name in re.findall(r"([^{]*)(?:\{([\w-]+)\})?", part):
                said.add(literal, slot if inside else "")
                if name:
                    self.fill(name, said)

    def fill(self, name: str, said: Utterance) -> None:
        """Write what a name in braces stands for."""
        if name == "temperature":
            said.temperature = self.deal(name, TEMPERATURES)
            said.add(self.degrees(said.temperature), SLOT_OF[name])
        elif name == "room":
            self.room(said)
        elif name == "gadget":
            self.several(said, [self.deal(name, GADGETS)])
        elif name in ("devices", "lights_and"):
            others = self.generator.permutation(len(GADGETS))
            count = int(self.generator.integers(3)) + (name == "devices")
            names = [GADGETS[i] for i in others[:count]]
            if name == "lights_and":
                names.insert(int(self.generator.integers(2)) * len(names), "lights")
            self.several(said, names)
        else:
            if name in DEVICE_OF:
                said.devices.add(DEVICE_OF[name])
            self.expand(self.deal(name, self.wording.words[name]), said, SLOT_OF.get(name, ""))

    def several(self, said: Utterance, names: list[str]) -> None:
        """`fan`, `fan and the lights`, `tv, fan and camera`: what follows "the"."""
        the = self.any(("", "the "))
        for place, name in enumerate(names):
            if place:
                said.add((" and " if place == len(names) - 1 else ", ") + the)
            self.fill(name, said)

    def room(self, said: Utterance) -> None:
        """A room, one span with the person whose it is; "the" before it goes where it is someone's."""
        owner = Utterance()
        phrase = self.deal("room", self.wording.words["room"])
        self.expand(phrase, owner)
        if phrase.startswith("{person}") and said.pieces and re.search(r"\b[Tt]he $", said.pieces[-1][0]):
            text, slot = said.pieces.pop()
            said.add(text[: -len("the ")], slot)
        said.add("".join(text for text, _ in owner.pieces), SLOT_OF["room"])

    def degrees(self, value: float) -> str:
        """A temperature in °C as one would type or say it."""
        whole = int(value)
        form = self.chosen(WHOLE if value == whole else HALF)
        words = NUMBERS[whole - 15].replace("{-}", self.any((" ", "-")))
        return form.replace("{n}", str(whole)).replace("{w}", words)

    def typed(self, pieces: list[Piece]) -> list[Piece]:
        """The pieces as someone types them: case, apostrophes, composed or combining accents, spaces, emoji."""
        case = self.any(("written",) * 5 + ("sentence",) * 5 + ("lower",) * 4 + ("upper", "title"))
        apostrophe = self.any("'’")
        form: Literal["NFC", "NFD"] = "NFD" if self.chance(0.3) else "NFC"
        texts = [unicodedata.normalize(form, text.replace("'", apostrophe)) for text, _ in pieces]
        texts = [cased(text, case, first=not i) for i, text in enumerate(texts)]
        if self.chance(0.08):
            spaced = int(self.generator.integers(len(texts)))
            texts[spaced] = texts[spaced].replace(" ", "  ", 1)
        typed = [(text, slot) for text, (_, slot) in zip(texts, pieces, strict=True)]
        if self.chance(0.12):
            emoji = self.any(EMOJI)
            typed = [(f"{emoji} ", ""), *typed] if self.chance(0.5) else [*typed, (f" {emoji}", "")]
        return [(" ", ""), *typed] if self.chance(0.02) else typed


def cased(text: str, case: str, first: bool) -> str:
    """A piece in upper, lower, title or sentence case, or as it was written."""
    if case == "upper":
        return text.upper()
    if case == "lower":
        return text.lower()
    if case == "title":
        return re.sub(r"(?<!\S)\w", lambda match: match[0].upper(), text)
    return text[:1].upper() + text[1:] if case == "sentence" and first else text

"""Utterances to a smart home, generated: what is asked for, of which devices, with which details.

Each utterance is drawn from a grammar of sentence templates. Validation and test use templates of their own, and the
test rooms, persons and phrases of its own: what they measure is how a model deals with wordings it has never seen.

What the labels mean, where a reader might hesitate:

- `intent`: `light_*` where lights are concerned, whatever else is switched along with them; `device_*` other things
  that are switched; `light_dim` less light, or so much; `timer_set` timers and alarms; `other` what is not for a home.
- `device`: every device that the utterance names, in whatever role, and the kind that its intent moves ("it's too dark
  in the den": light). Music plays on a speaker unless something else is named; a door is its `lock`.
- `temperature`: the temperature named, in °C, whether it is set, asked about or a condition. Always 15 to 30 in halves;
  degrees Fahrenheit are left out, as half a degree Celsius is not to be had by reading them off an embedding.
- `slots`: `room` with the person whose it is ("Zoë's room") and without "the"; `person` elsewhere; `time` when, or for
  how long, without its preposition; `value` a brightness or volume, `temperature` likewise, with the unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from polyhead.models.zoo.data import (
    smarthome_heldout,
    smarthome_train_services,
    smarthome_train_switches,
    smarthome_validation,
    smarthome_words,
)
from polyhead.models.zoo.data.smarthome_grammar import Speaker, Utterance, Wording, joined, plain

__all__ = ["DEVICES", "INTENTS", "PARTS", "SLOTS", "WORDINGS", "Part", "Parts", "Utterances", "rows", "split"]

Array = np.ndarray[tuple[int, ...], np.dtype[Any]]
Part = Literal["train", "validation", "test"]

TRAIN = {**smarthome_train_switches.TEMPLATES, **smarthome_train_services.TEMPLATES}
PARTS: tuple[Part, ...] = ("train", "validation", "test")
WORDINGS: dict[Part, Wording] = {
    "train": Wording(TRAIN, smarthome_words.TRAIN),
    "validation": Wording(smarthome_validation.TEMPLATES, smarthome_words.VALIDATION),
    "test": Wording(smarthome_heldout.TEMPLATES, smarthome_words.TEST),
}
INTENTS = tuple(TRAIN)
DEVICES = ("light", "fan", "speaker", "television", "camera", "heating", "blind", "lock")
SLOTS = ("room", "person", "time", "value", "temperature")

MOVES = {"light": "light", "blind": "blind", "thermostat": "heating", "door": "lock"}  # by the intent's first word
CIRCUMSTANCES = {
    **dict.fromkeys(("light_on", "light_off", "light_dim", "door_lock", "door_unlock", "music_play"), ("tail",)),
    **dict.fromkeys(("device_on", "device_off", "blind_open", "blind_close"), ("tail", "condition")),
}
DRAWS = 50  # for one row, before the grammar counts as exhausted


@dataclass(frozen=True)
class Utterances:
    """Texts with a target per head, in columns of equal length.

    `text` object (str) `[rows]`; `intent` int64 `[rows]`, index in `INTENTS`; `device` float32 `[rows, devices]`, 0 or
    1 for each of `DEVICES`; `slots` object `[rows]`, tuples of `(start, end, type)` in characters (Unicode code points)
    with a type of `SLOTS`; `temperature` float32 `[rows, 1]`, °C, NaN where none is named.
    """

    text: Array
    intent: Array
    device: Array
    slots: Array
    temperature: Array

    def __len__(self) -> int:
        return len(self.text)


class Parts(NamedTuple):
    """Utterances to learn from, to stop by, and held out until the end."""

    train: Utterances
    validation: Utterances
    test: Utterances


def rows(part: Part, seed: int, count: int) -> Utterances:
    """So many different utterances of one part, the intents in equal shares; the same for the same seed, anywhere.

    Raises:
        ValueError: there is no such part, or the grammar has fewer different utterances.
    """
    if part not in PARTS:
        raise ValueError(f"part {part!r} is not in the smart-home data: use one of {', '.join(PARTS)}")
    generator = np.random.default_rng([seed, PARTS.index(part)])
    speaker = Speaker(WORDINGS[part], generator)
    intent = generator.permutation(np.arange(count, dtype=np.int64) % len(INTENTS))
    said = _different(speaker, [INTENTS[i] for i in intent])
    text, slots = np.empty(count, object), np.empty(count, object)
    for row, utterance in enumerate(said):
        text[row], slots[row] = joined(utterance.pieces)
    return Utterances(
        text=text,
        intent=intent,
        device=np.array([[name in u.devices for name in DEVICES] for u in said], np.float32).reshape(-1, len(DEVICES)),
        slots=slots,
        temperature=np.array([u.temperature for u in said], np.float32)[:, None],
    )


def split(seed: int, train: int = 2400, validation: int = 400, test: int = 600) -> Parts:
    """The three parts; no two share a template or a person, and test shares no room with the others."""
    return Parts(rows("train", seed, train), rows("validation", seed, validation), rows("test", seed, test))


def _different(speaker: Speaker, intents: list[str]) -> list[Utterance]:
    """An utterance for each intent, no two the same but for case, marks and spaces."""
    seen: set[str] = set()
    said: list[Utterance] = []
    for intent in intents:
        for _ in range(DRAWS):
            utterance = speaker.utter(intent, CIRCUMSTANCES.get(intent, ()))
            key = plain(joined(utterance.pieces)[0])
            if key not in seen:
                break
        else:
            raise ValueError(f"only {len(said)} of {len(intents)} utterances are different: ask for fewer rows")
        seen.add(key)
        utterance.devices |= _moved(intent, utterance.devices)
        utterance.pieces = speaker.typed(utterance.pieces)
        said.append(utterance)
    return said


def _moved(intent: str, named: set[str]) -> set[str]:
    """The kind of device that the intent moves, where the words need not name it."""
    if intent == "music_play":
        return set() if named else {"speaker"}
    kind = MOVES.get(intent.partition("_")[0])
    return {kind} if kind else set()

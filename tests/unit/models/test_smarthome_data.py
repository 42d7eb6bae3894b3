import math
import re
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from tokenizers.pre_tokenizers import BertPreTokenizer

from polyhead.models.zoo.data import smarthome
from polyhead.models.zoo.data.smarthome_grammar import Speaker, Wording, joined, plain

UNITS = ("", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEENS = ("fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
WORDS = {
    **{word: 15 + i for i, word in enumerate(TEENS)},
    **{f"twenty {word}".strip(): 20 + i for i, word in enumerate(UNITS)},
    "thirty": 30,
}
GOLDEN = [
    ("it's dark in zoë's den 😀", ((13, 22, "room"),)),
    ("Please switch on the lights in the kitchen", ((35, 42, "room"),)),
    ("it’s  dark in ben’s den.", ((14, 23, "room"),)),
    ("Hey, Switch On The Lights And Camera In The Kitchen!", ((44, 51, "room"),)),
    ("It's dark in Ben's den.", ((13, 22, "room"),)),
    ("switch on the tv, the heating and the lights in the kitchen", ((52, 59, "room"),)),
]
PAIRS = [("train", "validation"), ("train", "test"), ("validation", "test")]


@pytest.fixture(scope="module")
def parts():
    return smarthome.split(0)


@pytest.fixture(scope="module", params=smarthome.PARTS)
def part(request, parts):
    return getattr(parts, request.param)


def said(rows, slot):
    """Every phrase that fills a slot, and the row it is in."""
    return [
        (i, rows.text[i][start:end]) for i, spans in enumerate(rows.slots) for start, end, kind in spans if kind == slot
    ]


def phrases(rows, slot):
    return {plain(phrase) for _, phrase in said(rows, slot)}


def frame(text, spans):
    """What is said around the slots."""
    for start, end, kind in reversed(spans):
        text = f"{text[:start]}{kind}{text[end:]}"
    return plain(text)


def degrees(phrase):
    """A temperature as this test reads it."""
    words = plain(phrase).replace(",", ".").replace("°c", "").replace(" celsius", "").replace(" degrees", "")
    number, half = re.subn(r" and a half| point five", "", words)
    number = number.removesuffix(" c").strip()
    return (WORDS[number] if number in WORDS else float(number)) + 0.5 * half


# Columns


def test_there_is_a_target_per_head(parts):
    assert [len(rows) for rows in parts] == [2400, 400, 600]
    for rows in parts:
        count = len(rows)
        columns = {name: getattr(rows, name) for name in ("text", "intent", "device", "slots", "temperature")}
        assert {name: (str(array.dtype), array.shape) for name, array in columns.items()} == {
            "text": ("object", (count,)),
            "intent": ("int64", (count,)),
            "device": ("float32", (count, 8)),
            "slots": ("object", (count,)),
            "temperature": ("float32", (count, 1)),
        }
        assert all(type(text) is str and text.strip() for text in rows.text)


def test_intents_come_in_equal_shares(part):
    shares = np.bincount(part.intent, minlength=len(smarthome.INTENTS))
    assert len(smarthome.INTENTS) == len(shares) == 16
    assert shares.max() - shares.min() <= 1


def test_every_device_and_slot_is_often_there(part):
    assert part.device.mean(axis=0).min() > 0.02
    assert set(np.unique(part.device)) == {0, 1}
    assert {kind for spans in part.slots for *_, kind in spans} == set(smarthome.SLOTS)
    assert min(len(said(part, slot)) for slot in smarthome.SLOTS) > len(part) / 25
    assert (part.device.sum(axis=1) > 1).mean() > 0.05
    assert (part.device.sum(axis=1) == 0).mean() > 0.1


def test_no_rows_is_no_error():
    rows = smarthome.rows("test", 0, 0)
    assert (len(rows), rows.device.shape, rows.temperature.shape) == (0, (0, 8), (0, 1))


# Seeds


def test_the_same_seed_gives_the_same_rows(parts):
    again = smarthome.rows("test", 0, 600)
    for name in ("text", "intent", "device", "slots"):
        assert np.array_equal(getattr(again, name), getattr(parts.test, name))
    assert np.array_equal(again.temperature, parts.test.temperature, equal_nan=True)


def test_another_seed_gives_other_rows(parts):
    other = smarthome.rows("test", 1, 600)
    assert len(set(other.text) & set(parts.test.text)) < 60


def test_a_seed_says_the_same_on_any_machine():
    templates = {"light_on": ("(turn|switch) on the {lights_and} in the {room}", "It's dark in the {room}.")}
    words = {
        **smarthome.WORDINGS["test"].words,
        **{"room": ("kitchen", "{person}'s den"), "person": ("Zoë", "Ben"), "lights": ("lights",), "fan": ("fan",)},
        **{"speaker": ("stereo",), "television": ("TV",), "camera": ("camera",), "heating": ("heating",)},
        **{"greeting": ("hey, ",), "opening": ("please ",), "request": ("will you ",), "ending": ("", "!")},
    }
    speaker = Speaker(Wording(templates, words), np.random.default_rng([7, 0]))
    texts = [joined(speaker.typed(speaker.utter("light_on", ()).pieces)) for _ in range(6)]
    assert texts == GOLDEN


# Slots


def test_spans_are_in_order_apart_and_tight(part):
    for text, spans in zip(part.text, part.slots, strict=True):
        ends = [0, *(end for _, end, _ in spans)]
        for (start, end, _), before in zip(spans, ends, strict=False):
            assert before <= start < end <= len(text)
            assert text[start:end] == text[start:end].strip()


def test_spans_begin_and_end_with_words(part):
    words = BertPreTokenizer()
    for text, spans in zip(part.text, part.slots, strict=True):
        edges = words.pre_tokenize_str(text)
        assert {start for start, *_ in spans} <= {start for _, (start, _) in edges}, text
        assert {end for _, end, _ in spans} <= {end for _, (_, end) in edges}, text


def test_a_room_is_one_of_the_parts_rooms(parts):
    for name, rows in parts._asdict().items():
        words = smarthome.WORDINGS[name].words
        rooms = {plain(room) for room in words["room"] if "{" not in room}
        belongings = {plain(room.removeprefix("{person}")) for room in words["room"] if "{" in room}
        owners = {plain(person) for person in words["person"]}
        owned = {f"{person} {room}" for person in owners for room in belongings}
        found = phrases(rows, "room")
        assert found <= rooms | owned
        assert rooms <= found
        assert phrases(rows, "person") <= owners


def test_a_possessive_belongs_to_the_room(parts):
    room = next(phrase for _, phrase in said(parts.test, "room") if "’" in phrase)
    assert re.search(r"’s\s+(studio|nook|quarters)$", room, re.I)
    assert not any(plain(phrase).endswith(" s") for _, phrase in said(parts.test, "person"))


def test_values_and_times_have_no_preposition_and_keep_their_unit(part):
    for slot in ("time", "value", "temperature"):
        for _, phrase in said(part, slot):
            assert plain(phrase).split()[0] not in {"at", "in", "on", "to", "for", "by", "around", "of"}
    values = [phrase for i, phrase in said(part, "value") if smarthome.INTENTS[part.intent[i]] == "light_dim"]
    assert values
    assert all(re.search(r"(%|per ?cent)$", value, re.I) for value in values)


# Temperatures


def test_a_temperature_is_the_one_that_its_span_says(part):
    named = {i: degrees(phrase) for i, phrase in said(part, "temperature")}
    for i, (value,) in enumerate(part.temperature):
        assert named.get(i) == value or (i not in named and math.isnan(value)), part.text[i]


def test_temperatures_are_halves_from_15_to_30_and_all_are_in_training(parts):
    values = [set(rows.temperature[~np.isnan(rows.temperature)].tolist()) for rows in parts]
    assert values[0] == {half / 2 for half in range(30, 61)}
    assert values[1] | values[2] <= values[0]


def test_setting_a_temperature_names_it_and_asking_need_not(part):
    named = ~np.isnan(part.temperature[:, 0])
    intents = np.array(smarthome.INTENTS)[part.intent]
    assert named[intents == "thermostat_set"].all()
    assert 0.2 < named[intents == "thermostat_query"].mean() < 0.8
    assert set(intents[named]) > {"thermostat_set", "thermostat_query"}


# Devices


@pytest.mark.parametrize(
    ("intents", "device"),
    [("light", "light"), ("blind", "blind"), ("thermostat", "heating"), ("door", "lock")],
)
def test_an_intent_moves_its_device_whether_named_or_not(part, intents, device):
    chosen = [i for i, intent in enumerate(part.intent) if smarthome.INTENTS[intent].startswith(f"{intents}_")]
    assert part.device[chosen, smarthome.DEVICES.index(device)].all()


def test_music_plays_on_the_speaker_unless_something_else_is_named(part):
    rows = part.device[part.intent == smarthome.INTENTS.index("music_play")]
    speaker, television = (rows[:, smarthome.DEVICES.index(name)] for name in ("speaker", "television"))
    assert ((speaker + television) >= 1).all()
    assert 0 < television.mean() < 0.5
    assert (speaker * television).any()


def test_a_device_in_passing_counts_and_smalltalk_has_none(parts):
    devices = {
        intent: parts.train.device[parts.train.intent == smarthome.INTENTS.index(intent)].sum()
        for intent in ("timer_set", "reminder_set", "other")
    }
    assert devices["timer_set"] == devices["other"] == 0
    assert devices["reminder_set"] > 20


def test_the_word_for_a_device_and_its_label_go_together(part):
    for word, device in (("camera", "camera"), ("thermostat", "heating"), ("door", "lock"), ("lights", "light")):
        named = np.array([bool(re.search(rf"\b{word}\b", plain(text))) for text in part.text])
        assert named.any()
        assert part.device[named, smarthome.DEVICES.index(device)].all()


# What is held out


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_no_two_parts_share_a_template_a_person_or_a_text(parts, one, other):
    wordings = [smarthome.WORDINGS[name] for name in (one, other)]
    templates = [{plain(t) for ts in wording.templates.values() for t in ts} for wording in wordings]
    assert templates[0].isdisjoint(templates[1])
    assert set(wordings[0].words["person"]).isdisjoint(wordings[1].words["person"])
    rows = [getattr(parts, name) for name in (one, other)]
    texts = [{plain(text) for text in part.text} for part in rows]
    assert texts[0].isdisjoint(texts[1])
    assert [len(t) for t in texts] == [len(part) for part in rows]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_no_two_parts_share_what_is_said_around_the_slots(parts, one, other):
    frames = [
        {frame(text, spans) for text, spans in zip(rows.text, rows.slots, strict=True)}
        for rows in (getattr(parts, name) for name in (one, other))
    ]
    assert frames[0].isdisjoint(frames[1])


def test_no_room_or_person_of_test_is_mentioned_elsewhere(parts):
    held_out = phrases(parts.test, "room") | phrases(parts.test, "person")
    others = [f" {plain(text)} " for rows in (parts.train, parts.validation) for text in rows.text]
    everything = "|".join(others)
    assert [phrase for phrase in held_out if f" {phrase} " in everything] == []


def test_the_phrases_around_test_are_its_own():
    train, test = (smarthome.WORDINGS[name].words for name in ("train", "test"))
    for name in ("greeting", "opening", "request", "tail", "condition", "value", "level", "past", "duration", "task"):
        own = set(test[name]) - set(train[name])
        assert len(own) >= len(set(test[name])) - 1, name  # "{at}" alone, as a tail, says nothing of its own


def test_there_is_enough_to_generalise_from_and_to():
    train, validation, test = (smarthome.WORDINGS[name] for name in smarthome.PARTS)
    assert list(train.templates) == list(validation.templates) == list(test.templates)
    assert min(len(templates) for templates in train.templates.values()) >= 16
    assert min(len(templates) for templates in validation.templates.values()) >= 5
    assert min(len(templates) for templates in test.templates.values()) >= 9
    assert len(set(train.words["room"])) >= 35
    assert len(set(test.words["room"])) >= 20
    assert len(train.words["person"]) >= 30
    assert len(test.words["person"]) >= 15


# How it is typed


@pytest.mark.parametrize(
    "typed",
    [
        str.isupper,
        str.islower,
        str.istitle,
        lambda text: "’" in text,
        lambda text: "'" in text,
        lambda text: "  " in text,
        lambda text: text.startswith(" "),
        lambda text: text[-1:] in ".!?",
        lambda text: text[-1:].isalnum(),
        lambda text: ord(text[0]) > 0xFFFF,  # two UTF-16 units ahead of every span
        lambda text: "\u200d" in text,  # one picture of several code points
        lambda text: unicodedata.normalize("NFC", text) != text,
        lambda text: unicodedata.normalize("NFD", text) != text,
    ],
)
@pytest.mark.parametrize("name", ["train", "test"])
def test_texts_are_typed_in_many_ways(parts, name, typed):
    assert sum(map(typed, getattr(parts, name).text)) >= 2


# Errors


def test_an_unknown_part_is_named_with_those_there_are():
    with pytest.raises(
        ValueError, match="part 'dev' is not in the smart-home data: use one of train, validation, test"
    ):
        smarthome.rows("dev", 0, 3)


def test_more_rows_than_the_grammar_has_are_refused(monkeypatch):
    templates = {intent: (f"{intent}.",) for intent in smarthome.INTENTS}
    words = smarthome.WORDINGS["test"].words
    monkeypatch.setitem(smarthome.WORDINGS, "test", Wording(templates, words))
    assert len(smarthome.rows("test", 0, 16)) == 16
    with pytest.raises(ValueError, match=r"only \d+ of 160 utterances are different: ask for fewer rows"):
        smarthome.rows("test", 0, 160)  # ten of each, which five greetings and none cannot make


def test_generating_needs_no_torch():
    code = (
        "import sys, polyhead.models.zoo.data.smarthome as s; s.split(0); print({'torch', 'pydantic'} & {*sys.modules})"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"

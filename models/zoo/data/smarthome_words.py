"""Names and phrases of the smart-home utterances: rooms, persons, times, ways to name a device."""

from __future__ import annotations

from polyhead.models.zoo.data.smarthome_train_words import TRAIN

__all__ = ["TEST", "TRAIN", "VALIDATION"]

VALIDATION: dict[str, tuple[str, ...]] = {
    **TRAIN,
    "room": (
        *("kitchen", "bedroom", "hallway", "dining room", "attic", "study", "kids' room", "sauna", "laundry room"),
        *("family room", "breakfast room", "carport", "winter garden", "tool shed", "art room", "south wing"),
        *("{person}'s workshop", "{person}'s dressing room"),
    ),
    "person": (
        *("Marta", "Hugo", "Amélie", "Viktor", "Leila", "Samuel", "Nuñez", "Aunt Rosa", "Kofi", "Ms Lindström"),
    ),
    "greeting": ("okay, ", "good day, ", "house, "),
    "opening": ("kindly ", "I need you to ", "just "),
    "request": ("could you possibly ", "would you ", "are you able to "),
    "tail": ("{at}", "since {person} is (tired|here)", "after {person} has gone", "like {person} wanted"),
    "condition": ("in case it is beyond {temperature}", "while it is more than {temperature} outside"),
    "at": (
        "at <(4|6|8|12) (am|pm)>",
        "at <(7|9|11):(10|35|55)>",
        "around <(five|seven|nine)>",
        "<(this afternoon|tomorrow evening)>",
        "in <(7|12|50) minutes>",
        "on <(Thursday|Sunday)(| morning)>",
    ),
    "duration": ("(4|6|7|12|50) minutes", "(six|twenty) minutes", "(15|45) seconds", "(3|three) hours"),
}

TEST: dict[str, tuple[str, ...]] = {
    "room": (
        *(
            "conservatory",
            "pantry",
            "loft",
            "cloakroom",
            "foyer",
            "mudroom",
            "parlour",
            "gallery",
            "greenhouse",
            "snug",
        ),
        *(
            "scullery",
            "porch",
            "lounge",
            "atelier",
            "boot room",
            "en suite",
            "séjour",
            "larder",
            "bike store",
            "ballroom",
        ),
        *("{person}'s studio", "{person}'s nook", "{person}'s quarters") * 2,
    ),
    "person": (
        *("Léa", "Nikos", "Hannah", "Ravi", "Thérèse", "Oscar", "Ingrid", "Yusuf", "Beatriz", "Łukasz", "Grandpa"),
        *("Uncle Joe", "Mrs Patel", "Darius", "Siobhán", "Tadeo", "Anne-Sophie", "Željko"),
    ),
    "greeting": ("good evening, ", "computer, ", "listen, ", "right, ", "excuse me, "),
    "opening": ("do me a favour and ", "be so kind as to ", "go ahead and ", "make sure to ", "computer, "),
    "request": ("will you ", "might you ", "is it possible to ", "would it be okay to ", "may I ask you to "),
    "ending": ("", "", "", ".", "!", ", if you can", ", cheers", ", will you", " - much appreciated"),
    "tail": (
        "{at}",
        "{at}",
        "while {person} is away",
        "until {person} returns",
        "as {person} asked",
        "once {person} shows up",
    ),
    "condition": (
        "should it climb past {temperature}",
        "whenever the air drops to {temperature}",
        "provided that we have at least {temperature} out there",
    ),
    "at": (
        "at <(1|2|3|4|12) (a.m.|p.m.)>",
        "at <(17|19|21|22):(05|20|40|50)>",
        "at <quarter (to|past) (four|ten|eleven)>",
        "<(later today|next week|the day after tomorrow)>",
        "at <(midnight|dawn|dusk)>",
        "in <(25|90|thirty-five) minutes>",
        "in <(two|three|4) hours>",
        "by <(Wednesday|Sunday)(| afternoon| night)>",
    ),
    "past": ("at <(1|2|3) (a.m.|p.m.)>", "at <(19|21):(05|40)>", "<(two|three) hours ago>", "on <(Sunday|Wednesday)>"),
    "duration": (
        "(9|11|13|25|35|90) minutes",
        "(four|eleven|twenty-five) minutes",
        "(20|50|seventy) seconds",
        "(4|four|five) hours",
        "a quarter of an hour",
    ),
    "value": (
        "(8|12|18|33|42|48)(%| %| per cent)",
        "(52|58|63|66|72|77|88)(%| %| per cent)",
        "(fifteen|twenty-five|thirty-five|forty-five|sixty-five) per cent",
    ),
    "level": ("(8|12|18|35|45|55)", "(two|four|eight|eleven)"),
    "light": ("light", "bulb", "chandelier", "lighting", "spotlight"),
    "lights": ("lights", "bulbs", "chandeliers", "spotlights", "wall lights"),
    "fan": ("fan", "ventilator", "tower fan"),
    "speaker": ("smart speaker", "loudspeaker", "soundbar", "hi-fi"),
    "television": ("telly", "TV set", "flat screen TV", "smart television"),
    "camera": ("surveillance camera", "video camera", "baby camera"),
    "heating": ("central heating", "thermostat", "underfloor heating", "electric heater"),
    "blinds": ("shutters", "drapes", "venetian blinds", "window blinds"),
    "door": ("side door", "rear door", "street door", "{room} door", "{room} door", "door to the {room}"),
    "player": ("{speaker}", "{speaker}", "{television}", "{television} and the {speaker}"),
    "music": (
        "(|a bit of )(blues|reggae|salsa|techno|folk|bossa nova)",
        "(a song|a few tunes)",
        "the (summer hits|lullaby|yoga) album",
        "{person}'s (mix|records)",
        "a podcast",
    ),
    "task": (
        *(
            "walk the (dog|puppy)",
            "renew the passport",
            "collect the parcel",
            "defrost the freezer",
            "vacuum the {room}",
        ),
        *(
            "wipe the {television}",
            "replace the {camera}",
            "email {person}",
            "book the (dentist|flight)",
            "bake a cake",
        ),
        *("wash the {blinds}", "oil the {door}", "sell the {speaker}", "bleed the {heating}", "change the {light}"),
    ),
}

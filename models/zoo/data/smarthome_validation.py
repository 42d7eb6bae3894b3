"""Sentence templates of the smart-home utterances that a training run stops by, by intent; no other part has them."""

from __future__ import annotations

__all__ = ["TEMPLATES"]

TEMPLATES: dict[str, tuple[str, ...]] = {
    "light_on": (
        "get the {lights_and} on in the {room}",
        "bring some light into the {room}",
        "have the {room} {light} on",
        "The {room} is so dark, I need a {light}.",
        "Who can see anything in the {room} without the {lights}?",
    ),
    "light_off": (
        "have the {lights_and} off in the {room}",
        "end the light in the {room}",
        "get rid of the light in the {room}",
        "The {lights} in the {room} are not needed, off with them.",
        "Why waste power on the {lights} in the {room}, off please.",
    ),
    "light_dim": (
        "drop the brightness of the {room} {light} to {value}",
        "change the {lights} in the {room} to {value}",
        "Less light in the {room}, say {value}.",
        "The {room} {light} should be gentler.",
        "For {person} the {lights} in the {room} should be at {value}.",
    ),
    "device_on": (
        "get the {devices} on in the {room}",
        "have the {devices} run in the {room}",
        "launch the {room} {gadget}",
        "I'd love the {devices} on in the {room}.",
        "Can someone start the {devices} for {person}?",
    ),
    "device_off": (
        "get the {devices} off in the {room}",
        "have the {room} {gadget} stopped",
        "end the {devices} in the {room}",
        "We are done with the {devices} in the {room}.",
        "Can someone stop the {devices} for {person}?",
    ),
    "blind_open": (
        "get the {blinds} in the {room} up",
        "move the {blinds} up in the {room}",
        "bring daylight into the {room}",
        "It's a lovely day, up with the {blinds} in the {room}.",
        "{person} would like the {blinds} in the {room} open.",
    ),
    "blind_close": (
        "get the {blinds} in the {room} down",
        "move the {blinds} down in the {room}",
        "shade the {room} from the sun",
        "People can look into the {room}, down with the {blinds}.",
        "{person} would like the {blinds} in the {room} closed.",
    ),
    "thermostat_set": (
        "have the {room} at {temperature}",
        "change the {heating} to {temperature}(| in the {room})",
        "raise the temperature to {temperature}(| in the {room})",
        "The {room} has to be at {temperature} {at}.",
        "For {person} we need {temperature} in the {room}.",
    ),
    "thermostat_query": (
        "find out the temperature in the {room}",
        "How warm did the {room} get?",
        "Is the {room} at {temperature} or less?",
        "Is the {heating} in the {room} above {temperature}?",
        "Can you say how hot the {room} is?",
    ),
    "door_lock": (
        "have the {door} locked",
        "get the {door} locked for {person}",
        "shut the {door} and lock it",
        "The {door} must be locked {at}.",
        "{person} is in bed, so lock the {door}.",
    ),
    "door_unlock": (
        "have the {door} unlocked",
        "get the {door} open for {person}",
        "open up at the {door}",
        "The {door} must be unlocked {at}.",
        "{person} wants to come in, the {door} please.",
    ),
    "door_query": (
        "look if the {door} is locked",
        "Is there a lock on at the {door}?",
        "Have I forgotten to lock the {door}?",
        "Do we know if the {door} is locked?",
        "I wonder if the {door} is open.",
    ),
    "music_play": (
        "turn on {music} in the {room}",
        "have the {player} play {music}",
        "make the {player} in the {room} play {music}",
        "{person} and I would love {music}.",
        "Could we listen to {music} in the {room}?",
    ),
    "timer_set": (
        "put {duration} on the timer",
        "give me {duration} on the clock",
        "have the alarm ring {at}",
        "My tea needs {duration}.",
        "Can you wake {person} {at}?",
    ),
    "reminder_set": (
        "make me remember to {task}(| {at})",
        "create a reminder for {person} to {task}(| {at})",
        "ask me {at} to {task}",
        "I might forget to {task} {at}.",
        "{person} needs a reminder to {task}.",
    ),
    "other": (
        "sing a song about (trains|summer|ducks)(| for {person})",
        "ring up {person}(| {at})",
        "What (day|year|month) is it?",
        "What is the (square|double|half) of (14|18|22|36)?",
        "Which is (bigger|older), (China or India|Rome or Athens)?",
        "{person} loves the (wallpaper|sofa|smell) in the {room}.",
        "See you {at}, {person}.",
        "I feel (sick|great|lonely)(|, {person}).",
    ),
}

"""The reference model of text, from training to entities over HTTP: the whole road.

`POLYHEAD_SMARTHOME_EPOCHS=6` for the whole recipe, whose figures README and docs/zoo.md tell.
"""

from __future__ import annotations

import json

import pytest

from polyhead.models.zoo.smarthome import MODEL
from tests.command import run_polyhead
from tests.server import Running


def ask(server: Running, *texts: str, **rest: object) -> list[dict[str, dict[str, object]]]:
    response = server.predict("smarthome", {"instances": [{"text": text} for text in texts], **rest})
    assert response.status_code == 200, response.text
    return response.json()["predictions"]


def test_wordings_rooms_and_persons_never_seen_are_understood(smarthome_run):
    record = json.loads((smarthome_run / "run.json").read_text())
    metrics = record["metrics"]
    whole = record["recipe"]["max_epochs"] >= MODEL.recipe.max_epochs
    assert metrics["intent"]["accuracy"] >= 0.95
    assert metrics["slots"]["span_f1"] >= (0.90 if whole else 0.85)
    assert metrics["temperature"]["mae"] <= (0.5 if whole else 0.7)
    assert metrics["device"]["f1"] >= 0.9
    assert metrics["sentence"]["nearest_neighbour_accuracy"] >= 0.9


def test_the_run_has_a_page(smarthome_run):
    page = (smarthome_run / "report.html").read_text()
    for head in ("intent", "device", "slots", "temperature", "sentence"):
        assert head in page
    assert (smarthome_run / "report.png").stat().st_size > 10_000


SAID = [
    ("Turn on the lights in the kitchen.", "light_on", {("room", "kitchen")}),
    ("TURN OFF THE LAMPS IN THE BEDROOM!", "light_off", {("room", "BEDROOM")}),
    ("💡 Zoë wants the lights on in the café corner.", "light_on", {("person", "Zoë"), ("room", "café corner")}),
    ("Set the heating in the nursery to 21.5°C", "thermostat_set", {("room", "nursery"), ("temperature", "21.5°C")}),
    (
        "👩\u200d🍳 Rene\u0301e needs the fan on in the office.",
        "device_on",
        {("person", "Rene\u0301e"), ("room", "office")},
    ),
    ("Unlock the garage door for  José", "door_unlock", {("room", "garage"), ("person", "José")}),
]


@pytest.mark.parametrize(("text", "intent", "spans"), SAID)
def test_entities_cut_the_right_words_out_of_the_text(smarthome, text, intent, spans):
    (answer,) = ask(smarthome, text)
    assert answer["intent"]["label"] == intent
    entities = answer["slots"]["entities"]
    assert {(entity["label"], entity["text"]) for entity in entities} == spans
    for entity in entities:
        assert text[entity["start"] : entity["end"]] == entity["text"]
        assert 0 < entity["score"] <= 1


def test_a_temperature_is_read_off_the_text(smarthome):
    answers = ask(smarthome, "heat the office to 18", "heat the office to 26 degrees", heads=["temperature"])
    values = [answer["temperature"]["value"] for answer in answers]
    assert values == pytest.approx([18, 26], abs=1.0)
    assert answers[0]["temperature"]["unit"] == "°C"


def test_a_text_alone_is_answered_as_among_others(smarthome):
    texts = ["lights on", "Would you switch off the fan in the wine cellar when Anna arrives at 18:30, please?", "hi"]
    together = ask(smarthome, *texts, options={"raw": True})
    for text, among in zip(texts, together, strict=True):
        (alone,) = ask(smarthome, text, options={"raw": True})
        assert alone["intent"]["raw"] == pytest.approx(among["intent"]["raw"], abs=1e-4)
        assert alone["slots"]["raw"] == [pytest.approx(row, abs=1e-4) for row in among["slots"]["raw"]]
        assert alone["slots"]["entities"] == [
            {**entity, "score": pytest.approx(entity["score"], abs=1e-4)} for entity in among["slots"]["entities"]
        ]


def test_plain_text_is_one_row(smarthome):
    response = smarthome.http.post(
        "/predictions/smarthome",
        content="dim the lamp in the Séjour to 20 %".encode(),
        headers={"Content-Type": "text/plain; charset=utf-8", "X-Polyhead-Heads": "intent,device"},
    )
    assert response.status_code == 200, response.text
    assert list(response.json()) == ["intent", "device"]
    assert response.json()["intent"]["label"] == "light_dim"
    assert "light" in response.json()["device"]["labels"]


def test_a_text_that_is_too_long_fails_alone(smarthome):
    response = smarthome.predict("smarthome", {"instances": ["lights on", "very " * 200]})
    assert response.status_code == 422
    assert response.json()["loc"] == ["instances", 1, "text"]
    assert "the model takes 64" in response.json()["error"]


def test_predict_reads_text_files(smarthome, tmp_path):
    (tmp_path / "said.txt").write_text("lock the front door", encoding="utf-8")
    result = run_polyhead("predict", "smarthome", tmp_path / "said.txt", "--url", smarthome.url, "--json")
    assert json.loads(result.stdout)["intent"]["label"] == "door_lock"

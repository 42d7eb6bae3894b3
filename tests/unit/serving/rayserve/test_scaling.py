from __future__ import annotations

from pathlib import Path

import pytest

from polyhead.cli.serve import service_of
from polyhead.serving.errors import LaunchError
from polyhead.serving.frontdoor.settings import FrontDoorSettings
from polyhead.serving.rayserve.scaling import Scaling
from polyhead.serving.settings import ServiceSettings, Settings
from polyhead.serving.torchserve.configuration import DEFAULT_CONFIG, Configuration
from polyhead.serving.torchserve.service import Plan

SETTINGS = Settings(workers=3, max_batch_size=16)


def test_without_a_word_there_are_as_many_replicas_as_workers() -> None:
    scaling = Scaling.parse({}, "test")
    assert scaling.options(SETTINGS) == {"num_replicas": 3}
    assert scaling.most(SETTINGS) == scaling.replicas_at_first(SETTINGS) == 3


def test_a_number_of_replicas_is_fixed() -> None:
    assert Scaling.parse({"replicas": 2, "max_replicas": None}, "test").options(SETTINGS) == {"num_replicas": 2}


def test_bounds_let_the_load_choose() -> None:
    scaling = Scaling.parse({"min_replicas": 2, "max_replicas": 5, "upscale_delay": "1"}, "test")
    assert scaling.options(SETTINGS)["autoscaling_config"] == {
        "min_replicas": 2,
        "max_replicas": 5,
        "target_ongoing_requests": 16,
        "look_back_period_s": 30.0,
        "upscale_delay_s": 1.0,
        "downscale_delay_s": 300.0,
    }
    assert (scaling.most(SETTINGS), scaling.replicas_at_first(SETTINGS)) == (5, 2)


def test_threads_are_those_asked_for_or_the_cores_shared_out() -> None:
    assert Scaling(max_replicas=5).threads(Settings(threads=7)) == 7
    assert Scaling(replicas=10_000).threads(SETTINGS) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"replicas": 2, "max_replicas": 3}, "replicas fixes the number, max_replicas lets Ray choose it"),
        ({"min_replicas": 2}, "min_replicas=2 is for autoscaling: give max_replicas too"),
        ({"min_replicas": 3, "max_replicas": 2}, "max_replicas=2 is below min_replicas=3"),
        ({"replicas": 0}, "replicas"),
        ({"replica": 1}, "replica"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, int], message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        Scaling.parse(values, "test")


def test_the_configuration_knows_its_keys(tmp_path: Path) -> None:
    config = tmp_path / "config.properties"
    config.write_text(DEFAULT_CONFIG.read_text() + "polyhead_ray_max_replicas=4\npolyhead_ray_look_back=5\n")
    configuration = Configuration.load(config)
    assert configuration.ray_with({"max_replicas": None}, "test").max_replicas == 4
    assert configuration.ray_with({"max_replicas": 6}, "test").max_replicas == 6
    assert configuration.ray_with({}, "test").look_back == 5.0


def plan(**front: object) -> Plan:
    configuration = Configuration.load(DEFAULT_CONFIG)
    return Plan(configuration, Settings(), ServiceSettings(), FrontDoorSettings.parse(front, "test"), port=0)


@pytest.mark.parametrize(
    ("engine", "address", "replicas", "message"),
    [
        ("torchserve", "auto", {}, "--address is for Ray: add --engine ray"),
        ("torchserve", None, {"min_replicas": 2}, "--min-replicas is for Ray"),
        ("triton", None, {}, "engine 'triton' is not known: give torchserve or ray"),
    ],
)
def test_flags_of_another_engine_are_refused(
    engine: str, address: str | None, replicas: dict[str, int | None], message: str
) -> None:
    with pytest.raises(LaunchError, match=message):
        service_of(engine, [], plan(), address, replicas)


def test_a_front_door_before_ray_is_refused() -> None:
    with pytest.raises(LaunchError, match="--front-door stands before TorchServe"):
        service_of("ray", [], plan(door=True), None, {})

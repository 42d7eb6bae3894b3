from __future__ import annotations

import os
from typing import Any

import pytest
from pydantic import ValidationError

from polyhead.serving.errors import LaunchError
from polyhead.serving.settings import ServiceSettings, Settings, available_cores


def test_settings_are_read_and_the_rest_are_defaults():
    settings = Settings.parse({"runtime": "torchscript", "workers": 2, "max_rows": 7}, "here")
    assert (settings.runtime, settings.workers, settings.max_rows) == ("torchscript", 2, 7)
    assert settings == Settings(runtime="torchscript", workers=2, max_rows=7)
    assert settings.max_batch_size == Settings().max_batch_size == 64


def test_nothing_given_is_all_defaults():
    assert Settings.parse({}, "here") == Settings()


def test_numbers_may_come_as_text():
    assert Settings.parse({"workers": "3", "max_batch_delay": "5"}, "config.properties").workers == 3


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda", "cuda:0", "cuda:12"])
def test_devices_are_read(device: str):
    assert Settings.parse({"device": device}, "here").device == device


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"wrokers": 2}, "wrokers: is not a key that is known here: remove it, or check its spelling"),
        ({"workers": 0}, "workers: Input should be greater than or equal to 1, got 0"),
        ({"workers": -1}, "workers: Input should be greater than or equal to 1, got -1"),
        ({"threads": -1}, "threads: Input should be greater than or equal to 0, got -1"),
        ({"max_batch_delay": 0}, "max_batch_delay: Input should be greater than or equal to 1, got 0"),
        ({"workers": 1.5}, "workers: Input should be a valid integer, got a number with a fractional part, got 1.5"),
        (
            {"workers": "many"},
            "workers: Input should be a valid integer, unable to parse string as an integer, got 'many'",
        ),
        ({"workers": None}, "workers: Input should be a valid integer, got None"),
        (
            {"runtime": "onnx"},
            "runtime: Input should be 'auto', 'onnxruntime', 'torchscript', 'program' or 'aotinductor', got 'onnx'",
        ),
        ({"log_format": "xml"}, "log_format: Input should be 'text' or 'json', got 'xml'"),
        ({"decode_threads": -1}, "decode_threads: Input should be greater than or equal to 0, got -1"),
        ({"workers": 0, "max_rows": 0}, "workers: Input should be greater than or equal to 1, got 0 (and 1 more)"),
    ],
)
def test_an_impossible_setting_is_named_with_its_source(values: dict[str, Any], message: str):
    with pytest.raises(LaunchError) as caught:
        Settings.parse(values, "config.properties: polyhead_digits")
    assert str(caught.value) == f"config.properties: polyhead_digits: {message}"


@pytest.mark.parametrize("device", ["gpu", "CPU", "cuda:", "cuda:-1", "cuda:1x", "cpu:0", "", " cpu", "cpu\n", 0])
def test_other_devices_are_refused(device: object):
    with pytest.raises(LaunchError, match=r"^here: device: .*got "):
        Settings.parse({"device": device}, "here")


@pytest.mark.parametrize(
    "key",
    [
        "workers",
        "max_batch_size",
        "max_batch_delay",
        "job_queue_size",
        "response_timeout",
        "startup_timeout",
        "max_rows",
        "max_rows_per_forward",
        "max_image_pixels",
        "max_body_bytes",
    ],
)
def test_every_count_is_one_or_more(key: str):
    assert getattr(Settings.parse({key: 1}, "here"), key) == 1
    with pytest.raises(LaunchError, match=f"^here: {key}: "):
        Settings.parse({key: 0}, "here")


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), (True, True)])
@pytest.mark.parametrize("key", ["fast_path", "access_log"])
def test_switches_may_come_as_text(key: str, text: object, value: bool):
    assert getattr(Settings.parse({key: text}, "here"), key) is value
    with pytest.raises(LaunchError, match=f"^here: {key}: "):
        Settings.parse({key: "perhaps"}, "here")


def test_versions_that_are_the_defaults_are_read():
    found = ServiceSettings.parse({"defaults": "digits/1.0,smart-home/2.1rc1"}, "here")
    assert found.default_titles == ["digits/1.0", "smart-home/2.1rc1"]
    assert ServiceSettings.parse({"defaults": ""}, "here").default_titles == []


@pytest.mark.parametrize("text", ["digits", "digits/", "/1.0", "digits/1.0,", "digits/1.0, other/2", "a/b/c"])
def test_what_names_no_version_is_no_default(text: str):
    with pytest.raises(LaunchError, match=r"^here: defaults: "):
        ServiceSettings.parse({"defaults": text}, "here")


def test_settings_cannot_be_changed():
    with pytest.raises(ValidationError):
        Settings().workers = 2  # type: ignore[misc]


def test_available_cores_are_one_or_more_and_no_more_than_we_may_run_on():
    assert 1 <= available_cores() <= len(os.sched_getaffinity(0))


def test_available_cores_follow_the_affinity():
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert available_cores() == 1
    finally:
        os.sched_setaffinity(0, cores)


@pytest.mark.parametrize("threads", [1, 3, 64])
def test_threads_that_are_set_are_taken(threads: int):
    assert Settings(threads=threads, workers=4).threads_per_worker() == threads


def test_workers_share_the_cores():
    cores = available_cores()
    assert Settings().threads_per_worker() == cores
    assert Settings(workers=cores).threads_per_worker() == 1
    assert Settings(workers=2).threads_per_worker() == max(1, cores // 2)
    assert Settings(workers=10_000).threads_per_worker() == 1

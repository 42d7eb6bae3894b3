from __future__ import annotations

import os

import pytest

from polyhead.serving.errors import LaunchError
from polyhead.serving.frontdoor.keys import read_keys
from polyhead.serving.frontdoor.settings import FrontDoorSettings


def test_what_config_properties_says_is_text_and_becomes_numbers_and_truth():
    settings = FrontDoorSettings.parse({"door": "true", "rate": "50", "metrics_from": "10.1.0.0/16, ::1"}, "file")
    assert (settings.door, settings.rate, settings.connections) == (True, 50, 128)
    assert not settings.tls


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"raet": "5"}, "file: front door: raet"),
        ({"rate": "-1"}, "rate"),
        ({"header_timeout": "0"}, "header_timeout"),
        ({"tls_certificate": "a.pem"}, "tls_certificate and tls_key go together"),
        ({"tls_key": "a.pem"}, "tls_certificate and tls_key go together"),
        ({"client_ca": "a.pem"}, "client_ca needs TLS"),
        ({"tls_certificate": "a", "tls_key": "b", "client_crl": "d"}, "client_crl without client_ca"),
        ({"metrics_from": "10.0.0.1/8"}, "write networks as 10.0.0.0/8"),
        ({"trusted_proxies": "balancer"}, "write networks as 10.0.0.0/8"),
        ({"client_certificate": "maybe"}, "client_certificate"),
        (
            {"tls_certificate": "a", "tls_key": "b", "client_ca": "c", "client_certificate": "optional"},
            "lets everybody in",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_name(values, words):
    with pytest.raises(LaunchError, match=r"^file: front door: ") as raised:
        FrontDoorSettings.parse(values, "file")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("response_timeout", "max_request_size", "words"),
    [
        (74, 41_943_040, None),
        (75, 41_943_040, "polyhead_front_answer_timeout=75 cuts off answers that polyhead_response_timeout=75 allows"),
        (60, 41_943_039, "polyhead_front_max_body_bytes=41943040 is more than TorchServe takes"),
    ],
)
def test_the_door_and_what_stands_behind_it_must_agree(response_timeout, max_request_size, words):
    settings = FrontDoorSettings()
    if words is None:
        settings.require_agreement(response_timeout, max_request_size)
        return
    with pytest.raises(LaunchError) as raised:
        settings.require_agreement(response_timeout, max_request_size)
    assert words in str(raised.value)


def test_keys_are_read_by_name_and_a_name_may_have_an_old_and_a_new_one(keys):
    keys.write_text(keys.read_text() + "\n  alice   NewNewNewNewNewNew  \n")
    assert read_keys(keys) == {
        "AliceAliceAliceAlice": "alice",
        "BobBobBobBobBobBob+/==": "bob",
        "NewNewNewNewNewNew": "alice",
    }


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("carol", "has 1 words"),
        ("carol a b", "has 3 words"),
        ("carol short", "16 to 255"),
        ('carol "quoted;quoted;quoted"', "16 to 255"),
        ("carol $remote_addr$remote_addr", "16 to 255"),
        ("carol sha256:0000000000000000", "nginx compares keys as they are"),
        ("ca$rol CarolCarolCarolCarol", "letters, digits, dots and dashes"),
        ("carol aliceALICEaliceALICE", "stands twice, perhaps in another casing"),
    ],
)
def test_a_line_that_is_no_key_is_named_and_its_key_is_not_shown(keys, line, words):
    keys.write_text(keys.read_text() + line)
    with pytest.raises(LaunchError, match=r"line 4: ") as raised:
        read_keys(keys)
    assert words in str(raised.value)
    assert "CarolCarol" not in str(raised.value)
    assert "quoted;" not in str(raised.value)


def test_keys_that_everybody_may_read_are_refused(keys):
    keys.chmod(0o644)
    with pytest.raises(LaunchError, match="chmod o-r"):
        read_keys(keys)


def test_no_file_and_no_key_are_refused(tmp_path):
    with pytest.raises(LaunchError, match="polyhead_front_api_keys"):
        read_keys(tmp_path / "none")
    empty = tmp_path / "empty"
    empty.write_text("# nobody\n")
    os.chmod(empty, 0o600)  # noqa: PTH101
    with pytest.raises(LaunchError, match="holds no API key"):
        read_keys(empty)

"""What `polyhead serve` tells a person."""

from __future__ import annotations

import pytest

from polyhead.cli.serve import example_curl
from polyhead.serving.bundle import Bundle
from polyhead.serving.frontdoor.settings import FrontDoorSettings

TLS = {"tls_certificate": "a.pem", "tls_key": "a.key"}


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({}, ""),
        ({"api_keys": "keys"}, ""),  # there is no door
        ({"door": True}, ""),
        ({"door": True, "api_keys": "keys"}, "-H 'X-Api-Key: KEY' "),
        ({"door": True, **TLS}, "--cacert CA.pem "),
        (
            {"door": True, **TLS, "client_ca": "ca.pem", "api_keys": "keys"},
            "--cacert CA.pem --cert CERTIFICATE.pem --key KEY.pem -H 'X-Api-Key: KEY' ",
        ),
    ],
)
def test_the_example_shows_what_the_door_asks_for(digits_bundle, settings, flags):
    command = example_curl(Bundle.open(digits_bundle), "https://host", FrontDoorSettings.model_validate(settings))
    start = f"curl -s https://host/predictions/digits/1.0 {flags}-H 'Content-Type: application/json' -d "
    assert command.startswith(start)

"""The compose files: as their schema says, every file there, hardened, and the front door alone published."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from polyhead.serving.torchserve.configuration import Configuration
from tests.unit.deploy.conftest import DEPLOY
from tests.unit.deploy.schemas import compose_faults

COMPOSE, SECURE = DEPLOY / "compose.yaml", DEPLOY / "compose/secure.yaml"
VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
# What whoever deploys brings: bundles, keys, a certificate, a password.
BROUGHT = {"MODELS", "API_KEYS_FILE", "TLS_CERTIFICATE_FILE", "TLS_KEY_FILE", "GRAFANA_PASSWORD_FILE"}


def read(path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text())


def environment() -> dict[str, str]:
    lines = [line for line in (DEPLOY / ".env").read_text().splitlines() if line and line[0] != "#"]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("path", [COMPOSE, SECURE], ids=["compose", "secure"])
def test_it_is_as_the_compose_specification_says(path):
    assert compose_faults(read(path)) == []


def test_a_key_that_the_specification_does_not_know_is_found():
    content = read(COMPOSE)
    content["services"]["server"]["read-only"] = True
    assert compose_faults(content) != []


def test_every_variable_has_the_default_of_the_file_beside_it():
    used = {name: default for path in (COMPOSE, SECURE) for name, default in VARIABLE.findall(path.read_text())}
    given = environment()
    assert given.pop("COMPOSE_PROFILES") == "cpu"
    assert used == given


def test_every_file_that_is_mounted_is_there():
    found = []
    for path in (COMPOSE, SECURE):
        for service in read(path)["services"].values():
            for volume in service.get("volumes", []):
                source = volume["source"] if isinstance(volume, dict) else volume.partition(":")[0]
                if source.startswith("."):
                    assert (DEPLOY / source).exists(), source
                    found.append(source)
    assert len(found) >= 6
    for name in VARIABLE.findall(SECURE.read_text() + COMPOSE.read_text()):
        assert not name[1].startswith("./") or name[0] in BROUGHT


def test_the_front_door_alone_is_published():
    services = read(COMPOSE)["services"]
    published = {name: service.get("ports", []) for name, service in services.items()}
    assert published == {
        "server": ["${LISTEN:-0.0.0.0}:${PORT:-8080}:8080"],
        "server-gpu": ["${LISTEN:-0.0.0.0}:${PORT:-8080}:8080"],
        "prometheus": [],
        "grafana": ["127.0.0.1:3000:3000"],
    }
    assert {name: service.get("profiles") for name, service in services.items() if name.startswith("server")} == {
        "server": ["cpu"],
        "server-gpu": ["gpu"],
    }


@pytest.mark.parametrize("name", ["server", "server-gpu", "prometheus", "grafana"])
def test_a_container_may_do_nothing_that_it_need_not(name):
    service = read(COMPOSE)["services"][name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert service["tmpfs"][0].startswith("/tmp:size=")
    assert service["mem_limit"]


def test_a_stop_leaves_time_to_drain_and_prometheus_is_let_in():
    content = read(COMPOSE)
    server = content["services"]["server"]
    configuration = Configuration.load(DEPLOY / "compose/config.properties")
    timeout = configuration.service_with({}, "compose").drain_timeout
    assert timeout + 10 <= int(server["stop_grace_period"].removesuffix("s"))
    assert server["user"] == "10001:10001"
    subnet = content["networks"]["monitoring"]["ipam"]["config"][0]["subnet"]
    assert subnet in configuration.front_with({}, "compose").metrics_from.split(",")
    target = read(DEPLOY / "prometheus/prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"]
    assert target == [f"{server['networks']['monitoring']['aliases'][0]}:8080"]


def test_the_secure_variant_changes_nothing_but_keys_and_tls():
    plain, secure = read(COMPOSE), read(SECURE)
    before = plain["services"]["server"]["command"]
    for name in ("server", "server-gpu"):
        after = secure["services"][name]["command"]
        assert after[: len(before)] == before
        over = [argument.removeprefix("--set=") for argument in after[len(before) :]]
        front = Configuration.load(DEPLOY / "compose/config.properties", over).front_with({}, "secure")
        secrets = {f"/run/secrets/{secret}" for secret in secure["services"][name]["secrets"]}
        assert {front.tls_certificate, front.tls_key, front.api_keys} == secrets
        assert set(secure["services"][name]["secrets"]) == set(secure["secrets"])
    own, tls = (read(DEPLOY / "prometheus" / name) for name in ("prometheus.yml", "prometheus-tls.yml"))
    assert tls["scrape_configs"][0].pop("scheme") == "https"
    assert tls["scrape_configs"][0].pop("tls_config") == {"insecure_skip_verify": True}
    assert tls == own

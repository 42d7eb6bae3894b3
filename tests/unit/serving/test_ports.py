"""Ports: taken ones are refused before anything is started."""

from __future__ import annotations

import socket

import pytest

from polyhead.serving.errors import LaunchError
from polyhead.serving.torchserve import ports
from tests.freeports import free_ports


def test_management_and_metrics_follow_inference():
    port = free_ports()[0]
    found = ports.addresses("127.0.0.1", port)
    assert (found.inference, found.management, found.metrics) == (port, port + 1, port + 2)
    others = {found.grpc_inference, found.grpc_management, found.torchserve_metrics}
    assert len({port, port + 1, port + 2, *others}) == 6


def test_behind_a_front_door_inference_has_a_port_of_its_own():
    found = ports.addresses("127.0.0.1", 0, door=True)
    known = (found.inference, found.management, found.metrics, found.grpc_inference, found.grpc_management)
    assert len({*known, found.torchserve_metrics, found.behind}) == 7
    assert found.torchserve_port == found.behind
    assert ports.addresses("127.0.0.1", 0).behind == 0


def test_port_0_takes_six_different_ports():
    found = ports.addresses("127.0.0.1", 0)
    known = {found.inference, found.management, found.metrics}
    assert len(known | {found.grpc_inference, found.grpc_management, found.torchserve_metrics}) == 6


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_each_port_that_is_in_use_is_named(offset):
    port = free_ports()[0]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port + offset))
        taken.listen()
        with pytest.raises(LaunchError, match=rf"port {port + offset} on 127\.0\.0\.1 is in use"):
            ports.addresses("127.0.0.1", port)


@pytest.mark.parametrize("port", [-1, 65535, 99999])
def test_a_port_that_is_none_is_refused(port):
    with pytest.raises(LaunchError, match=rf"port {port} is outside"):
        ports.addresses("127.0.0.1", port)

"""Who may change a server, and when: the orders of `polyhead deploy`, before they reach TorchServe."""

from __future__ import annotations

import os
from collections.abc import Iterator

import orjson
import pytest

from polyhead.serving.errors import DeployError, LaunchError
from polyhead.serving.settings import Settings
from polyhead.serving.side.control import Control
from polyhead.serving.side.exchange import Asked, Conflict, Forbidden, NotFound, Refused, Reply
from polyhead.serving.side.prober import Prober
from polyhead.serving.side.roster import Roster
from polyhead.serving.torchserve import ports
from polyhead.serving.torchserve.configuration import DEFAULT_CONFIG, Configuration
from polyhead.serving.torchserve.deploying import Busy, Deployer, Unknown
from polyhead.serving.torchserve.launcher import Server


@pytest.fixture(scope="module")
def server(mlp) -> Iterator[Server]:
    """A server of one version, not started."""
    with Server([mlp.bundle], Configuration.load(DEFAULT_CONFIG), Settings(), ports.addresses("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def parts(server) -> tuple[Deployer, Prober]:
    prober = Prober(60.0)
    return Deployer(server, Roster(), prober, lambda: "http://127.0.0.1:9", [], None, 1.0), prober


def order(deployer: Deployer, verb: str, owner: int | None, **headers: str) -> Reply:
    body = orjson.dumps({"model": "mlp", "version": "1.0"})
    told = {"host": "localhost", "x-polyhead-control": "1", **headers}
    asked = Asked("POST", f"/control/{verb}", told, body, owner=lambda: owner)
    return Control(deployer, Busy, Unknown)(asked, {"verb": verb})


@pytest.mark.parametrize("verb", ["add", "promote", "rollback", "remove"])
def test_nothing_is_changed_while_models_are_being_loaded(parts, verb: str):
    deployer, prober = parts
    with pytest.raises(Conflict, match="the server is still starting: try again when it is ready"):
        order(deployer, verb, os.geteuid())
    prober.started()
    with pytest.raises((NotFound, Refused), match=r"mlp(/1\.0)? is not served|no bundle of mlp/1.0 lies"):
        order(deployer, verb, os.geteuid())
    deployer.close()
    with pytest.raises(Refused, match="the server is stopping"):
        order(deployer, verb, os.geteuid())


def test_another_user_of_the_machine_changes_nothing(parts):
    deployer, prober = parts
    prober.started()
    stranger = os.geteuid() + 1
    with pytest.raises(Forbidden, match=f"of user {stranger}: have user {os.geteuid()}, who runs the server, or root"):
        order(deployer, "promote", stranger)
    with pytest.raises(Forbidden, match="of an unknown user"):
        order(deployer, "promote", None)
    for owner in (os.geteuid(), 0):
        with pytest.raises(NotFound, match="is not served"):
            order(deployer, "promote", owner)


def test_a_browser_changes_nothing(parts):
    deployer, prober = parts
    prober.started()
    for headers in ({"x-polyhead-control": "yes"}, {"origin": "http://localhost:8082"}):
        with pytest.raises(Forbidden, match="send x-polyhead-control: 1 to the loopback"):
            order(deployer, "promote", os.geteuid(), **headers)


def test_what_is_being_loaded_is_not_loaded_again(server, mlp):
    with pytest.raises(DeployError, match=r"mlp/1.0 is served or being loaded"):
        server.load(mlp.bundle)
    with pytest.raises(LaunchError, match=r"mlp/1.0 was removed from the model store"):
        server.store.of(mlp.bundle)

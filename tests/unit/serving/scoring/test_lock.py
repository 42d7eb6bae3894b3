from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from polyhead.serving.scoring.errors import JobLocked
from polyhead.serving.scoring.lease import Lease
from polyhead.serving.scoring.lock import locked
from polyhead.serving.scoring.store import Store

HOLD = """
import sys
from polyhead.serving.scoring.lock import locked
from polyhead.serving.scoring.store import Store
with locked(Store.of(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_driver_is_refused_until_the_first_one_is_dead(tmp_path: Path) -> None:
    store = Store.of(tmp_path)
    with holder(tmp_path) as process:
        said = rf"process {process.pid} on .*, since .* works on it: wait for its end"
        with pytest.raises(JobLocked, match=said), locked(store):
            raise AssertionError("two drivers")
        process.kill()
        process.wait()
        with locked(store) as lock:  # at once
            assert lock.token == 2


def test_tokens_grow(tmp_path: Path) -> None:
    store = Store.of(tmp_path)
    tokens = []
    for _ in range(3):
        with locked(store) as lock:
            lock.check()
            tokens.append(lock.token)
    assert tokens == [1, 2, 3]


def test_a_folder_that_is_removed_under_a_driver_ends_it(tmp_path: Path) -> None:
    store = Store.of(tmp_path / "out")
    with locked(store) as lock:
        shutil.rmtree(tmp_path / "out")
        with pytest.raises(JobLocked, match="was removed while a driver held it"):
            lock.check()
        with locked(store) as other:  # somebody begins anew
            other.check()
            with pytest.raises(JobLocked):
                lock.check()


@pytest.fixture(params=["local://", "memory://"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Stores without locks."""
    return Store.of(f"{request.param}{tmp_path}/{uuid.uuid4().hex}")


def test_a_lease_keeps_others_out(remote: Store) -> None:
    with Lease(remote, settle=0.01) as lease:
        lease.check()
        with pytest.raises(JobLocked, match=r"process \d+ on .* works on it"), Lease(remote, settle=0.01):
            raise AssertionError("two drivers")
        lease.check()  # the one who was refused leaves nothing behind
    assert remote.names("_polyhead/lock") == []
    with Lease(remote, settle=0.01) as lease:
        assert lease.token == 2


def test_a_lease_is_renewed(remote: Store) -> None:
    with Lease(remote, expiry=0.6, settle=0.01) as lease:
        time.sleep(1.0)
        lease.check()
        with pytest.raises(JobLocked), Lease(remote, expiry=0.6, settle=0.01):
            raise AssertionError("two drivers")


class Silent(Lease):
    """A driver that was cut off: nobody hears of it any more, and it does not know."""

    def _renew(self) -> None:
        pass


def test_a_lease_without_a_sign_of_life_is_passed_over(remote: Store) -> None:
    with ExitStack() as stack:
        old = stack.enter_context(Silent(remote, expiry=0.3, settle=0.01))
        time.sleep(0.5)
        new = stack.enter_context(Lease(remote, expiry=0.3, settle=0.01))
        assert (old.token, new.token) == (1, 2)
        new.check()
        with pytest.raises(JobLocked, match="works on it"):
            old.check()
    # The old one's leaving does not take the new one's claim away, nor the number of the last token.
    with Lease(remote, expiry=0.3, settle=0.01) as next_one:
        assert next_one.token == 3


def test_a_driver_that_was_cut_off_goes_on_where_nobody_took_over(remote: Store) -> None:
    with Silent(remote, expiry=0.3, settle=0.01) as lease:
        time.sleep(0.5)
        assert not any(name.endswith(".beat") for name in remote.names())
        lease.check()  # says that it lives before it believes so
        assert any(name.endswith(".beat") for name in remote.names())
        with pytest.raises(JobLocked), Lease(remote, expiry=0.3, settle=0.01):
            raise AssertionError("two drivers")


def test_a_driver_that_was_cut_off_stops_when_its_claim_goes_meanwhile(remote: Store) -> None:
    with Silent(remote, expiry=0.3, settle=0.5) as lease:
        time.sleep(0.5)
        (claim,) = [name for name in remote.names() if name.endswith(".claim")]
        taker = threading.Timer(0.2, remote.delete, [claim])
        taker.start()
        with pytest.raises(JobLocked, match=r"could not renew its lock for 0 s.*--resume"):
            lease.check()
        taker.join()


def test_of_many_at_the_same_time_one_gets_the_lease(remote: Store) -> None:
    drivers = 6
    won: list[int] = []
    refused: list[JobLocked] = []
    ready, done = threading.Barrier(drivers), threading.Barrier(drivers)

    def drive() -> None:
        ready.wait()
        try:
            with Lease(remote, settle=0.3) as lease:
                won.append(lease.token)
                done.wait(10)
                lease.check()
                return
        except JobLocked as error:
            refused.append(error)
        done.wait(10)

    threads = [threading.Thread(target=drive) for _ in range(drivers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, drivers - 1)

from __future__ import annotations

import errno
import hashlib
import os
import resource
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from polyhead.serving.scoring.errors import StoreFull
from polyhead.serving.scoring.store import Store
from polyhead.serving.scoring.storefaults import ATTEMPTS, again, is_full, is_transient


@pytest.fixture(params=["", "local://", "memory://"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Files of this machine, the same by fsspec, and fsspec's in memory."""
    return Store.of(f"{request.param}{tmp_path}/{uuid.uuid4().hex}")


@pytest.fixture
def local(tmp_path: Path) -> Store:
    return Store.of(tmp_path)


def test_what_is_put_is_read(store: Store) -> None:
    assert store.names() == []
    store.put("a/b.json", b"one")
    store.put("a/b.json", b"two")
    store.put("c", b"")
    assert store.read("a/b.json") == b"two"
    assert store.names() == ["a/b.json", "c"]
    assert store.names("a") == store.names("a/") == ["a/b.json"]
    assert store.names("nosuch") == []
    assert (store.size("a/b.json"), store.size("c"), store.size("a"), store.size("x/y")) == (3, 0, None, None)
    assert store.exists("c")
    assert set(store.times("a")) == {"a/b.json"}
    with pytest.raises(FileNotFoundError):
        store.read("nosuch")


def test_what_is_deleted_is_gone(store: Store) -> None:
    for name in ("a/b/1", "a/b/2", "a/c"):
        store.put(name, b"x")
    store.delete("a/c")
    store.delete("a/c")
    assert store.names() == ["a/b/1", "a/b/2"]
    store.delete_folder("a/b")
    store.delete_folder("a/b")
    assert store.names() == []


def test_a_written_file_is_counted_and_hashed(store: Store) -> None:
    with store.writing("a/b.parquet") as sink, pq.ParquetWriter(sink, pa.schema([("x", pa.int64())])) as writer:
        writer.write_table(pa.table({"x": pa.array(range(1000))}))
    content = store.read("a/b.parquet")
    assert (sink.size, sink.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert sink.tell() == sink.size
    with store.open("a/b.parquet") as file:
        assert pq.read_table(file).column("x").to_pylist() == list(range(1000))


def test_a_written_file_replaces_none(store: Store) -> None:
    store.put("a", b"old")
    with pytest.raises(FileExistsError), store.writing("a") as sink:
        sink.write(b"new")
    assert store.read("a") == b"old"


def test_a_file_that_fails_half_way_is_not_there(store: Store) -> None:
    with pytest.raises(TypeError), store.writing("a/b") as sink:
        sink.write([sink.write(b"x" * 10_000)])  # the list is no bytes
    assert store.names() == []


def test_publishing_may_be_done_again_and_replaces(store: Store) -> None:
    store.put("attempts/1", b"first")
    store.put("attempts/2", b"second")
    for _ in range(2):
        store.publish("attempts/1", "parts/p")
    assert store.read("parts/p") == b"first"
    store.publish("attempts/2", "parts/p")
    store.delete_folder("attempts")
    assert store.read("parts/p") == b"second"
    assert store.names() == ["parts/p"]


def test_publishing_links_on_this_machine(local: Store, tmp_path: Path) -> None:
    local.put("a", b"x")
    local.publish("a", "b")
    assert (tmp_path / "a").samefile(tmp_path / "b")


@pytest.mark.parametrize("number", [errno.EPERM, errno.EXDEV, errno.EMLINK])
def test_where_links_do_not_work_there_is_a_copy(
    local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_paths: object) -> None:
        raise OSError(number, os.strerror(number))

    local.put("a", b"x")
    monkeypatch.setattr(os, "link", refuse)
    local.publish("a", "b")
    assert local.read("b") == b"x"
    assert not (tmp_path / "a").samefile(tmp_path / "b")
    assert list((tmp_path / "_polyhead/tmp").iterdir()) == []


def test_files_that_are_not_whole_are_not_listed(local: Store, tmp_path: Path) -> None:
    local.put("a", b"x")
    (tmp_path / "_polyhead/tmp/left").write_bytes(b"half")
    assert local.names() == ["a"]


def test_an_error_of_the_file_system_stays_what_it_is(local: Store) -> None:
    local.put("a", b"")
    with pytest.raises(FileExistsError):
        local.put("a/b", b"x")
    assert local.size("a/b") is None


@pytest.fixture
def small_files() -> Iterator[int]:
    """No file of this process may be larger than this: as when a disk is full, without filling one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, hard))
    yield 65_536
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_says_so(local: Store, tmp_path: Path, small_files: int) -> None:
    with pytest.raises(StoreFull, match=r"/a: there is no room for the output \(.*\): make room, then go on") as full:
        local.put("b/a", bytes(small_files + 1))
    assert "\n" not in str(full.value)
    with pytest.raises(StoreFull), local.writing("c") as sink:
        sink.write(bytes(small_files + 1))
    # Through pyarrow's writer, which calls ours from another language.
    table = pa.table({"x": pa.array(range(200_000))})
    with pytest.raises(StoreFull), local.writing("d") as sink:
        pq.ParquetWriter(sink, table.schema, compression="none").write_table(table)
    assert local.names() == []
    assert list((tmp_path / "_polyhead/tmp").iterdir()) == []


@pytest.mark.parametrize(
    ("error", "full", "transient"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True, False),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True, False),
        (OSError("IOError: Error writing bytes to file. Detail: [errno 28] No space left on device"), True, False),
        (OSError("When uploading part: AWS Error UNKNOWN (HTTP status 507): XMinioStorageFull"), True, False),
        (OSError("AWS Error SLOW_DOWN during PutObject operation: Please reduce your request rate."), False, True),
        (OSError("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 28, Timeout"), False, True),
        (ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"), False, True),
        (OSError("AWS Error ACCESS_DENIED during HeadObject operation: No response body."), False, False),
        (FileNotFoundError(errno.ENOENT, "No such file or directory"), False, False),
        (FileNotFoundError("Path does not exist 'bucket/x'"), False, False),
        (ValueError("no space left on device"), False, False),
    ],
)
def test_what_a_failure_means(error: Exception, full: bool, transient: bool) -> None:
    assert (is_full(error), is_transient(error)) == (full, transient)


def test_transient_failures_are_tried_again_ever_later() -> None:
    waits: list[float] = []
    failures = [OSError("503 SlowDown")] * 4

    def call() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert again(call, sleep=waits.append) == "done"
    assert len(waits) == 4
    for attempt, seconds in enumerate(waits):
        assert 0.05 * 2**attempt <= seconds <= 0.1 * 2**attempt


def test_failures_end_at_last_and_permanent_ones_at_once() -> None:
    calls: list[int] = []

    def fail(error: OSError) -> None:
        calls.append(1)
        raise error

    with pytest.raises(OSError, match="503"):
        again(lambda: fail(OSError("503 SlowDown")), sleep=lambda _seconds: None)
    assert len(calls) == ATTEMPTS
    calls.clear()
    with pytest.raises(PermissionError):
        again(lambda: fail(PermissionError(errno.EACCES, "no")), sleep=lambda _seconds: None)
    assert len(calls) == 1

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import fs

from polyhead.serving.errors import RuntimeUnavailable
from polyhead.serving.scoring.errors import JobRefused
from polyhead.serving.scoring.filesystems import below, is_local, resolve, shown


def test_local_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for address in ("out/x", Path("out/x"), tmp_path / "out" / "x", f"file://{tmp_path}/out/x"):
        filesystem, path = resolve(address)
        assert is_local(filesystem)
        assert path == str(tmp_path / "out/x")


def test_a_colon_or_a_question_mark_does_not_make_an_address(tmp_path: Path) -> None:
    assert resolve(tmp_path / "a:b?c")[1] == str(tmp_path / "a:b?c")


def test_s3_with_options_asks_for_more_attempts_than_pyarrow_does() -> None:
    filesystem, path = resolve("s3://bucket/a/b?endpoint_override=127.0.0.1%3A9&scheme=http&region=eu-west-1")
    assert isinstance(filesystem, fs.S3FileSystem)
    assert (path, filesystem.region) == ("bucket/a/b", "eu-west-1")
    assert not is_local(filesystem)


def test_fsspec_opens_the_rest(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    filesystem, path = resolve(f"local://{tmp_path}/x")
    assert not is_local(filesystem)
    with filesystem.open_input_file(path) as file:
        assert file.read() == b"abc"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("nosuch://a/b", "nosuch://a/b: cannot be opened (Protocol not known: nosuch): give a local path"),
        (
            "s3://bucket/a?nosuch=1",
            "cannot be opened (Unexpected query parameter in S3 URI: 'nosuch'): check the address",
        ),
        ("s3://key:secret@bucket/a", "s3://***@bucket/a: holds a secret"),
        ("s3://key:sec/secret@bucket/a", "s3://***@bucket/a: holds a secret"),
        ("https://host/a?X-Amz-Signature=secret&b=1", "https://host/a?X-Amz-Signature=***&b=1: holds a secret"),
        ("abfs://host/a?client_secret=secret", "abfs://host/a?client_secret=***: holds a secret"),
        ("s3://bucket/a?secret_key=secret", "s3://bucket/a?secret_key=***: holds a secret"),
    ],
)
def test_refusals_say_what_and_tell_no_secret(address: str, said: str) -> None:
    with pytest.raises(JobRefused) as refused:
        resolve(address)
    assert said in str(refused.value)
    assert "secret@" not in str(refused.value)
    assert "=secret" not in str(refused.value)


def test_a_package_that_is_missing_is_named() -> None:
    with pytest.raises(RuntimeUnavailable, match="smb"):
        resolve("smb://host/share/x")


def test_below_keeps_the_options() -> None:
    assert below("/a/b/", "c/d") == "/a/b/c/d"
    assert below("/a?b", "c") == "/a?b/c"
    assert below("s3://b/out?region=x&scheme=http", "c") == "s3://b/out/c?region=x&scheme=http"


def test_shown_hides_who_signs() -> None:
    assert shown("s3://key:secret@bucket/a@b") == "s3://***@bucket/a@b"
    assert shown("/a/b") == "/a/b"

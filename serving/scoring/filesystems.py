"""Addresses of files: a local path, one that pyarrow knows (`s3://bucket/key?endpoint_override=…`), or fsspec's."""

from __future__ import annotations

import importlib
import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pyarrow as pa
from pyarrow import fs

from polyhead.serving.errors import RuntimeUnavailable
from polyhead.serving.scoring.errors import JobRefused

__all__ = ["below", "is_local", "resolve", "shown"]

SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")
# Options of an address that hold secrets: passwords, keys, tokens, and what signs an address.
SECRET = re.compile(
    r"(?i)([?&])([^=&]*(?:secret|password|token|signature|credential|access[_-]?key|account[_-]?key)[^=&]*|sig)=[^&]*"
)
ARROW_SCHEMES = frozenset(["file", "s3", "gs", "gcs", "hdfs", "viewfs", "abfs", "abfss"])
# Of an S3 address: what can be said to the constructor too, which alone lets us ask for more than three attempts.
S3_OPTIONS = frozenset(["region", "scheme", "endpoint_override"])
S3_ATTEMPTS = 3  # whoever asks tries again too: these are for what passes within a second


def resolve(address: str | Path) -> tuple[fs.FileSystem, str]:
    """The file system of an address, and the path on it.

    Args:
        address: a local path; an address of pyarrow (`file`, `s3`, `gs`, `hdfs`, `abfs`); or one of fsspec, whose
            package for that scheme must be installed.

    Raises:
        JobRefused: the address is malformed, holds a secret, or nobody knows its scheme.
        RuntimeUnavailable: fsspec, or its package for the scheme, is not installed.
    """
    text = os.fspath(address)
    scheme = _scheme(text)
    if scheme is None:
        return fs.LocalFileSystem(), str(Path(text).absolute())
    if _holds_secret(text):
        raise JobRefused(
            f"{shown(text)}: holds a secret, which would be kept in the job's files: "
            "leave it out and set the store's environment variables (AWS_ACCESS_KEY_ID, …)"
        )
    return _arrow(text) if scheme in ARROW_SCHEMES else _fsspec(text, scheme)


def is_local(filesystem: fs.FileSystem) -> bool:
    """Whether files are this machine's own, with locks, links and atomic renames."""
    return isinstance(filesystem, fs.LocalFileSystem)


def below(address: str, name: str) -> str:
    """The address of a file below another, options of the address kept: `s3://b/out?region=x` and `a/b`."""
    head, mark, options = address.partition("?") if _scheme(address) else (address, "", "")
    return f"{head.rstrip('/')}/{name}{mark}{options}"


def shown(address: str | Path) -> str:
    """An address as it may be shown: without a secret."""
    text = re.sub(r"://[^?@]*@", "://***@", os.fspath(address))
    return SECRET.sub(r"\1\2=***", text)


def _holds_secret(text: str) -> bool:
    """A password before the host, which may have slashes in it, or an option that is one."""
    return re.search(r"://[^?@]*:[^?@]*@", text) is not None or SECRET.search(text) is not None


def _scheme(text: str) -> str | None:
    match = SCHEME.match(text)
    return None if match is None else match.group(1).lower()


def _arrow(text: str) -> tuple[fs.FileSystem, str]:
    try:
        filesystem, path = fs.FileSystem.from_uri(text)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise JobRefused(f"{shown(text)}: cannot be opened ({shown(_line(error))}): check the address") from None
    options = dict(parse_qsl(urlsplit(text).query))
    if isinstance(filesystem, fs.S3FileSystem) and set(options) <= S3_OPTIONS and urlsplit(text).username is None:
        patient = fs.AwsStandardS3RetryStrategy(max_attempts=S3_ATTEMPTS)
        filesystem = fs.S3FileSystem(**{"region": filesystem.region, **options}, retry_strategy=patient)
    return filesystem, str(path)


def _fsspec(text: str, scheme: str) -> tuple[fs.FileSystem, str]:
    try:
        fsspec = importlib.import_module("fsspec.core")
    except ImportError:
        raise RuntimeUnavailable(
            f"{shown(text)}: scheme {scheme!r} needs fsspec: install it with pip install 'polyhead[score]'"
        ) from None
    try:
        # What another process writes must be seen: no listing is remembered.
        found, path = fsspec.url_to_fs(text, use_listings_cache=False)
    except ImportError as error:
        raise RuntimeUnavailable(f"{shown(text)}: {_line(error)}") from None
    except (OSError, ValueError) as error:
        raise JobRefused(
            f"{shown(text)}: cannot be opened ({shown(_line(error))}): give a local path, or an address that pyarrow "
            f"({', '.join(sorted(ARROW_SCHEMES))}) or an installed fsspec package knows"
        ) from None
    return fs.PyFileSystem(fs.FSSpecHandler(found)), str(path)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())

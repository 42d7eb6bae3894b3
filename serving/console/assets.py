"""The console's files, with the headers that a browser is to hold them to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["FOLDER", "Asset", "asset"]

FOLDER = Path(__file__).parent
PAGES = {"/": "index.html", "/docs": "docs.html"}
PREFIX = "/console/"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
# What the page may do is what it does: its own scripts and styles, none in line, requests to its own origin alone.
# Trusted types: an answer's text can never become markup, for no script of the page may assign any.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-cache",  # kept, and asked for again by its ETag: a new version of the server is a new page
}


@dataclass(frozen=True)
class Asset:
    """One file.

    Attributes:
        body: its bytes.
        content_type: with its charset.
        etag: changes with the bytes; in quotes, as the header wants it.
        headers: all that go with it, those two among them.
    """

    body: bytes
    content_type: str
    etag: str
    headers: Mapping[str, str]


@cache
def _files() -> Mapping[str, str]:
    """By the path of a URL, the name of a file. Nothing else is ever opened, whatever a URL says."""
    names = sorted(path.name for path in FOLDER.iterdir() if path.suffix in TYPES)
    return PAGES | {PREFIX + name: name for name in names if name not in PAGES.values()}


@cache
def _read(name: str) -> Asset:
    body = (FOLDER / name).read_bytes()
    content_type = TYPES[Path(name).suffix]
    etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    return Asset(body, content_type, etag, {"Content-Type": content_type, "ETag": etag, **HEADERS})


def asset(path: str) -> Asset | None:
    """The file that a URL's path stands for: `/`, `/docs`, `/console/<name>`; None where there is none."""
    name = _files().get(path)
    return None if name is None else _read(name)

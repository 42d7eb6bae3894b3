"""Files on disk as the bodies that a client would send: the media type by the file's ending."""

from __future__ import annotations

from pathlib import Path

from polyhead.models.spec import ModelSpec
from polyhead.serving.errors import PolyheadError, RequestError
from polyhead.serving.protocol import json, media
from polyhead.serving.request import HttpRequest, Query
from polyhead.serving.settings import Settings

__all__ = ["MEDIA_TYPES", "FileRefused", "decode_file", "media_type"]

MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".txt": "text/plain",
    ".bin": "application/octet-stream",
    ".json": "application/json",
}


class FileRefused(PolyheadError):
    """A file that cannot be read as rows of a model. Names the file."""


def media_type(path: Path) -> str:
    """The media type of a file, by its ending.

    Raises:
        FileRefused: files of this kind are not read.
    """
    kind = path.suffix.lower()
    if kind not in MEDIA_TYPES:
        raise FileRefused(f"{path}: files of this kind are not read: give {', '.join(MEDIA_TYPES)}")
    return MEDIA_TYPES[kind]


def decode_file(path: Path, spec: ModelSpec, settings: Settings) -> Query:
    """A file's rows, decoded as the server would decode them.

    Raises:
        FileRefused: naming the file and what is wrong with it.
    """
    kind = media_type(path)
    data = path.read_bytes()
    if kind == "application/json" and data.lstrip()[:1] == b"[":
        data = b'{"instances": ' + data + b"}"
    decoder = json.decode if kind in json.MEDIA_TYPES else media.decode
    try:
        return decoder(HttpRequest(data, kind), spec, settings)
    except RequestError as error:
        place = ".".join(str(part) for part in error.loc)
        raise FileRefused(f"{path}: {error}{f' (at {place})' if place else ''}") from None

"""The file of API keys: `name key` a line."""

from __future__ import annotations

import re
import stat
from pathlib import Path

from polyhead.serving.errors import LaunchError

__all__ = ["read_keys"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
# What a Bearer token may hold (RFC 6750); the shortest is what nobody guesses by trying.
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~+/-]{15,254}=*", re.ASCII)
MOST = 10_000


def read_keys(path: Path) -> dict[str, str]:
    """Names by key.

    A name may stand twice, with an old and a new key. Empty lines and those that begin with # mean nothing.

    Raises:
        LaunchError: the file cannot be read, others may read it, it holds no key, a line is wrong; keys are not shown.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise LaunchError(f"{path}: the API keys cannot be read ({reason}): check polyhead_front_api_keys") from None
    if mode & stat.S_IROTH:
        raise LaunchError(f"{path}: everybody may read the API keys: chmod o-r (Kubernetes: defaultMode: 0440)")
    names: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        parts = line.split()
        if not parts or parts[0].startswith("#"):
            continue
        wrong = _fault(parts, names)
        if wrong is not None:
            raise LaunchError(f"{path}, line {number}: {wrong}")
        names[parts[1]] = parts[0]
    if not names:
        raise LaunchError(f"{path}: holds no API key: write `name key` a line, a key as of openssl rand -hex 32")
    if len(names) > MOST:
        raise LaunchError(f"{path}: holds {len(names)} API keys, the front door keeps {MOST}: check them elsewhere")
    return names


def _fault(parts: list[str], names: dict[str, str]) -> str | None:
    """What is wrong with a line, in words that do not show the key; None where nothing is."""
    if len(parts) != 2:
        return f"has {len(parts)} words: write `name key`"
    name, key = parts
    if not NAME.fullmatch(name):
        return f"name {name!r:.70} is not made of letters, digits, dots and dashes"
    if key.startswith("sha256:"):
        return f"the key of {name} is a hash: nginx compares keys as they are, so write the key, and guard the file"
    if not KEY.fullmatch(key):
        return f"the key of {name} is not 16 to 255 letters, digits and ._~+/-: make one with openssl rand -hex 32"
    # nginx looks keys up in any casing first.
    if key.lower() in (other.lower() for other in names):
        return f"the key of {name} stands twice, perhaps in another casing"
    return None

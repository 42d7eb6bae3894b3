"""Python objects by name: `package.module:name`, or `path/to/file.py:name` of a user's own file."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from polyhead.models.spec import SpecError

__all__ = ["imported", "imported_module"]


def imported(name: str, what: str) -> Any:
    """Import an object.

    Args:
        name: `package.module:name` or `path/to/file.py:name`; looked for where the user stands too.
        what: it is, in errors: `factory`, `model`.

    Raises:
        SpecError: it cannot be found, or its module cannot be imported.
    """
    place, _, attribute = name.rpartition(":")
    if not place or not attribute:
        raise SpecError(f"{what} {name!r}: write package.module:name or path/to/file.py:name")
    try:
        module = imported_module(place)
    except FileNotFoundError:
        raise SpecError(f"{what} {name!r}: the file {place} is not there") from None
    except Exception as error:
        raise SpecError(
            f"{what} {name!r}: {place} cannot be imported ({type(error).__name__}: {error}): "
            "check the name, or give a file"
        ) from error
    if not hasattr(module, attribute):
        raise SpecError(f"{what} {name!r}: {place} has nothing by the name {attribute!r}")
    return getattr(module, attribute)


def imported_module(place: str) -> ModuleType:
    """Import a module by its name, looked for where the user stands too, or by its file.

    Raises:
        FileNotFoundError: there is no such file.
        Exception: whatever the module raises.
    """
    if not place.endswith(".py"):
        with _first_on_path(Path.cwd()):  # a console script does not look where the user stands
            return importlib.import_module(place)
    path = Path(place).resolve()
    if not path.is_file():
        raise FileNotFoundError(path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses and pickled types look their module up by name
    with _first_on_path(path.parent):  # the file may import its neighbours, as when it is run itself
        spec.loader.exec_module(module)
    return module


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))

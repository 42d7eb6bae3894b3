"""YAML as the spec is written in: what PyYAML does in silence is an error here."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import yaml

__all__ = ["UniqueKeyLoader", "read_yaml"]


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML in which a key that stands twice is an error; PyYAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As PyYAML does, after looking for keys that stand twice and for merge keys."""
        seen: set[Hashable] = set()
        for key_node, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, "merge keys (<<) are not read", key_node.start_mark)
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, refused: Callable[[str], Exception]) -> Any:
    """The content of a YAML file in which no key stands twice.

    Args:
        path: the file.
        refused: makes the exception that is raised where the file cannot be read, or is no YAML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise refused(f"{path}: cannot be read ({error}): give a YAML file") from None
    try:
        return yaml.load(text, Loader=UniqueKeyLoader)  # noqa: S506 - a SafeLoader underneath
    except Exception as error:  # noqa: BLE001 - PyYAML's constructors raise whatever they trip over
        raise refused(f"{path}: is not YAML: {' '.join(str(error).split())}") from None

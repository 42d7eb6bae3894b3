"""New classes for a oneshot head, from one example or a few: nothing is trained, and no graph changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from polyhead.export.errors import ExportError
from polyhead.export.staging import require_free, rewrite
from polyhead.models.spec import OneShotHead
from polyhead.serving.bundle import Bundle
from polyhead.serving.collate import collate
from polyhead.serving.engine import Engine
from polyhead.serving.golden import Array
from polyhead.serving.prototypes import prototypes_file
from polyhead.serving.request import Query
from polyhead.serving.texts import Texts

__all__ = ["enrol", "vectors"]

MAX_ROWS, MAX_TOKENS = 256, 16_384  # of one forward pass


def enrol(
    bundle: Bundle,
    head: str,
    examples: Mapping[str, Sequence[Query]],
    out: Path,
    version: str | None = None,
    force: bool = False,
) -> Bundle:
    """Write a bundle with more classes, or with more examples of those it has.

    Args:
        bundle: an opened bundle; it is left as it is.
        head: a oneshot head.
        examples: by class, decoded rows.
        out: the new bundle's directory; may be the old one's, with `force`.
        version: of the new bundle; the old one's where None.
        force: replace a bundle that is there already, once the new one is whole.

    Raises:
        ExportError: the head is no oneshot head, a class has no example, or `out` is taken.
    """
    declared = bundle.spec.heads.get(head)
    if not isinstance(declared, OneShotHead):
        known = ", ".join(name for name, spec in bundle.spec.heads.items() if isinstance(spec, OneShotHead))
        raise ExportError(f"head {head!r} of {bundle.title} enrols no classes (oneshot heads: {known or 'none'})")
    engine = Engine.load(bundle)
    engine.replay_golden()  # vectors of another machine's arithmetic would enrol somebody else
    enrolled = bundle.prototypes()[head]
    for label, queries in examples.items():
        try:
            enrolled = enrolled.enrol(label, vectors(engine, head, queries))
        except ValueError as error:
            raise ExportError(f"class {label!r}: {error}") from None
    out = require_free(out, force)
    changes: dict[str, object] = {}
    if version is not None:
        changes["spec"] = type(bundle.spec).parse({**bundle.spec.model_dump(), "version": version}, "--version")
    return rewrite(bundle, out, {prototypes_file(head): enrolled.dump()}, **changes)


def vectors(engine: Engine, head: str, queries: Sequence[Query]) -> Array:
    """A oneshot head's output for the rows of queries, `float32 [rows, dim]`."""
    spec = engine.bundle.spec
    texts = Texts.of(engine.bundle)
    batches = collate(spec, [texts.encode(query) for query in queries], MAX_ROWS, MAX_TOKENS) if queries else []
    parts = [engine.run(batch.inputs, [head])[head] for batch in batches]
    dim = spec.heads[head].dim  # type: ignore[union-attr]
    return np.concatenate(parts) if parts else np.zeros((0, dim), dtype=np.float32)

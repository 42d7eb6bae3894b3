"""How far each graph was proven equal to eager PyTorch, head by head, as the bundle's `parity.json` records it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from polyhead.models.faults import first_fault
from polyhead.models.markup import Markup, paragraph, table
from polyhead.serving.bundle import Bundle
from polyhead.serving.errors import BundleError
from polyhead.serving.manifest import Manifest

__all__ = ["PARITY", "Record", "proofs", "records"]

PARITY = "parity.json"
NOTHING = "–"


class Record(BaseModel):
    """One graph in one runtime on one device. What else stands there is left to who reads the file itself.

    Attributes:
        heads: the largest absolute difference, by head.
        decisions: by head, how many were clear, and how many of these are eager's.
        batches: by case and head, the largest absolute difference.
    """

    model_config = ConfigDict(frozen=True)

    graph: str
    runtime: str
    device: str
    heads: dict[str, float]
    decisions: dict[str, tuple[int, int]] = Field(default_factory=dict)
    batches: dict[str, dict[str, float]] = Field(default_factory=dict)


RECORDS = TypeAdapter(tuple[Record, ...])


def records(bundle: Bundle) -> tuple[Record, ...]:
    """What the gate recorded; nothing where the bundle has no such file.

    Raises:
        BundleError: the file is something else.
    """
    if PARITY not in bundle.manifest.files:
        return ()
    data = bundle.read(PARITY)
    try:
        return RECORDS.validate_json(data)
    except ValidationError as error:
        raise BundleError(f"{bundle.folder}: {PARITY}: {first_fault(error, None)}: export the bundle again") from None


def proofs(manifest: Manifest, found: Sequence[Record]) -> Markup:
    """Graphs by how far they are from eager; every head of every graph; every case."""
    if not found:
        return paragraph(f"The bundle has no {PARITY}: the table of graphs holds what its manifest says.")
    return Markup(_by_graph(manifest, found) + _by_head(manifest, found) + _by_case(found))


def _by_graph(manifest: Manifest, found: Sequence[Record]) -> Markup:
    rows = []
    for record in found:
        allowed = decided = NOTHING
        if record.graph in manifest.graph_ids:
            graph = manifest.graph(record.graph)
            tolerance = graph.tolerance.on(record.device)
            allowed = f"{tolerance.atol:g} + {tolerance.rtol:g} x scale"
            decided = f"{100 * graph.agreement:g} %"
        largest = max(record.heads.values(), default=0.0)
        rows.append((_named(record), record.runtime, record.device, f"{largest:.2e}", allowed, _share(record), decided))
    names = ("graph", "runtime", "device", "largest difference", "allowed", "decisions the same", "wanted")
    caption = "Graphs beside eager PyTorch: absolute differences over all heads and cases"
    return table(names, rows, caption, values=4)


def _named(record: Record) -> str:
    """The trunk's record is of trunk and heads, one behind the other."""
    return f"{record.graph} and heads" if record.graph.startswith("trunk-") else record.graph


def _share(record: Record) -> str:
    shares = [same / clear for clear, same in record.decisions.values() if clear]
    return f"{100 * min(shares):.5g} %" if shares else NOTHING


def _by_head(manifest: Manifest, found: Sequence[Record]) -> Markup:
    columns = [Markup(f"{escape(_named(r))}<small>{escape(r.runtime)}, {escape(r.device)}</small>") for r in found]
    rows = [(head, *(_figure(record, head) for record in found)) for head in manifest.spec.heads]
    caption = "Heads beside eager PyTorch: the largest difference, and how many clear decisions are the same"
    return table(("head", *columns), rows, caption, values=len(found))


def _figure(record: Record, head: str) -> str:
    if head not in record.heads:
        return NOTHING
    clear, same = record.decisions.get(head, (0, 0))
    decided = f"<small>{same} of {clear}</small>" if clear else ""
    return Markup(f"{record.heads[head]:.2e}{decided}")


def _by_case(found: Sequence[Record]) -> Markup:
    """Folded away: there may be many."""
    folded = ""
    for record in found:
        if record.batches:
            heads = sorted({head for values in record.batches.values() for head in values})
            rows = [
                (case, *(f"{values[head]:.2e}" if head in values else NOTHING for head in heads))
                for case, values in record.batches.items()
            ]
            where = f"{_named(record)} in {record.runtime} on {record.device}"
            shown = table(("case", *heads), rows, f"{where}: largest difference by case", values=len(heads))
            folded += f"<details><summary>{escape(where)}: every case</summary>{shown}</details>"
    return Markup(folded)

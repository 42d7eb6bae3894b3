"""What a job is: everything that decides its output, frozen in `_polyhead/job.json` before the first row is scored."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import orjson
import pyarrow as pa
from pydantic import ValidationError

from polyhead.models.spec import first_fault
from polyhead.serving.scoring.changes import bundle_change, files_changed, schema_changes, values_changed
from polyhead.serving.scoring.errors import JobRefused
from polyhead.serving.scoring.filesystems import below, shown
from polyhead.serving.scoring.reading import Reading
from polyhead.serving.scoring.settings import ScoreSettings
from polyhead.serving.scoring.store import Store
from polyhead.serving.scoring.units import Unit

__all__ = ["JOB", "LAYOUT", "PLAN", "RETRY", "Job", "load_plan", "plan_bytes"]

LAYOUT = 1
INNER = "_polyhead"
JOB = f"{INNER}/job.json"
PLAN = f"{INNER}/plan.jsonl"
RETRY = f"{INNER}/retry.json"


@dataclass(frozen=True)
class Job:
    """One table, one bundle, one destination.

    Attributes:
        destination: the address of the store that the job is in.
        bundle: the bundle's directory; another one of the same digest does as well.
        bundle_digest: sha256 of its manifest, and so of everything in it.
        bundle_title: name and version.
        settings: all of them; those in `FREE` decide nothing.
        reading: which columns are read, and what for.
        chosen: what `auto` came to: `graph`, `runtime`, `device` (`cpu` or `cuda`), `precision`.
        schema: of every part.
        plan: sha256 of the plan, which lies beside the job.
        units: of the plan.
        rows: of all units.
        versions: of the libraries that had a part in it; they decide nothing, and are kept for the record.
        generation: 0; above it the job tries quarantined rows again, for the n-th time.
        origin: then the identity of the job that quarantined them; it differs where bounds were raised.
    """

    destination: str
    bundle: str
    bundle_digest: str
    bundle_title: str
    settings: ScoreSettings
    reading: Reading
    chosen: Mapping[str, str]
    schema: pa.Schema
    plan: str
    units: int
    rows: int
    versions: Mapping[str, str] = field(default_factory=dict)
    generation: int = 0
    origin: str = ""

    @property
    def root(self) -> str:
        """The identity under which receipts and parts are kept, in every generation."""
        return self.origin or self.identity

    @property
    def identity(self) -> str:
        """Sha256 of all that decides the output, in hexadecimal."""
        decides = {
            "layout": LAYOUT,
            "bundle": self.bundle_digest,
            "settings": self.settings.deciding(),
            "reading": self._read_how(),
            "chosen": dict(self.chosen),
            "schema": _schema_text(self.schema),
            "plan": self.plan,
        }
        return hashlib.sha256(orjson.dumps(decides, option=orjson.OPT_SORT_KEYS)).hexdigest()

    @property
    def name(self) -> str:
        """Of the job's file in its destination."""
        return JOB if self.generation == 0 else RETRY

    @property
    def address(self) -> str:
        """Of the job's file: all that a worker must be told."""
        return below(self.destination, self.name)

    @property
    def footer(self) -> dict[str, str]:
        """What every part says of the job, in its Parquet footer."""
        return {
            "job": self.root,
            "bundle": self.bundle_digest,
            "model": self.bundle_title,
            "generation": str(self.generation),
            "versions": orjson.dumps(dict(self.versions), option=orjson.OPT_SORT_KEYS).decode(),
        }

    def _read_how(self) -> dict[str, Any]:
        """The plan has every file's path; how the input was named on the command line decides nothing."""
        return {name: value for name, value in self.reading.plain().items() if name != "source"}

    def changes(self, other: Job, before: Sequence[Unit] = (), after: Sequence[Unit] = ()) -> list[str]:
        """What another job would do otherwise, each as one phrase; nothing where both are the same.

        Args:
            other: the job that is wanted now.
            before: the plan of this job.
            after: the plan of the other one.
        """
        found = files_changed(before, after)
        if not found and self.plan != other.plan:
            found = [f"the input is cut into {other.units} other units of {other.rows} rows, was {self.rows} rows"]
        found += bundle_change(self.bundle_title, self.bundle_digest, other.bundle_title, other.bundle_digest)
        settings = values_changed("setting", self.settings.deciding(), other.settings.deciding())
        found += settings
        found += values_changed("", dict(self.chosen), dict(other.chosen))
        read, wanted = self._read_how(), other._read_how()
        if not settings:  # a changed setting says it better
            found += values_changed("reading", read, wanted)
        found += schema_changes(self.schema, other.schema)
        return found

    def plain(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "layout": LAYOUT,
            "identity": self.identity,
            "generation": self.generation,
            "origin": self.origin,
            "bundle": {"path": self.bundle, "digest": self.bundle_digest, "title": self.bundle_title},
            "settings": self.settings.model_dump(mode="json"),
            "reading": self.reading.plain(),
            "chosen": dict(self.chosen),
            "schema": _schema_text(self.schema),
            "plan": {"sha256": self.plan, "units": self.units, "rows": self.rows},
            "versions": dict(self.versions),
        }

    def content(self) -> bytes:
        """As the job's file holds it."""
        return orjson.dumps(self.plain(), option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS) + b"\n"

    @classmethod
    def of(cls, plain: Mapping[str, Any], destination: str) -> Self:
        """Back from JSON.

        Raises:
            JobRefused: another version of Polyhead wrote it, or it is not whole.
        """
        if plain.get("layout") != LAYOUT:
            raise JobRefused(
                f"{shown(destination)}: its layout is {plain.get('layout')}, this Polyhead knows {LAYOUT}: "
                "go on with the version that began the job"
            )
        try:
            bundle, plan = plain["bundle"], plain["plan"]
            job = cls(
                destination=destination,
                bundle=bundle["path"],
                bundle_digest=bundle["digest"],
                bundle_title=bundle["title"],
                settings=ScoreSettings.model_validate(plain["settings"]),
                reading=Reading.of(plain["reading"]),
                chosen=plain["chosen"],
                schema=pa.ipc.read_schema(pa.py_buffer(base64.b64decode(plain["schema"]))),
                plan=plan["sha256"],
                units=plan["units"],
                rows=plan["rows"],
                versions=plain["versions"],
                generation=plain["generation"],
                origin=plain["origin"],
            )
        except ValidationError as error:
            raise _damaged(destination, first_fault(error, plain["settings"])) from None
        except (KeyError, TypeError, ValueError, pa.ArrowException) as error:
            raise _damaged(destination, repr(error)) from None
        if job.identity != plain.get("identity"):
            raise _damaged(destination, "it does not have the identity that it names")
        return job

    @classmethod
    def read(cls, store: Store, name: str = JOB) -> Self:
        """The job that lies in a store.

        Raises:
            JobRefused: it is none, or another version's.
        """
        try:
            plain = orjson.loads(store.read(name))
        except orjson.JSONDecodeError as error:
            raise _damaged(store.address, str(error)) from None
        if not isinstance(plain, dict):
            raise _damaged(store.address, "it is no object")
        return cls.of(plain, store.address)

    @classmethod
    def load(cls, address: str) -> Self:
        """The job whose `address` this is.

        Raises:
            JobRefused: it is none, or another version's.
        """
        head, mark, options = address.partition("?") if "://" in address else (address, "", "")
        destination, _, name = head.rpartition(f"/{INNER}/")
        return cls.read(Store.of(f"{destination}{mark}{options}"), f"{INNER}/{name}")


def plan_bytes(units: Iterable[Unit]) -> bytes:
    """A plan as its file holds it: one unit a line."""
    return b"".join(orjson.dumps(unit.plain(), option=orjson.OPT_APPEND_NEWLINE) for unit in units)


def load_plan(store: Store, job: Job) -> list[Unit]:
    """The plan of a job that lies in a store.

    Raises:
        JobRefused: it is not the one that the job names.
    """
    data = store.read(PLAN)
    digest = hashlib.sha256(data).hexdigest()
    if digest != job.plan:
        raise JobRefused(
            f"{store.where(PLAN)}: was changed (sha256 {digest[:12]}, the job says {job.plan[:12]}): "
            "score into another directory"
        )
    return [Unit.of(orjson.loads(line)) for line in data.splitlines()]


def _schema_text(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def _damaged(destination: str, what: str) -> JobRefused:
    return JobRefused(f"{shown(destination)}: its job cannot be read ({what}): score into another directory")

"""Which columns a job reads, and what for."""

from __future__ import annotations

import fnmatch
import io

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from polyhead.models.spec import ImageInput, ModelSpec, TensorInput, TextInput
from polyhead.serving.scoring.errors import JobRefused
from polyhead.serving.scoring.filtering import Filter
from polyhead.serving.scoring.reading import Reading
from polyhead.serving.scoring.settings import ScoreSettings
from polyhead.serving.scoring.sources.jsonvalues import MIXED
from polyhead.serving.scoring.sources.listing import Listing
from polyhead.serving.scoring.sources.schemas import named
from polyhead.serving.scoring.sources.settling import settled

__all__ = ["choose_reading"]


def choose_reading(listing: Listing, spec: ModelSpec, settings: ScoreSettings) -> Reading:
    """The columns of a job: the model's inputs, those passed on, those the filter asks for.

    Raises:
        JobRefused: a column or an input that is named does not exist, or a passed one has a head's name.
    """
    inputs = _inputs(listing, spec, settings)
    condition = None if settings.filter is None else Filter.parse(settings.filter)
    if condition is not None and listing.known:
        condition.require(pa.schema([pa.field(field.name, settled(field.type)) for field in listing.schema]))
    passed = _passed(listing, spec, settings, {column for group in inputs.values() for column in group})
    filtered = condition.columns if condition is not None else ()
    names = dict.fromkeys([*passed.names, *filtered])
    typed = (
        pa.schema([_field(listing, name) for name in names]) if listing.format in ("csv", "jsonl") else pa.schema([])
    )
    return Reading(
        listing.source,
        listing.format,
        inputs,
        passed,
        settings.filter,
        settings.max_row_bytes,
        typed,
        {name: value.dtype if isinstance(value, TensorInput) else value.kind for name, value in spec.inputs.items()},
    )


def _field(listing: Listing, name: str) -> pa.Field:
    """A column of one type; of an input without a row, of strings.

    Raises:
        JobRefused: its values are of several types.
    """
    if not listing.known:
        return pa.field(name, pa.string())
    field = listing.schema.field(name)
    if field.metadata and MIXED in field.metadata:
        raise JobRefused(
            f"{listing.source}: values of {name!r} are of several types ({field.metadata[MIXED].decode()}): "
            "leave the column out with --columns, or write one type"
        )
    # Nullable, whatever the first file says: another one may have a null there.
    return pa.field(name, settled(field.type), True, field.metadata)


def _inputs(listing: Listing, spec: ModelSpec, settings: ScoreSettings) -> dict[str, tuple[str, ...]]:
    for name in settings.mapping:
        if name not in spec.inputs:
            raise JobRefused(
                f"--map {name}=…: model {spec.name} has no input {name!r} (inputs: {', '.join(spec.inputs)})"
            )
    if listing.format == "images":
        return _image(spec)
    inputs = {name: _columns(listing, name, settings.mapping.get(name, name)) for name in spec.inputs}
    for name, columns in inputs.items():
        if len(columns) > 1:
            _require_numbers(listing, spec, name, columns)
    return inputs


def _image(spec: ModelSpec) -> dict[str, tuple[str, ...]]:
    """A folder of images holds one input."""
    others = [name for name, value in spec.inputs.items() if not isinstance(value, ImageInput)]
    if others or len(spec.inputs) > 1:
        kinds = ", ".join(f"{name}: {value.kind}" for name, value in spec.inputs.items())
        raise JobRefused(
            f"a folder of images cannot fill the inputs of model {spec.name} ({kinds}): "
            "write a table with a column for each, images as bytes"
        )
    return dict.fromkeys(spec.inputs, ("image",))


def _columns(listing: Listing, name: str, written: str) -> tuple[str, ...]:
    """The columns that a mapping names, in the order it names them, or in the table's where it is a pattern."""
    names = listing.schema.names
    wanted = [written] if written in names else [part.strip() for part in written.split(",")]
    columns: list[str] = []
    for part in wanted:
        if part in names or not listing.known:
            columns.append(part)
            continue
        matches = [column for column in names if fnmatch.fnmatchcase(column, part)]
        if not matches:
            raise JobRefused(
                f"{listing.source}: no column {part!r} for input {name!r} (columns: {named(names, part)}): "
                f"say which holds it, with --map {name}=COLUMN"
            )
        columns += matches
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise JobRefused(f"--map {name}={written}: column {twice[0]!r} stands more than once")
    for column in columns:
        if names.count(column) > 1:
            raise JobRefused(f"{listing.source}: column {column!r} stands more than once: rename one")
    return tuple(columns)


def _require_numbers(listing: Listing, spec: ModelSpec, name: str, columns: tuple[str, ...]) -> None:
    """Several columns make one row of numbers: the model must take one, and they must be numbers."""
    value = spec.inputs[name]
    if not isinstance(value, TensorInput) or len(value.shape) != 1:
        kind = "text" if isinstance(value, TextInput) else value.kind
        raise JobRefused(
            f"--map {name}={','.join(columns):.80}: {len(columns)} columns for one {kind}: name one column"
        )
    [length] = value.shape
    if isinstance(length, int) and length != len(columns):
        raise JobRefused(
            f"--map {name}: {len(columns)} columns for input {name!r} of {length} numbers: "
            f"name {length} columns, got {named(columns)}"
        )
    if listing.format not in ("parquet", "arrow"):
        return
    for column in columns:
        kind = listing.schema.field(column).type
        boolean = types.is_boolean(kind)
        if not (types.is_integer(kind) or types.is_floating(kind) or boolean) or boolean != (value.dtype == "bool"):
            wanted = "booleans" if value.dtype == "bool" else "numbers"
            raise JobRefused(f"--map {name}: column {column!r} is {kind}, wanted {wanted}")


def _passed(listing: Listing, spec: ModelSpec, settings: ScoreSettings, inputs: set[str]) -> pa.Schema:
    """The columns that go to the output as they are."""
    names = listing.schema.names
    asked = settings.columns
    if asked is None:
        asked = tuple(name for name in dict.fromkeys(names) if name not in inputs)
    for name in asked:
        if name not in names and listing.known:
            raise JobRefused(f"--columns: no column {name!r} in {listing.source} (columns: {named(names, name)})")
        if names.count(name) > 1:
            raise JobRefused(f"{listing.source}: column {name!r} stands more than once: rename one")
        if asked.count(name) > 1:
            raise JobRefused(f"--columns: {name!r} stands more than once")
    heads = settings.heads or tuple(spec.heads)
    both = next((name for name in asked if name in heads), None)
    if both is not None:
        rest = ",".join(name for name in asked if name not in heads) or "''"
        raise JobRefused(
            f"column {both!r} would be passed on, and head {both!r} is written under that name: "
            f"rename the column, or say --columns {rest:.80} or --heads without it"
        )
    fields = [_field(listing, name) for name in asked if name in names]
    for field in fields:
        _require_writable(listing, field)
    return pa.schema(fields)


def _require_writable(listing: Listing, field: pa.Field) -> None:
    """Refuse a column that the output, which is Parquet, cannot hold."""
    try:
        pq.ParquetWriter(io.BytesIO(), pa.schema([field])).close()
    except pa.ArrowNotImplementedError:
        raise JobRefused(
            f"{listing.source}: column {field.name!r} is {field.type}, which Parquet cannot hold: "
            "leave it out with --columns"
        ) from None

"""`polyhead score`: every head's answers to every row of a table, exactly once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from typer.core import TyperGroup

from polyhead.cli.console import error_line, note, print_json
from polyhead.cli.scoreboard import scoreboard, summary

if TYPE_CHECKING:
    from polyhead.serving.scoring.report import Report

__all__ = ["app"]

INTERRUPTED, PARTLY = 130, 3  # exit statuses
TABLE = "table"  # the command that is meant where no other is named
VERBS = ("verify", "gc", "retry-quarantine")


class ScoreGroup(TyperGroup):
    """`polyhead score BUNDLE …` scores; only `polyhead score verify …` and the like are other commands."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of the command that is meant, which then runs under the name of the group."""
        if args and args[0] in VERBS:
            return super().make_context(info_name, args, parent, **extra)
        return self.commands[TABLE].make_context(info_name, args or ["--help"], parent, **extra)


app = typer.Typer(cls=ScoreGroup, help="Score a table with every head, exactly once.", rich_markup_mode=None)

Destination = Annotated[str, typer.Argument(help="The directory that polyhead score wrote.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Workers = Annotated[int | None, typer.Option(min=0, help="Processes; 0: one for each --threads cores, or each GPU.")]
MaxBadRows = Annotated[int | None, typer.Option(min=0, help="Stop when more rows than this are quarantined.")]
MaxBadRatio = Annotated[
    float | None, typer.Option(min=0, max=1, help="Stop when a larger share of all rows is quarantined.")
]
HangSeconds = Annotated[
    float | None, typer.Option(min=0.001, help="A worker without a sign of life for so long is ended; else 300.")
]
MaxImagePixels = Annotated[int | None, typer.Option(min=1, help="Of one image, before resizing; else 50 million.")]
MaxRowBytes = Annotated[int | None, typer.Option(min=1, help="Of one row as the model takes it; else 64 MiB.")]


@app.command(TABLE)
def table(
    bundle: Annotated[Path, typer.Argument(help="The bundle's directory.")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Files, folders or globs: .parquet, .csv, .jsonl, .arrow, or a folder of images; local, s3://… and "
            "whatever else pyarrow or fsspec opens.",
        ),
    ],
    output: Annotated[str, typer.Argument(help="A new directory, for Parquet files. Local, or s3://… and the like.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the job in OUTPUT; begin it where there is none.")
    ] = False,
    engine: Annotated[str, typer.Option(help="local, or ray.")] = "local",
    ray_address: Annotated[
        str | None, typer.Option(help="With --engine ray: of a running cluster; left out, one is started here.")
    ] = None,
    heads: Annotated[
        str | None, typer.Option(help="The heads wanted, with commas between; all where left out.")
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="The input's columns to keep, with commas between; '' for none. Left out: all but the model's inputs."
        ),
    ] = None,
    map_: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="INPUT=COLUMN",
            help="The column that holds one of the model's inputs: text=body; or several that make one row of "
            "numbers: x=age,income or x=f*. May be given again.",
        ),
    ] = None,
    filter_: Annotated[
        str | None,
        typer.Option("--filter", metavar="CONDITION", help="Score only such rows: \"country == 'NL' and age >= 18\"."),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="parquet, csv, jsonl, arrow or images; told by the names where left out."),
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=0, help="The k likeliest labels too.")] = None,
    scores: Annotated[bool | None, typer.Option("--scores/--no-scores", help="Every label's score too.")] = None,
    raw: Annotated[bool | None, typer.Option("--raw/--no-raw", help="The graph's own numbers too.")] = None,
    mask: Annotated[str | None, typer.Option(help="Of segmentation heads: runs, or png.")] = None,
    sort: Annotated[
        bool | None, typer.Option("--sort/--no-sort", help="Run texts of like length together; else as they come.")
    ] = None,
    workers: Workers = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of one forward pass; 1 where left out.")] = None,
    decode_threads: Annotated[int | None, typer.Option(min=0, help="Of a worker, that decode; 0: auto.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N.")] = None,
    runtime: Annotated[str | None, typer.Option(help="auto, onnxruntime, torchscript, program, aotinductor.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, fp16, bf16, int8.")] = None,
    unit_rows: Annotated[
        int | None, typer.Option(min=1, help="Of a work unit, about: what a crash costs; left out, as suits.")
    ] = None,
    batch_rows: Annotated[int | None, typer.Option(min=1, help="Of a forward pass at most.")] = None,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Of a forward pass at most, with padding.")] = None,
    max_image_pixels: MaxImagePixels = None,
    max_row_bytes: MaxRowBytes = None,
    max_bad_rows: MaxBadRows = None,
    max_bad_ratio: MaxBadRatio = None,
    hang_seconds: HangSeconds = None,
    config: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Settings as YAML; the options above win.")
    ] = None,
    json: Json = False,
) -> None:
    """Score a table with every head, exactly once: Parquet files, and a quarantine for the rows that cannot be scored.

    Example: polyhead score bundles/digits pictures/ out/

    Example: polyhead score bundles/smarthome said.parquet out/ --map text=utterance --columns id --resume

    Example: polyhead score bundles/smarthome 's3://lake/said/*.parquet' s3://lake/answers --max-bad-ratio 0.001

    And of what was written: polyhead score verify OUTPUT, polyhead score gc OUTPUT, polyhead score retry-quarantine
    OUTPUT. (A bundle of one of these names is ./verify.)

    Exit status: 0 every row was scored, or those that were not are within --max-bad-rows or --max-bad-ratio; 3 some
    rows were quarantined, and neither was given; 1 the job failed, what was committed is kept; 2 bad usage.
    """
    given = {
        "heads": _names(heads),
        "columns": _names(columns),
        "mapping": _mapping(map_),
        "filter": filter_,
        "format": format_,
        **{"top_k": top_k, "scores": scores, "raw": raw, "mask": mask, "sort": sort},
        **{"workers": workers, "threads": threads, "decode_threads": decode_threads},
        **{"device": device, "runtime": runtime, "precision": precision},
        **{"unit_rows": unit_rows, "batch_rows": batch_rows, "batch_tokens": batch_tokens},
        **{"max_image_pixels": max_image_pixels, "max_row_bytes": max_row_bytes},
        **_bounds(max_bad_rows, max_bad_ratio, hang_seconds),
    }
    if engine not in ("local", "ray"):
        raise typer.BadParameter(f"{engine!r} is none of local, ray", param_hint="--engine")
    from polyhead.serving.scoring.scoring import score, settings_of

    settings = settings_of(_config(config), {name: value for name, value in given.items() if value is not None})
    try:
        with scoreboard() as watch:
            report = score(
                *(bundle, inputs, output),
                engine=engine,  # type: ignore[arg-type]
                ray_address=ray_address,
                resume=resume,
                watch=watch,
                settings=settings,
            )
    except KeyboardInterrupt:
        error_line(f"interrupted; what was committed to {output} is kept: the same command with --resume goes on")
        raise typer.Exit(INTERRUPTED) from None
    _finish(report, json, settings.max_bad_rows is not None or settings.max_bad_ratio is not None)


@app.command("verify")
def verify(destination: Destination, json: Json = False) -> None:
    """Check every file that was written: its hash, its rows, its schema, what its footer says of it.

    Example: polyhead score verify out/
    """
    from polyhead.serving.scoring.verifying import verify as check

    verified = check(destination)
    if json:
        print_json(verified.plain())
        return
    note(f"{destination}: {verified.words()}")


@app.command("gc")
def gc(destination: Destination, json: Json = False) -> None:
    """Remove what crashed runs left behind. Nothing that counts is touched; refused while somebody scores.

    Example: polyhead score gc out/
    """
    from polyhead.serving.scoring.sweeping import sweep

    swept = sweep(destination)
    if json:
        print_json(swept.plain())
        return
    note(f"{destination}: {swept.words()}")


@app.command("retry-quarantine")
def retry_quarantine(
    destination: Destination,
    workers: Workers = None,
    max_image_pixels: MaxImagePixels = None,
    max_row_bytes: MaxRowBytes = None,
    max_bad_rows: MaxBadRows = None,
    max_bad_ratio: MaxBadRatio = None,
    hang_seconds: HangSeconds = None,
    json: Json = False,
) -> None:
    """Score the quarantined rows again, and put those that succeed into their places.

    Example: polyhead score retry-quarantine out/ --max-image-pixels 200000000
    """
    given = {
        **{"workers": workers, "max_image_pixels": max_image_pixels, "max_row_bytes": max_row_bytes},
        **_bounds(max_bad_rows, max_bad_ratio, hang_seconds),
    }
    from polyhead.serving.scoring.retrying import retry

    with scoreboard() as watch:
        report = retry(destination, {name: value for name, value in given.items() if value is not None}, watch)
    _finish(report, json, max_bad_rows is not None or max_bad_ratio is not None)


def _finish(report: Report, json: bool, budgeted: bool) -> None:
    """Say what was done; the exit status says whether rows are missing that nobody allowed for."""
    if json:
        print_json(report.plain())
    else:
        for line in summary(report):
            note(line)
    if report.quarantined and not budgeted:
        raise typer.Exit(PARTLY)


def _names(given: str | None) -> list[str] | None:
    """`a, b` as a list; nothing at all is an empty one."""
    return None if given is None else [part for piece in given.split(",") if (part := piece.strip())]


def _mapping(given: list[str] | None) -> dict[str, str] | None:
    if not given:
        return None
    pairs = [entry.partition("=") for entry in given]
    wrong = next(("".join(pair) for pair in pairs if not all(part.strip() for part in pair)), None)
    if wrong is not None:
        raise typer.BadParameter(f"{wrong!r} is not INPUT=COLUMN, as text=body", param_hint="--map")
    return {name.strip(): column.strip() for name, _, column in pairs}


def _bounds(max_bad_rows: int | None, max_bad_ratio: float | None, hang_seconds: float | None) -> dict[str, Any]:
    return {"max_bad_rows": max_bad_rows, "max_bad_ratio": max_bad_ratio, "hang_seconds": hang_seconds}


def _config(path: Path | None) -> dict[str, Any]:
    """Settings out of a file."""
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        words = " ".join(str(error).split())
        raise typer.BadParameter(f"{path} is not YAML ({words})", param_hint="--config") from None
    if not isinstance(content, dict):
        raise typer.BadParameter(f"{path} holds no settings: write name: value, a line each", param_hint="--config")
    return content

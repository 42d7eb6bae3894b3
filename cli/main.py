"""The `polyhead` command. Each verb is one module; heavy imports happen inside the verbs, so that --help is quick."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from typing import Annotated

import typer

from polyhead.cli import (
    bench,
    containerize,
    deploy,
    doctor,
    enrol,
    export,
    inspect,
    package,
    predict,
    report,
    score,
    serve,
    train,
    verify,
)
from polyhead.cli.console import error_line
from polyhead.models.spec import SpecError
from polyhead.serving.errors import PolyheadError

__all__ = ["app", "run"]

# Before torch is imported. OpenMP's threads spin while they wait for each other, by default so long that two processes
# on shared cores mostly spin: two trainings side by side took 52 s, with this bound 10 s. Alone it costs nothing
# (forward pass of ResNet-18, one row: 7 ms either way; without any spinning 13 ms).
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

app = typer.Typer(
    name="polyhead",
    help="Put multi-task PyTorch models into production: one trunk, many heads, one forward pass.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for verb in (train, export, inspect, verify, report, enrol, package, containerize, serve, predict, bench, doctor):
    app.command(verb.__name__.rpartition(".")[2])(verb.command)
app.add_typer(score.app, name="score")
app.add_typer(deploy.app, name="deploy")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"polyhead {importlib.metadata.version('polyhead')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def run() -> None:
    """The console script. Exit status 0: done; 1: the job failed, with one line why; 2: bad usage."""
    try:
        app()
    except _refusals() as error:
        error_line(str(error))
        sys.exit(1)
    except ModuleNotFoundError as error:  # a container image has what serves, and neither polyhead.export nor training
        if not (error.name or "").startswith("polyhead."):
            raise
        error_line(
            f"{error.name} is not in this installation, which is made for serving: install polyhead whole for this"
        )
        sys.exit(1)
    except OSError as error:  # a path that cannot be read or written: the system's own words are the clearest
        error_line(": ".join(str(part) for part in (error.filename, error.strerror or error) if part is not None))
        sys.exit(1)
    except KeyboardInterrupt:
        error_line("interrupted")
        sys.exit(130)


def _refusals() -> tuple[type[Exception], ...]:
    """What ends in one line. `RunError` is there only where a verb has read its module, which a container lacks."""
    run_module = sys.modules.get("polyhead.models.run")
    return (PolyheadError, SpecError, *((run_module.RunError,) if run_module is not None else ()))

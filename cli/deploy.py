"""`polyhead deploy`: what a running server serves, changed without losing an answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from polyhead.cli.console import note, print_json, print_table, working

__all__ = ["app"]

SERVER = "http://127.0.0.1:8082"

app = typer.Typer(
    help="Change what a running server serves: load a version, make it the default, go back, remove it.\n\n"
    "Example: polyhead deploy add digits 1.1 --bundle bundles/digits-1.1",
    no_args_is_help=True,
)

Model = Annotated[str, typer.Argument(help="The model's name.")]
Version = Annotated[str, typer.Argument(help="Its version.")]
ServerOption = Annotated[
    str, typer.Option("--server", help="The running server's side address: on its own machine, the port + 2.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@app.command()
def add(
    model: Model,
    version: Version,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Its bundle, on the server's machine; else it is looked for where the server was told to."),
    ] = None,
    server: ServerOption = SERVER,
    json: Json = False,
) -> None:
    """Load a further version and prove it. Requests without a version are answered as before.

    Example: polyhead deploy add digits 1.1 --bundle bundles/digits-1.1
    """
    path = None if bundle is None else str(bundle.absolute())
    with working(f"loading {model}/{version}"):
        done = _change(server, "add", {"model": model, "version": version, "bundle": path})
    what = "it is the default" if done["default"] else f"ask for it by /predictions/{model}/{version}"
    _say(done, json, f"{model}/{version} serves ({done['graph']} in {done['runtime']} on {done['device']}): {what}")


@app.command()
def promote(model: Model, version: Version, server: ServerOption = SERVER, json: Json = False) -> None:
    """Answer requests without a version by this one, once it has answered its golden samples again.

    Example: polyhead deploy promote digits 1.1
    """
    done = _change(server, "promote", {"model": model, "version": version})
    _say(done, json, f"{model}/{version} is the default")


@app.command()
def rollback(model: Model, server: ServerOption = SERVER, json: Json = False) -> None:
    """Make that version the default which was before the last change.

    Example: polyhead deploy rollback digits
    """
    done = _change(server, "rollback", {"model": model})
    _say(done, json, f"{model}/{done['version']} is the default again")


@app.command()
def remove(model: Model, version: Version, server: ServerOption = SERVER, json: Json = False) -> None:
    """Take no more requests for a version, answer those it has, end its workers.

    Example: polyhead deploy remove digits 1.0
    """
    with working(f"waiting for the last requests of {model}/{version}"):
        done = _change(server, "remove", {"model": model, "version": version})
    _say(done, json, f"{model}/{version} is removed")


@app.command("list")
def list_(server: ServerOption = SERVER, json: Json = False) -> None:
    """What is served, which versions are the defaults, and whether they answer.

    Example: polyhead deploy list
    """
    from polyhead.serving.side.caller import call

    found = call(server, "GET", "/v2/models")
    if json:
        print_json(found)
        return
    rows = [
        (
            one["name"],
            one["version"],
            "default" if one["default"] else "previous" if one["previous"] else "",
            one["state"] if one["state"] != "serving" else "ready" if one["ready"] else "not ready",
            one["bundle"],
            ", ".join(one["heads"]),
        )
        for one in found["models"]
    ]
    print_table(f"served by {server}", ("model", "version", "answers", "state", "bundle", "heads"), rows)


def _change(server: str, verb: str, order: Mapping[str, Any]) -> dict[str, Any]:
    from polyhead.serving.side.caller import call

    return call(server, "POST", f"/control/{verb}", {key: value for key, value in order.items() if value is not None})


def _say(done: Mapping[str, Any], json: bool, text: str) -> None:
    if json:
        print_json(done)
    else:
        note(text)

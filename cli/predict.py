"""`polyhead predict`: ask a running server about files."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated, Any

import typer

from polyhead.cli.console import print_json, print_table
from polyhead.serving.client import Client, ServerError
from polyhead.serving.protocol.files import media_type

__all__ = ["command"]


def command(
    model: Annotated[str, typer.Argument(help="The model: name, or name/version.")],
    files: Annotated[
        list[Path],
        typer.Argument(exists=True, dir_okay=False, help=".png, .jpg, .txt, .bin, or .json with instances."),
    ],
    url: Annotated[str, typer.Option(help="The server's inference address.")] = "http://127.0.0.1:8080",
    heads: Annotated[
        str | None, typer.Option(help="The heads wanted, with commas between; all where left out.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document per row.")] = False,
) -> None:
    """Send files to a running server and print every head's answer.

    Example: polyhead predict digits examples/seven.png --heads digit,parity
    """
    wanted = None if heads is None else [head.strip() for head in heads.split(",")]
    rows: list[tuple[str, dict[str, Any]]] = []
    with Client(url) as client:
        for path in files:
            rows += _ask(client, model, path, wanted)
    if json:
        for name, answers in rows:
            print_json({"file": name, **answers})
        return
    table = [(name, head, _text(answer)) for name, answers in rows for head, answer in answers.items()]
    print_table(model, ("file", "head", "answer"), table)


def _ask(client: Client, model: str, path: Path, heads: list[str] | None) -> list[tuple[str, dict[str, Any]]]:
    kind = media_type(path)
    if kind != "application/json":
        return [(str(path), client.predict_file_json(model, path.read_bytes(), kind, heads))]
    try:
        content = jsonlib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ServerError(f"{path}: is not JSON ({error})") from None
    instances = content.get("instances") if isinstance(content, dict) else content
    if not isinstance(instances, list):
        raise ServerError(f'{path}: holds no rows: write {{"instances": [...]}} or a list')
    answers = client.predict_json(model, instances, heads)
    return [(f"{path}[{index}]", answer) for index, answer in enumerate(answers)]


def _text(answer: dict[str, Any]) -> str:
    """An answer in one line; long vectors cut short."""
    parts = []
    for key, value in answer.items():
        if isinstance(value, list) and len(value) > 6:
            value = [*value[:6], "…"]
        parts.append(f"{key} {value}")
    return ", ".join(parts)

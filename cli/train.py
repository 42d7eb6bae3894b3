"""`polyhead train`: a model, from data to a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from polyhead.cli.console import metrics_text, note, print_json, print_table, working

__all__ = ["command"]


def command(
    model: Annotated[
        str, typer.Argument(help="A reference model, e.g. digits; or path/to/file.py:MODEL, package.module:MODEL.")
    ],
    out: Annotated[Path, typer.Option(help="The run's directory; an earlier run in it is replaced.")],
    recipe: Annotated[
        Path | None, typer.Option(help="YAML; its keys replace those of the model's own recipe, each whole.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, split and order; the recipe's where left out.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most this many; the recipe's where left out.")] = None,
    heads: Annotated[str | None, typer.Option(help="Train these alone, as in a,b; the recipe's if left out.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a run was broken off; starts anew where there is none.")
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="More to look at: gradients by task, weights, embeddings, the graph.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Train a model, and print its metrics on held-out rows.

    Example: polyhead train digits --out runs/digits

    Example: polyhead train mine.py:MODEL --recipe recipe.yaml --out runs/mine --resume
    """
    with working("loading PyTorch"):
        from polyhead.models import reference
        from polyhead.models.recipe import RecipeError
        from polyhead.models.yaml import read_yaml

    chosen = reference.load(model)
    wanted = chosen.recipe
    if recipe is not None:
        wanted = wanted.changed(read_yaml(recipe, RecipeError), str(recipe))
    options: dict[str, Any] = {"seed": seed, "max_epochs": epochs, "inspect": tensorboard or None}
    options["heads"] = None if heads is None else [head.strip() for head in heads.split(",") if head.strip()]
    wanted = wanted.changed({key: value for key, value in options.items() if value is not None}, "options")
    note(wanted.text().rstrip())
    note(
        f"training {model}: at most {wanted.max_epochs} epochs, seed {wanted.seed}; "
        f"look inside with: tensorboard --logdir {out}"
    )
    run = chosen.train(out, wanted, resume, note)
    with working("drawing the report"):
        from polyhead.models.page import write_page

        page = write_page(run)
    if json:
        print_json({"run": str(out), **run.record.model_dump(mode="json")})
        return
    record = run.record
    rows = [(head, run.spec.heads[head].kind, metrics_text(values)) for head, values in record.metrics.items()]
    print_table(
        f"{run.spec.name}: {record.epochs} epochs in {record.seconds:.0f} s, on held-out rows "
        f"(best: epoch {record.best_epoch}, {record.monitor} {record.score:.4g})",
        ("head", "kind", "metrics"),
        rows,
    )
    note(f"look at {page}; next: polyhead export {out} --out bundles/{run.spec.name}")

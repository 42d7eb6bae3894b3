"""`polyhead train`: a reference model, from data to a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from polyhead.cli.console import metrics_text, note, print_json, print_table

__all__ = ["command"]


def command(
    model: Annotated[str, typer.Argument(help="The reference model, e.g. digits.")],
    out: Annotated[Path, typer.Option(help="The run's directory; an earlier run in it is replaced.")],
    seed: Annotated[int | None, typer.Option(help="Of weights, split and order; the recipe's where left out.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="At most this many; the recipe's where left out.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Train a reference model.

    Example: polyhead train digits --out runs/digits
    """
    from polyhead.models import reference

    chosen = reference.load(model)
    changes = {key: value for key, value in (("seed", seed), ("max_epochs", epochs)) if value is not None}
    recipe = chosen.recipe.model_copy(update=changes)
    note(
        f"training {model}: at most {recipe.max_epochs} epochs, seed {recipe.seed}; "
        f"look inside with: tensorboard --logdir {out}"
    )
    run = chosen.train(out, recipe)
    if json:
        print_json({"run": str(out), **run.record.model_dump(mode="json")})
        return
    rows = [(head, run.spec.heads[head].kind, metrics_text(values)) for head, values in run.record.metrics.items()]
    print_table(
        f"{model}: {run.record.epochs} epochs in {run.record.seconds:.0f} s, on held-out rows",
        ("head", "kind", "metrics"),
        rows,
    )
    note(f"next: polyhead export {out} --out bundles/{model}")

"""`python -m benchmarks.zoo`: each reference model trained three ways, several seeds; with --write, docs/zoo.*.

- single task: for every head a network of its own, the same trunk and recipe with that head alone;
- frozen trunk: one network, all heads, the trunk as it starts and never trained;
- together: one network, all heads, the model's own recipe.

Each training is a process of its own (`polyhead train`), one after the other. A finished one is kept under --runs and
not repeated: the report can be broken off and gone on with.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks import oneshot
from polyhead.models import reference
from polyhead.models.run import Run
from polyhead.serving.settings import available_cores

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "zoo"
PRETRAINED = ("smarthome",)  # the others' trunks start from random weights: frozen, they show what the heads do alone
# By kind of head: the metric of the table, its name there, and whether it has a unit.
METRICS = {
    "classification": ("accuracy", "accuracy"),
    "multilabel": ("f1", "F1 (micro)"),
    "regression": ("mae", "MAE"),
    "tokens": ("span_f1", "span F1"),
    "embedding": ("nearest_neighbour_accuracy", "nearest neighbour accuracy"),
    "segmentation": ("iou", "mean IoU"),
    "oneshot": ("nearest_prototype_accuracy", "nearest prototype accuracy"),
}
CPU = "cpu-seconds.json"
# What a recipe says of a trunk that learns; a frozen one has no use for it.
OF_THE_TRUNK = {"trunk_learning_rate": None, "layer_decay": 1.0, "unfreeze": None}


@dataclass(frozen=True)
class Plan:
    """How a model is trained for the report: over how many seeds, and for how many epochs where not the recipe's."""

    seeds: int
    epochs: int | None = None


# Of the two large ones every way of training is shortened alike, so that the report takes about an hour.
PLANS = {
    "smarthome": Plan(2, epochs=3),
    "digits_oneshot": Plan(2),
    "digits": Plan(1),
    "scenes": Plan(1, epochs=6),
}


@dataclass(frozen=True)
class Trained:
    """One way of training a model, over the seeds: every run that it takes."""

    runs: dict[int, list[Run]]  # by seed: one run, or one for each head

    def metric(self, head: str, key: str) -> list[float]:
        """A head's metric on the held-out rows, by seed."""
        return [next(run.record.metrics[head][key] for run in runs if head in run.record.metrics) for runs in self._all]

    def seconds(self) -> list[float]:
        """Of all cores, for the whole command with its imports, all networks together."""
        return [sum(json.loads((run.folder / CPU).read_text()) for run in runs) for runs in self._all]

    def parameters(self) -> int:
        """Of all networks together that have to be served."""
        runs = self._all[0]
        if len(runs) == 1:
            return runs[0].record.parameters.total
        parameters = [(run.record.parameters, next(iter(run.record.metrics))) for run in runs]
        return sum(counts.trunk + counts.heads[head] for counts, head in parameters)

    @property
    def _all(self) -> list[list[Run]]:
        return list(self.runs.values())


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument("--model", choices=tuple(PLANS), action="append", help="default: all")
    parser.add_argument("--seeds", type=int, help="default: two or three, as the report says")
    parser.add_argument("--epochs", type=int, help="default: the recipe's, or fewer, as the report says")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "zoo", help="where trainings are kept")
    parser.add_argument("--write", action="store_true", help=f"write the report to {DOCS.name}.md and .json")
    arguments = parser.parse_args()
    parts, content = [], {}
    for name in arguments.model or PLANS:
        plan = Plan(arguments.seeds or PLANS[name].seeds, arguments.epochs or PLANS[name].epochs)
        ways = train_all(name, plan, arguments.runs)
        text, numbers = report(name, plan, ways)
        if name == "digits_oneshot":
            enrolled: dict[str, list[float]] = oneshot.measure(ways["together"].runs)
            text += oneshot.table(enrolled)
            numbers["enrolled"] = enrolled
        print(text, flush=True)
        parts.append(text)
        content[name] = numbers
    if arguments.write:
        write(parts, content)


def train_all(name: str, plan: Plan, folder: Path) -> dict[str, Trained]:
    """Every way of training a model, by its name in the table."""
    heads, seeds = reference.load(name).spec.heads, range(plan.seeds)
    frozen = {**OF_THE_TRUNK, "freeze_trunk": True}
    ways: dict[str, Trained] = {
        "single task": Trained({s: [train(name, s, folder, plan.epochs, head) for head in heads] for s in seeds}),
        "frozen trunk": Trained({s: [train(name, s, folder, plan.epochs, changes=frozen)] for s in seeds}),
        "together": Trained({s: [train(name, s, folder, plan.epochs)] for s in seeds}),
    }
    return ways


def train(
    name: str,
    seed: int,
    folder: Path,
    epochs: int | None,
    heads: str | None = None,
    changes: dict[str, Any] | None = None,
) -> Run:
    """One training in a process of its own; a finished one is opened."""
    out = folder / name / f"{heads or ('frozen' if changes else 'all')}-{seed}"
    recipe = folder / name / "frozen.yaml"
    command = [sys.executable, "-m", "polyhead.cli", "train", name, "--out", str(out), "--seed", str(seed), "--resume"]
    if epochs is not None:
        command += ["--epochs", str(epochs)]
    if heads is not None:
        command += ["--heads", heads]
    if changes is not None:
        recipe.parent.mkdir(parents=True, exist_ok=True)
        recipe.write_text(yaml.safe_dump(changes), encoding="utf-8")
        command += ["--recipe", str(recipe)]
    print(" ".join(command[2:]), file=sys.stderr, flush=True)
    own = reference.load(name).recipe
    wanted = own.changed(
        {**(changes or {}), "seed": seed, "max_epochs": epochs or own.max_epochs}
        | ({} if heads is None else {"heads": [heads]})
    )
    if (out / "run.json").is_file() and Run.open(out).record.recipe != wanted:
        shutil.rmtree(out)  # of an older recipe
    if not (out / CPU).is_file():
        before = cpu_seconds()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        (out / CPU).write_text(json.dumps(round(cpu_seconds() - before, 1)))
    return Run.open(out)


def cpu_seconds() -> float:
    """Of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def report(name: str, plan: Plan, ways: dict[str, Trained]) -> tuple[str, dict[str, Any]]:
    """A Markdown table of one model, and its numbers."""
    spec = reference.load(name).spec
    start = "pretrained" if name in PRETRAINED else "random"
    titles = [f"{way} ({start})" if way == "frozen trunk" else way for way in ways]
    length = "as its recipe says" if plan.epochs is None else f"{plan.epochs} epochs each, fewer than its recipe has"
    seeds = ", ".join(map(str, range(plan.seeds)))
    lines = [f"## {name}", "", f"Seeds {seeds}; {length}.", ""]
    lines += [f"| head | metric | {' | '.join(titles)} |", f"| --- | --- |{' ---: |' * len(ways)}"]
    numbers: dict[str, Any] = {}
    for head, declared in spec.heads.items():
        key, title = METRICS[declared.kind]
        values = {way: trained.metric(head, key) for way, trained in ways.items()}
        numbers[head] = {key: values}
        unit = f", {declared.unit}" if getattr(declared, "unit", "") else ""
        lines.append(f"| {head} | {title}{unit} | {' | '.join(spread(v) for v in values.values())} |")
    parameters = {way: trained.parameters() for way, trained in ways.items()}
    seconds = {way: trained.seconds() for way, trained in ways.items()}
    passes = {way: len(next(iter(trained.runs.values()))) for way, trained in ways.items()}
    lines.append(f"| all | parameters to serve, M | {' | '.join(f'{n / 1e6:.2f}' for n in parameters.values())} |")
    lines.append(f"| all | forward passes of a trunk per request | {' | '.join(map(str, passes.values()))} |")
    lines.append(f"| all | training, CPU seconds | {' | '.join(spread(v, 0) for v in seconds.values())} |")
    numbers["all"] = {"parameters": parameters, "forward_passes": passes, "seconds": seconds}
    return "\n".join(lines) + "\n\n", numbers


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and standard deviation over the seeds."""
    mean = statistics.fmean(values)
    return f"{mean:.{digits}f} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else f"{mean:.{digits}f}"


def write(parts: list[str], content: dict[str, Any]) -> None:
    """Keep the report."""
    machine = f"{platform.machine()}, {available_cores()} cores, Python {platform.python_version()}"
    head = [
        "# The reference models",
        "",
        "Each head's metric on held-out rows, as mean ± standard deviation over seeds, which change first weights,",
        "order of rows and, where data is split or generated, the data. Three ways of training:",
        "",
        "- **single task**: for every head a network of its own, the same trunk and recipe with that head alone;",
        "- **frozen trunk**: one network, all heads, the trunk as it starts and never trained. A trunk that starts",
        "  from random weights stands here too, to show what heads can do with random features (its normalisation",
        "  layers never saw data);",
        "- **together**: one network, all heads, the model's own recipe.",
        "",
        f"CPU seconds are of one shared machine ({machine}), of the whole command: every network pays some ten",
        "for imports and plots, and a busy machine makes them longer. They show an order of magnitude, no more.",
        "The held-out wordings of `smarthome` are a grammar of their own (templates, rooms, persons, phrases); the",
        "training wordings were widened after looking at errors on them, so read them as another grammar, not as",
        "untouched data.",
        "Repeat it with `make zoo-report`; numbers by seed are in [zoo.json](zoo.json).",
        "",
        "",
    ]
    DOCS.with_suffix(".md").write_text("\n".join(head) + "".join(parts).rstrip() + "\n", encoding="utf-8")
    DOCS.with_suffix(".json").write_text(
        json.dumps({"machine": machine, "models": content}, indent=2) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()

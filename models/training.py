"""The training of a network, on Lightning: from rows and a recipe to a run's directory."""

from __future__ import annotations

import importlib.metadata
import logging
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from safetensors.torch import load_model
from torch import Tensor, nn

from polyhead.models.augment import Augment
from polyhead.models.data import Batches, Rows, Split
from polyhead.models.learning import history, results
from polyhead.models.learning.checking import heads_to_train
from polyhead.models.learning.keeping import Keeper
from polyhead.models.learning.predicting import EVALUATION_BATCH, predict, shortest_first
from polyhead.models.learning.resuming import Origin
from polyhead.models.learning.sampling import grouped, order
from polyhead.models.learning.task import Task
from polyhead.models.losses import class_weights
from polyhead.models.recipe import Recipe
from polyhead.models.run import Parameters, Run, RunRecord
from polyhead.models.spec import Labelled, ModelSpec
from polyhead.models.targets import labelled
from polyhead.models.texts import encode, open_tokenizers

__all__ = ["Say", "train"]

Say = Callable[[str], None]
ORIGIN = "origin.json"
PARTS = ("weights", "samples", "predictions", "prototypes")


def train(
    spec: ModelSpec,
    build: Callable[[Rows], nn.Module],
    split: Split,
    recipe: Recipe,
    out: Path,
    factory: str,
    augment: Augment | None = None,
    tokenizers: Mapping[str, Path] | None = None,
    resume: bool = False,
    say: Say = lambda _: None,
) -> Run:
    """Train a network and write the run's directory.

    Args:
        spec: the model's inputs and heads; heads without targets in the data are not trained.
        build: makes the network, given the raw training rows (to fix target scales); called under the seed. Any module
            that takes the spec's arrays (see `polyhead.models.arrays`) by name or position and returns its heads.
        split: the raw rows.
        recipe: everything else that decides how it goes.
        out: the run's directory; made where missing, an earlier run in it is replaced.
        factory: `module:function` that makes the untrained network again, for the export.
        augment: changes a training batch, before preprocessing.
        tokenizers: the `tokenizer.json` of each text input.
        resume: go on where a run into `out` was broken off; a finished one is returned as it is. Starts anew where
            there is none, and says so. On the same machine, with as many threads, the weights and the history are
            those of a run that was never broken off, bit for bit.
        say: told what is being done.

    Returns:
        The finished run, with its metrics on the test rows.

    Raises:
        SpecError: spec, data, network and recipe do not fit; an earlier run in `out` is left as it was.
        RunError: a loss became NaN or infinite, or `resume` with another recipe or other data.
        KeyboardInterrupt: it was interrupted; `resume` goes on.
    """
    heads = heads_to_train(spec, split, recipe)
    opened = open_tokenizers(spec, tokenizers or {})
    files = {name: tokenizer.data for name, tokenizer in opened.items()}
    origin = Origin.of(spec, split, recipe, factory, files)
    keeper = Keeper(out)
    finished = _resumed(origin, keeper, out, say) if resume else None
    if finished is not None:
        return finished
    parts = Split(**{name: encode(rows.of(heads), spec, opened) for name, rows in split.parts().items()})
    with _quiet():
        lightning.seed_everything(recipe.seed, verbose=False)
        prepared = _prepared(origin, heads, build(split.train), parts, augment)
        if not (resume and keeper.last.is_file()):
            _clear(out)
            keeper.folder.mkdir(parents=True)
            origin.write(keeper.folder / ORIGIN)
        device = _fit(prepared, keeper, out, say)
        results.save_tokenizers(out, spec, opened)
        run = _finish(prepared.task, device, origin, split, parts, out)
    shutil.rmtree(keeper.folder)
    return run


@dataclass(frozen=True)
class _Prepared:
    """A network about to learn, with the batches of training and validation."""

    task: Task
    training: Batches
    validation: Batches


def _resumed(origin: Origin, keeper: Keeper, out: Path, say: Say) -> Run | None:
    """A finished run; None where training has to go on, or to start."""
    if (out / "run.json").is_file():
        run = Run.open(out)
        record = run.record
        earlier = Origin(recipe=record.recipe, spec=run.spec, factory=record.factory, data=record.data)
        origin.require_same(earlier, out)
        say(f"{out}: the run is finished already, there is nothing to resume")
        shutil.rmtree(keeper.folder, ignore_errors=True)
        return run
    if keeper.last.is_file():
        origin.require_same(Origin.read(keeper.folder / ORIGIN), out)
        say(f"{out}: resuming after epoch {len(history.read(keeper.history))}")
    else:
        say(f"{out}: there is no checkpoint to resume, training starts anew")
    return None


def _clear(out: Path) -> None:
    """Take an earlier run away, its record first: what is left does not pass for a finished run."""
    pages = ("report.html", "report.png")
    for name in ("run.json", "history.json", *pages, *(f"{part}.safetensors" for part in PARTS)):
        (out / name).unlink(missing_ok=True)
    for name in ("checkpoints", "tensorboard"):
        shutil.rmtree(out / name, ignore_errors=True)


def _prepared(
    origin: Origin, heads: tuple[str, ...], network: nn.Module, parts: Split, augment: Augment | None
) -> _Prepared:
    spec, recipe, rows = origin.spec, origin.recipe, parts.train
    known = {name: labelled(spec.heads[name], rows.targets[name]) for name in heads}
    drawn = order(recipe.sampling, len(rows), known, recipe.seed, recipe.sampling_temperature)
    longest = rows.longest()
    if longest is not None and recipe.group_lengths:
        drawn = grouped(drawn, longest, recipe.batch_size, recipe.seed)
    training = Batches(rows, recipe.batch_size, drawn)
    by_length = shortest_first(parts.validation)
    validation = Batches(parts.validation, EVALUATION_BATCH, lambda _epoch: by_length)
    balanced = _class_weights(spec, rows) if recipe.class_weights == "balanced" else {}
    steps = len(training) * recipe.max_epochs
    task = Task(spec, network, recipe, heads, steps, augment if recipe.augment else None, balanced)
    return _Prepared(task, training, validation)


def _fit(prepared: _Prepared, keeper: Keeper, out: Path, say: Say) -> torch.device:
    """Train, and load the best epoch's weights. Returns where it was trained."""
    task = prepared.task
    resumed = keeper.last if keeper.last.is_file() else None
    trainer = _trainer(task.recipe, out, keeper, len(prepared.training), resumed is not None)
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(task, prepared.training, prepared.validation, ckpt_path=resumed, weights_only=True)
    except SystemExit:  # what Lightning makes of Ctrl-C, after it has told the process to ignore any more of them
        signal.signal(signal.SIGINT, handler)
        say(f"{out}: interrupted after {len(task.history)} epochs; go on with --resume")
        raise KeyboardInterrupt from None
    load_model(task.network, keeper.best)
    return trainer.strategy.root_device


def _finish(task: Task, device: torch.device, origin: Origin, split: Split, parts: Split, out: Path) -> Run:
    """Test the best epoch and write everything; the record last, since it marks the run as finished."""
    recipe = origin.recipe
    outputs = predict(task.caller, parts.test, device)
    means = results.prototypes(origin.spec, task.caller, parts.train, device)
    task.caller.cpu()
    results.save(out, task.caller, split.test, outputs, parts.test.targets, means)
    if recipe.inspect:
        results.project(out, task.specs, split.test, outputs, parts.test.targets)
    history.write(task.history, out / "history.json")
    best = history.best_epoch(task.history, recipe)
    record = RunRecord(
        factory=origin.factory,
        recipe=recipe,
        data=origin.data,
        epochs=len(task.history),
        best_epoch=best,
        monitor=recipe.monitor,
        score=history.monitored(task.history[best - 1], recipe.monitor),
        seconds=round(sum(entry["seconds"] for entry in task.history), 1),
        parameters=Parameters.model_validate(task.finetuning.counts()),
        metrics=results.measured(task.specs, outputs, parts.test.targets, means),
        versions={name: importlib.metadata.version(name) for name in ("torch", "lightning", "torchmetrics")},
    )
    run = Run(out, record, origin.spec)
    run.write()
    return run


def _class_weights(spec: ModelSpec, rows: Rows) -> dict[str, Tensor]:
    """Of every head with labels."""
    return {
        name: class_weights(torch.from_numpy(targets), len(head.labels))
        for name, targets in rows.targets.items()
        if isinstance(head := spec.heads[name], Labelled)
    }


def _trainer(recipe: Recipe, out: Path, keeper: Keeper, steps: int, resumed: bool) -> lightning.Trainer:
    on_terminal = sys.stderr.isatty()
    # What a run logged after its last checkpoint comes again.
    purge = {"purge_step": history.read(keeper.history)[-1]["steps"] + 1} if resumed else {}
    return lightning.Trainer(
        max_epochs=recipe.max_epochs,
        devices=1,  # the rows lie in this process's memory
        callbacks=[keeper, *([RichProgressBar()] if on_terminal else [])],
        logger=TensorBoardLogger(out, name="", version="tensorboard", **purge),
        precision=recipe.precision,
        gradient_clip_val=recipe.gradient_clip,
        deterministic=True,
        enable_progress_bar=on_terminal,
        enable_checkpointing=True,
        enable_model_summary=False,
        log_every_n_steps=max(1, min(10, steps)),
        num_sanity_val_steps=0,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning without its advertisements, and without warnings about what is meant."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    deterministic = torch.are_deterministic_algorithms_enabled()
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 on torch 2.13
        # A batch without a known target is no step.
        warnings.filterwarnings("ignore", message=".*training_step.* returned `None`.*")
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*before.*optimizer.step.*")
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic)  # the trainer switches it on for the whole process
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

"""The training loop, on Lightning: progress bar, validation metrics per head, early stopping, TensorBoard."""

from __future__ import annotations

import importlib.metadata
import logging
import math
import shutil
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_model
from torch import Tensor
from torchmetrics import MetricCollection

from polyhead.models.data import Rows, Split, loader
from polyhead.models.losses import MultiTaskLoss
from polyhead.models.metrics import computed, head_metrics, update
from polyhead.models.network import MultiTaskNetwork, NamedModules
from polyhead.models.preprocess import Preprocess
from polyhead.models.run import Recipe, Run, RunError, RunRecord
from polyhead.models.spec import ModelSpec

__all__ = ["train"]

Augment = Callable[[dict[str, Tensor], torch.Generator], dict[str, Tensor]]
SAMPLES = 64  # held-out rows that a run keeps for the export's golden samples
MONITOR = "validation/loss"


class _Task(lightning.LightningModule):
    """Network, losses and metrics as Lightning wants them."""

    def __init__(
        self,
        spec: ModelSpec,
        network: MultiTaskNetwork,
        recipe: Recipe,
        targets: tuple[str, ...],
        steps: int,
        augment: Augment | None,
    ) -> None:
        super().__init__()
        self.spec, self.recipe, self.targets, self.steps = spec, recipe, targets, steps
        self.network = network
        self.preprocess = Preprocess(spec.inputs)
        self.loss = MultiTaskLoss(spec.heads, dict(network.heads.items()), recipe.loss_weights)
        self.augment = augment
        self.generator = torch.Generator().manual_seed(recipe.seed)
        self.metrics = NamedModules({name: head_metrics(spec.heads[name]) for name in targets})

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs: dict[str, Tensor] = self.network(**self.preprocess(inputs))
        return outputs

    def training_step(self, batch: list[Tensor], _index: int) -> Tensor:
        inputs, targets = self._columns(batch)
        if self.augment is not None:
            inputs = self.augment(inputs, self.generator)
        total, losses = self.loss(self(inputs), targets)
        self.log("train/loss", total, prog_bar=True)
        self.log_dict({f"train/{name}": loss for name, loss in losses.items()})
        return total  # type: ignore[no-any-return]

    def validation_step(self, batch: list[Tensor], _index: int) -> None:
        inputs, targets = self._columns(batch)
        outputs = self(inputs)
        total, losses = self.loss(outputs, targets)
        rows = len(batch[0])
        self.log(MONITOR, total, prog_bar=True, batch_size=rows)
        self.log_dict({f"validation/{name}": loss for name, loss in losses.items()}, batch_size=rows)
        self._update(outputs, targets)

    def on_validation_epoch_end(self) -> None:
        for head, values in self.computed().items():
            self.log_dict({f"validation/{head}/{name}": value for name, value in values.items()})

    def test_step(self, batch: list[Tensor], _index: int) -> None:  # noqa: PT019 - no test
        inputs, targets = self._columns(batch)
        self._update(self(inputs), targets)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=self.recipe.learning_rate, weight_decay=self.recipe.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.recipe.learning_rate, total_steps=self.steps * self.recipe.max_epochs
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def computed(self) -> dict[str, dict[str, float]]:
        """Every head's metrics over what was seen since the last call."""
        result: dict[str, dict[str, float]] = {}
        for head, metrics in self.metrics.items():
            assert isinstance(metrics, MetricCollection)
            result[head] = computed(metrics)
            metrics.reset()
        return result

    def _columns(self, batch: list[Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        names = (*self.spec.inputs, *self.targets)
        columns = dict(zip(names, batch, strict=True))
        return {n: columns[n] for n in self.spec.inputs}, {n: columns[n] for n in self.targets}

    def _update(self, outputs: Mapping[str, Tensor], targets: Mapping[str, Tensor]) -> None:
        for head, metrics in self.metrics.items():
            assert isinstance(metrics, MetricCollection)
            update(self.spec.heads[head], metrics, outputs[head], targets[head])


def train(
    spec: ModelSpec,
    build: Callable[[Rows], MultiTaskNetwork],
    split: Split,
    recipe: Recipe,
    out: Path,
    factory: str,
    augment: Augment | None = None,
) -> Run:
    """Train a network and write the run's directory.

    Args:
        spec: the model's inputs and heads; heads without targets in the data are not trained.
        build: makes the network, given the training rows (to fix target scales); called under the seed.
        split: the rows.
        recipe: seed, epochs, rates, weights.
        out: the run's directory; made where missing, an earlier run in it is replaced.
        factory: `module:function` that makes the untrained network again, for the export.
        augment: changes a batch of raw inputs while training.

    Returns:
        The finished run, with its metrics on the test rows.

    Raises:
        RunError: the loss became NaN or infinite.
    """
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    (out / "run.json").unlink(missing_ok=True)
    for name in ("checkpoints", "tensorboard"):
        shutil.rmtree(out / name, ignore_errors=True)
    with _quiet():
        lightning.seed_everything(recipe.seed, verbose=False)
        steps = -(-len(split.train) // recipe.batch_size)
        task = _Task(spec, build(split.train), recipe, tuple(split.train.targets), steps, augment)
        best = ModelCheckpoint(out / "checkpoints", filename="best", monitor=MONITOR, save_weights_only=True)
        trainer = _trainer(recipe, out, [best, EarlyStopping(MONITOR, patience=recipe.patience)], steps)
        trainer.fit(task, loader(split.train, recipe.batch_size, recipe.seed), loader(split.validation, 512))
        epochs = trainer.current_epoch
        score = best.best_model_score
        if score is None or not math.isfinite(float(score)):
            raise RunError(f"{spec.name}: the loss is not finite after {epochs} epochs: lower the learning rate")
        trainer.test(task, loader(split.test, 512), ckpt_path="best", weights_only=True, verbose=False)
    return _save(task, split, out, factory, epochs, time.monotonic() - started)


def _save(task: _Task, split: Split, out: Path, factory: str, epochs: int, seconds: float) -> Run:
    """Write weights, samples and record; the record last, since it marks the run as finished."""
    save_model(task.network.eval().cpu(), str(out / "weights.safetensors"))
    samples = {name: np.ascontiguousarray(rows[:SAMPLES]) for name, rows in split.test.inputs.items()}
    save_arrays(samples, out / "samples.safetensors")
    record = RunRecord(
        factory=factory,
        recipe=task.recipe,
        epochs=epochs,
        seconds=round(seconds, 1),
        metrics={head: {k: round(v, 4) for k, v in values.items()} for head, values in task.computed().items()},
        versions={name: importlib.metadata.version(name) for name in ("torch", "lightning", "torchmetrics")},
    )
    run = Run(out, record, task.spec)
    run.write()
    return run


def _trainer(recipe: Recipe, out: Path, callbacks: list[Callback], steps: int) -> lightning.Trainer:
    on_terminal = sys.stderr.isatty()
    if on_terminal:
        callbacks = [*callbacks, RichProgressBar()]
    return lightning.Trainer(
        max_epochs=recipe.max_epochs,
        callbacks=callbacks,
        logger=TensorBoardLogger(out, name="", version="tensorboard"),
        deterministic=True,
        enable_progress_bar=on_terminal,
        enable_model_summary=False,
        log_every_n_steps=max(1, min(10, steps)),
        num_sanity_val_steps=0,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning without its advertisements; data in memory needs no loader workers."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    deterministic = torch.are_deterministic_algorithms_enabled()
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")  # Lightning 2.6 on torch 2.13
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic)  # the trainer switches it on for the whole process
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

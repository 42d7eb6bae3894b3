"""What happens in a step and in an epoch, as Lightning wants it."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import lightning
import numpy as np
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter
from torchmetrics import MetricCollection

from polyhead.models.augment import Augment, Columns
from polyhead.models.calling import Caller
from polyhead.models.data import Batch, Batches
from polyhead.models.learning import conflict
from polyhead.models.learning.finetuning import Finetuning, heads_of
from polyhead.models.learning.history import Entry
from polyhead.models.learning.rates import build_optimizer, build_schedule
from polyhead.models.learning.seeds import epoch_seed
from polyhead.models.learning.weighting import build_weighting
from polyhead.models.losses import HeadLosses, known
from polyhead.models.metrics import computed, head_metrics, update
from polyhead.models.network import NamedModules
from polyhead.models.recipe import Recipe
from polyhead.models.run import RunError
from polyhead.models.spec import ModelSpec

if TYPE_CHECKING:
    from polyhead.models.learning.inspection import GradientReport

__all__ = ["Task"]


class Task(lightning.LightningModule):
    """Network, losses, weighting and metrics.

    Args:
        spec: of the model.
        network: any module that takes the spec's inputs and returns its heads.
        recipe: of the run.
        heads: those that are trained.
        steps: of the optimiser, over all epochs.
        augment: changes a training batch; its generator is seeded for every epoch.
        class_weights: by head, see `polyhead.models.losses`.

    Attributes:
        history: of the epochs so far; it travels in the checkpoint.
    """

    def __init__(
        self,
        spec: ModelSpec,
        network: nn.Module,
        recipe: Recipe,
        heads: Sequence[str],
        steps: int,
        augment: Augment | None = None,
        class_weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.spec, self.recipe, self.steps, self.augment = spec, recipe, steps, augment
        self.specs = {name: spec.heads[name] for name in heads}
        self.caller = Caller(network, spec, heads)
        self.losses = HeadLosses(self.specs, heads_of(network), class_weights, recipe.label_smoothing, recipe.dice)
        self.weighting = build_weighting(recipe, self.specs)
        self.finetuning = Finetuning(network, recipe, heads)
        self.metrics = NamedModules({name: head_metrics(head) for name, head in self.specs.items()})
        self.history: list[Entry] = []
        self.generator = torch.Generator()
        self._terms: list[Tensor] = []  # of the step that is under way: each task's part of the sum
        self._means = {"train": _Means(), "validation": _Means()}
        self._validated: dict[str, dict[str, float]] = {}
        self._gradients: GradientReport | None = None
        self._started = 0.0
        self.train()

    @property
    def network(self) -> nn.Module:
        """What is trained."""
        return self.caller.network

    # The run and its epochs begin

    def on_train_start(self) -> None:
        """Draw the graph for TensorBoard, once.

        Raises:
            RunError: the network cannot be traced.
        """
        if not self.recipe.inspect or self.history:
            return
        from polyhead.models.learning.tensorboard import InspectionError, log_graph

        batches = self.trainer.train_dataloader
        assert isinstance(batches, Batches)
        inputs, _ = self.transfer_batch_to_device(next(iter(batches)), self.device, 0)
        try:
            log_graph(self._writer(), self.caller, inputs)
        except InspectionError as error:
            raise RunError(str(error)) from error

    def on_train_epoch_start(self) -> None:
        """Seed everything, and freeze what sleeps in this epoch."""
        epoch = self.current_epoch
        steps = epoch_seed(self.recipe.seed, epoch, "steps")
        torch.manual_seed(steps)
        np.random.seed(steps)  # a user's own layers and augmentation may draw from these two
        random.seed(steps)
        self.generator.manual_seed(epoch_seed(self.recipe.seed, epoch, "augment"))
        batches = self.trainer.train_dataloader
        assert isinstance(batches, Batches)
        batches.epoch = epoch
        self.finetuning.begin(epoch)
        self._gradients = None
        self._started = time.monotonic()

    # Steps

    def training_step(self, batch: Batch, index: int) -> Tensor | None:
        """The weighted sum of the losses, a scalar; None where no target in the batch is known.

        Raises:
            RunError: a loss is not finite.
        """
        inputs, targets = batch
        if self.augment is not None:
            inputs, targets = self.augment(inputs, targets, self.generator)
        losses = self._losses("train", self.caller(**inputs), targets)
        terms = self.weighting(losses)
        if not terms:
            return None  # a batch without a known target teaches nothing: no step, and no decay of the weights
        self._terms = list(terms.values())
        if self.recipe.inspect and index == 0:
            self._inspect(terms)
        total = torch.stack(self._terms).sum()
        self.log("train/loss", total.detach(), prog_bar=True)
        self.log_dict({f"train/{name}": loss for name, loss in losses.items()})
        return total

    def backward(self, loss: Tensor, *_args: Any, **_options: Any) -> None:
        """Of the sum, or of each task by itself where the recipe looks after conflicts."""
        aggregator = conflict.AGGREGATORS.get(self.recipe.gradients)
        terms, self._terms = self._terms, []
        if aggregator is None:
            loss.backward()  # type: ignore[no-untyped-call]
            return
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)  # of half precision: `loss` is scaled already
        scale = 1.0 if scaler is None else scaler.get_scale()
        parameters = [*self.finetuning.parameters(), *self.weighting.parameters()]
        conflict.backward([scale * term for term in terms], parameters, aggregator)

    def validation_step(self, batch: Batch, _index: int) -> None:
        """Losses and metrics of a batch."""
        inputs, targets = batch
        outputs = self.caller(**inputs)
        self._losses("validation", outputs, targets)
        for name, target in targets.items():
            update(self.specs[name], self._metrics(name), outputs[name], target)

    def _losses(self, part: str, outputs: Columns, targets: Columns) -> Columns:
        """The losses of the heads with a known target in the batch."""
        counts = {name: known(self.specs[name], target) for name, target in targets.items()}
        present = [name for name in targets if counts[name] > 0]
        losses = self.losses(outputs, {name: targets[name] for name in present})
        for name, loss in losses.items():
            if not torch.isfinite(loss):
                raise RunError(
                    f"head {name!r}: the {part} loss is not finite ({loss.item()}) in epoch {self.current_epoch + 1}: "
                    "lower the learning rate, set gradient_clip, or look for extreme values in its targets"
                )
            self._means[part].add(name, loss, counts[name])
        return losses  # type: ignore[no-any-return]

    def _inspect(self, terms: Mapping[str, Tensor]) -> None:
        from polyhead.models.learning.inspection import gradients

        trunk = self.finetuning.trunk
        parameters = (
            conflict.shared(list(terms.values()), self.finetuning.parameters())
            if trunk is None
            else list(trunk.parameters())
        )
        self._gradients = gradients(terms, parameters)

    def _metrics(self, head: str) -> MetricCollection:
        metrics = self.metrics[head]
        assert isinstance(metrics, MetricCollection)
        return metrics

    # An epoch ends

    def on_validation_epoch_end(self) -> None:
        """The epoch's losses and metrics."""
        losses = self._means["validation"].take()
        self._validated = {}
        for name in self.specs:
            metrics = self._metrics(name)
            values = {"loss": losses[name]} if name in losses else {}
            values |= {key: value for key, value in computed(metrics).items() if math.isfinite(value)}
            metrics.reset()
            self._validated[name] = values

    def on_train_epoch_end(self) -> None:
        """Enter the epoch into the history; Lightning has validated by now."""
        trained = self._means["train"].take()
        validated = {name: values["loss"] for name, values in self._validated.items() if "loss" in values}
        loss = {"train": self._total(trained), "validation": self._total(validated)}
        entry: Entry = {
            "epoch": self.current_epoch + 1,
            "steps": self.global_step,
            "seconds": round(time.monotonic() - self._started, 3),
            "loss": {part: value for part, value in loss.items() if value is not None},
            "train": trained,
            "validation": self._validated,
            "weights": self.weighting.weights(),
            "learning_rates": {group["name"]: group["lr"] for group in self.trainer.optimizers[0].param_groups},
            "trainable": sum(p.numel() for p in self.network.parameters() if p.requires_grad),
        }
        if self._gradients is not None:
            entry["gradients"] = asdict(self._gradients)
        self.weighting.follow(trained)
        self.history.append(entry)
        self._log_epoch(entry)

    def _total(self, losses: Mapping[str, float]) -> float | None:
        """The sum with the recipe's own weights, which is comparable between epochs whatever the weighting does."""
        weighted = [self.weighting.fixed[name] * loss for name, loss in losses.items()]
        return sum(weighted) if weighted else None

    def _log_epoch(self, entry: Entry) -> None:
        scalars = {f"weights/{name}": weight for name, weight in entry["weights"].items()}
        scalars |= {f"learning_rates/{name}": rate for name, rate in entry["learning_rates"].items()}
        scalars |= {"validation/loss": entry["loss"]["validation"]} if "validation" in entry["loss"] else {}
        for head, values in entry["validation"].items():
            for name, value in values.items():
                scalars[f"validation/{head}" if name == "loss" else f"validation/{head}/{name}"] = value
        writer = self._writer()
        for name, value in {**scalars, "epoch": entry["epoch"]}.items():
            writer.add_scalar(name, value, self.global_step)
        if self._gradients is not None:
            from polyhead.models.learning.tensorboard import log_gradients, log_weight_norms

            log_gradients(writer, self._gradients, self.global_step)
            log_weight_norms(writer, self.network, self.global_step)

    def _writer(self) -> SummaryWriter:
        assert isinstance(self.logger, TensorBoardLogger)
        writer: SummaryWriter = self.logger.experiment
        return writer

    # The optimiser, and the checkpoint

    def configure_optimizers(self) -> Any:
        """Groups with rates of their own; what a weighting learns does not decay."""
        groups = self.finetuning.groups()
        learnt = list(self.weighting.parameters())
        if learnt:
            groups.append({"name": "weighting", "params": learnt, "lr": self.recipe.learning_rate, "weight_decay": 0.0})
        optimizer = build_optimizer(self.recipe, groups)
        schedule = build_schedule(self.recipe, optimizer, self.steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the history along: plain numbers, so that loading needs no pickled objects."""
        checkpoint["history"] = self.history

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Bring the history back."""
        self.history = checkpoint["history"]


class _Means:
    """Means by head over an epoch, of batches that count as much as they have known targets."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    def add(self, name: str, loss: Tensor, count: Tensor) -> None:
        """A batch's mean loss over so many targets."""
        self._sums[name] = self._sums.get(name, torch.zeros_like(loss)).detach() + loss.detach() * count
        self._counts[name] = self._counts.get(name, torch.zeros_like(count)) + count

    def take(self) -> dict[str, float]:
        """The means since the last call."""
        means = {name: float(total / self._counts[name]) for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means

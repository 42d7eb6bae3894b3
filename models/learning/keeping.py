"""What is kept of every epoch: the best weights, and all that --resume needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Checkpoint
from safetensors.torch import save_model

from polyhead.models.learning import history
from polyhead.models.learning.task import Task

__all__ = ["Keeper"]


class Keeper(Checkpoint):
    """Keeps the best epoch and the last, and stops where none is better for long.

    Each file is written under another name and then renamed, so that a crash at any time leaves whole files. The
    checkpoint comes last: a crash before it repeats the epoch, which gives the same weights and history again.
    Everything that decides is read off the history, which travels in the checkpoint.

    Args:
        out: the run's directory.
    """

    def __init__(self, out: Path) -> None:
        self.folder = out / "checkpoints"
        self.best = self.folder / "best.safetensors"
        self.last = self.folder / "last.ckpt"
        self.history = out / "history.json"

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """A resumed run may have stopped early already."""
        assert isinstance(pl_module, Task)
        trainer.should_stop = history.exhausted(pl_module.history, pl_module.recipe)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep the epoch, and stop where the recipe's patience is at its end."""
        assert isinstance(pl_module, Task)
        entries, recipe = pl_module.history, pl_module.recipe
        if history.best_epoch(entries, recipe) == len(entries):
            partial = self.folder / "best.partial"
            save_model(pl_module.network, str(partial))
            partial.replace(self.best)
        history.write(entries, self.history)
        partial = self.folder / "last.partial"
        trainer.save_checkpoint(partial)
        partial.replace(self.last)
        if history.exhausted(entries, recipe):
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the history has it all."""
        return {}

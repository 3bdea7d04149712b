"""The recorder and AutoLRS as callbacks of Lightning's Trainer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from thalweg.core import InvalidProblem, MissingExtra
from thalweg.training.autolrs import AutoLRS
from thalweg.training.recorder import GradientNormRecorder

try:
    from lightning.pytorch import Callback
except ImportError:
    raise MissingExtra("lightning", "lightning") from None

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


def _only_optimizer(trainer: Trainer, name: str) -> torch.optim.Optimizer:
    if len(trainer.optimizers) != 1:
        raise InvalidProblem(f"{name} is for one optimizer; the module has {len(trainer.optimizers)}.")
    optimizer: torch.optim.Optimizer = trainer.optimizers[0]
    return optimizer


class GradientNorms(Callback):
    """Record gradient norms while ``Trainer.fit`` runs, before Lightning clips them.

    Args:
        path: write them here at the end of training, ``.npz`` or ``.csv``.

    ``recorder`` is the `GradientNormRecorder`.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = path
        self.recorder: GradientNormRecorder | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook."""
        self.recorder = GradientNormRecorder(_only_optimizer(trainer, "GradientNorms"), attach=False)

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Lightning's hook: the gradient is there, unscaled."""
        if self.recorder is None:
            raise InvalidProblem(
                "GradientNorms was not there when the fit began. Give it to the Trainer's callbacks."
            )
        self.recorder.record()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook."""
        if self.path is not None and self.recorder is not None and trainer.is_global_zero:
            self.recorder.save(self.path)


class AutoRate(Callback):
    """`AutoLRS` inside ``Trainer.fit``: choose the rate on the fly, stop when its training steps are done.

    Lightning's loader cannot be wound back: trials train on batches of their own, and no batch is used twice. Let the
    Trainer run on, ``Trainer(max_epochs=-1, ...)``: its step count includes the trials.

    Args:
        lr_min, lr_max: where to look.
        validate: gives a held-out loss of the module.
        options: of `AutoLRS`, ``total_steps`` among them.

    ``auto`` is the `AutoLRS`; the module's ``training_step`` returns the loss, or a dict with ``"loss"``.

    Raises:
        InvalidProblem: the module has a learning-rate schedule, or several optimizers.
    """

    def __init__(
        self,
        lr_min: float,
        lr_max: float,
        *,
        validate: Callable[[LightningModule], float] | None = None,
        **options: Any,  # noqa: ANN401 -- of `AutoLRS`
    ) -> None:
        self.range, self.validate, self.options = (lr_min, lr_max), validate, options
        self.auto: AutoLRS | None = None
        self._losses: list[torch.Tensor] = []
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: the optimizer is there."""
        if trainer.lr_scheduler_configs:
            raise InvalidProblem(
                "AutoRate sets the learning rate; leave the schedule out of configure_optimizers."
            )
        optimizer = _only_optimizer(trainer, "AutoRate")
        judge = None if self.validate is None else functools.partial(self.validate, pl_module)
        self.auto = AutoLRS(pl_module, optimizer, *self.range, validate=judge, **self.options)
        self._step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: torch.Tensor | dict[str, torch.Tensor],
        batch: object,
        batch_idx: int,
    ) -> None:
        """Lightning's hook; several batches a step are averaged."""
        if self.auto is None:
            raise InvalidProblem(
                "AutoRate was not there when training began. Give it to the Trainer's callbacks."
            )
        self._losses.append((outputs["loss"] if isinstance(outputs, dict) else outputs).detach())
        if trainer.global_step == self._step or self.auto.done:
            return
        self._step = trainer.global_step
        self.auto.step(torch.stack(self._losses).mean())
        self._losses = []
        trainer.should_stop = trainer.should_stop or self.auto.done

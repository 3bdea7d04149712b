"""The recorder and AutoLRS as callbacks of Hugging Face's Trainer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from thalweg.core import InvalidProblem, MissingExtra
from thalweg.training.autolrs import AutoLRS
from thalweg.training.recorder import GradientNormRecorder

try:
    from transformers import TrainerCallback
except ImportError:
    raise MissingExtra("transformers", "transformers") from None

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class Parts(TypedDict):
    """What of a Trainer's parts is used here."""

    model: nn.Module
    optimizer: torch.optim.Optimizer


class GradientNorms(TrainerCallback):
    """Record gradient norms while a ``Trainer`` trains.

    The Trainer clips before it calls; ``max_grad_norm=0`` in its arguments leaves the gradients as they are.

    Args:
        path: write them here at the end of training, ``.npz`` or ``.csv``.

    ``recorder`` is the `GradientNormRecorder`.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = path
        self.recorder: GradientNormRecorder | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Unpack[Parts]
    ) -> None:
        """The Trainer's hook."""
        self.recorder = GradientNormRecorder(_plain(parts["optimizer"]), attach=False)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Unpack[Parts]
    ) -> None:
        """The Trainer's hook: the gradient is there, unscaled."""
        if self.recorder is None:
            raise InvalidProblem(
                "GradientNorms was not there when training began. Give it to the Trainer's callbacks."
            )
        self.recorder.record()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Unpack[Parts]
    ) -> None:
        """The Trainer's hook."""
        if self.path is not None and self.recorder is not None and state.is_world_process_zero:
            self.recorder.save(self.path)


class AutoRate(TrainerCallback):
    """`AutoLRS` inside a ``Trainer``: choose the rate on the fly, stop when its training steps are done.

    The loss is the one that the model returns in training. The Trainer's loader cannot be wound back: trials train on
    batches of their own, and no batch is used twice. Its ``max_steps`` have to cover training and trials, about twice
    ``total_steps``; its own schedule is overruled, ``lr_scheduler_type="constant"`` says so to readers.

    Args:
        lr_min, lr_max: where to look.
        validate: gives a held-out loss of the model.
        options: of `AutoLRS`, ``total_steps`` among them.

    ``auto`` is the `AutoLRS`.
    """

    def __init__(
        self,
        lr_min: float,
        lr_max: float,
        *,
        validate: Callable[[nn.Module], float] | None = None,
        **options: Any,  # noqa: ANN401 -- of `AutoLRS`
    ) -> None:
        self.range, self.validate, self.options = (lr_min, lr_max), validate, options
        self.auto: AutoLRS | None = None
        self._losses: list[torch.Tensor] = []
        self._hook: RemovableHandle | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Unpack[Parts]
    ) -> None:
        """The Trainer's hook: the optimizer is there."""
        model, optimizer = parts["model"], _plain(parts["optimizer"])
        judge = None if self.validate is None else functools.partial(self.validate, model)
        self.auto = AutoLRS(model, optimizer, *self.range, validate=judge, **self.options)
        self._hook = model.register_forward_hook(self._seen)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Unpack[Parts]
    ) -> TrainerControl:
        """The Trainer's hook; several batches a step are averaged."""
        if self.auto is None:
            raise InvalidProblem(
                "AutoRate was not there when training began. Give it to the Trainer's callbacks."
            )
        if not self._losses:
            raise InvalidProblem("The model returned no loss in training. Give it labels.")
        self.auto.step(torch.stack(self._losses).mean())
        self._losses = []
        if self.auto.done:
            control.should_training_stop = True
        return control

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Unpack[Parts]
    ) -> None:
        """The Trainer's hook."""
        if self._hook is not None:
            self._hook.remove()

    def _seen(self, model: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        loss = output.get("loss") if isinstance(output, dict) else None
        if model.training and loss is not None:
            self._losses.append(loss.detach())


def _plain(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Torch's optimizer, out of Accelerate's wrapping."""
    inner: torch.optim.Optimizer = getattr(optimizer, "optimizer", optimizer)
    return inner

"""A combiner inside Lightning's Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from thalweg.adaptation.combiners import Combination, GradientCombiner
from thalweg.adaptation.gradients import combined, objective_gradients, put_gradient
from thalweg.core import InvalidProblem, MissingExtra

try:
    from lightning.pytorch import Callback
except ImportError:
    raise MissingExtra("lightning", "lightning") from None

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer


class CombinedGradients(Callback):
    """Put a combiner's direction in the place of the summed gradient, while ``Trainer.fit`` runs.

    The module's ``training_step`` returns the sum of its losses, which trains its heads, and keeps the losses
    themselves in ``self.objectives``. One batch a step, in full precision.

    Args:
        combiner: a `GradientCombiner`.
        shared: gives the parameters on which losses conflict, from the module.
        guide: gives a loss that steers, from the module, for guided combiners.

    ``last`` is the last `Combination`.

    Raises:
        InvalidProblem: the module keeps no ``objectives``; gradients are accumulated.
    """

    def __init__(
        self,
        combiner: GradientCombiner,
        shared: Callable[[LightningModule], Iterable[nn.Parameter]],
        guide: Callable[[LightningModule], Tensor] | None = None,
    ) -> None:
        self.combiner, self.shared, self.guide = combiner, shared, guide
        self.last: Combination | None = None
        self._flat: Tensor | None = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook."""
        if trainer.accumulate_grad_batches != 1:
            raise InvalidProblem(
                f"CombinedGradients needs accumulate_grad_batches=1; got {trainer.accumulate_grad_batches}."
            )

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        """Lightning's hook: the graph is there."""
        losses: Sequence[Tensor] | None = getattr(pl_module, "objectives", None)
        if not losses:
            raise InvalidProblem(
                "CombinedGradients needs the losses in self.objectives; set them in training_step."
            )
        places = list(self.shared(pl_module))
        steered = [*losses] if self.guide is None else [*losses, self.guide(pl_module)]
        G = objective_gradients(steered, places)
        with torch.no_grad():
            self._flat, self.last, _ = combined(G, self.combiner, losses, 0.0)

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Lightning's hook: the sum's gradient is replaced."""
        if self._flat is not None:
            put_gradient(self.shared(pl_module), self._flat)
            self._flat = None

"""Pareto domain adaptation for a network of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from thalweg.adaptation.adapt import Adapt, AdaptState
from thalweg.adaptation.batches import Source, as_rows
from thalweg.adaptation.combiners import GradientCombiner
from thalweg.adaptation.problem import AdaptationTask, Adapted, predicted
from thalweg.core import Callback, InvalidProblem, Result, solve
from thalweg.training.snapshot import random_states, set_random_states

Weights = dict[str, Tensor]


class ParetoDA:
    """Train a backbone and a head on labels of one domain for use in another that has none.

    Give it modules and data; the modules are trained in place. Source labels, alignment and the target's own
    predictions each pull at the backbone, and a linear programme settles them by what unlabelled held-out target rows
    say, so that there are no weights to tune. Where classes of the target are of very different sizes, be careful:
    the target objective wants them even.

    Args:
        backbone, head: modules; ``head(backbone(x))`` is logits, (n, K), or (n, K, height, width).
        base, combiner, options: see `Adapt`.
        device: where to train.

    >>> X, y = torch.randn(60, 5), torch.arange(60) % 3
    >>> model = ParetoDA(nn.Linear(5, 4), nn.Linear(4, 3), hidden=8)
    >>> model.fit((X, y), X + 0.5, steps=10).predict(X).shape
    (60,)
    """

    result: Result | None = None

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        base: str = "dann",
        combiner: str | GradientCombiner = "preference",
        *,
        device: str = "cpu",
        **options: object,
    ) -> None:
        self.backbone, self.head, self.device = backbone.to(device), head.to(device), device
        self.method = Adapt(base, combiner, **options)  # type: ignore[arg-type]
        self._state: AdaptState | None = None
        self._kept: dict[str, object] | None = None  # of a loaded state, until the next step knows the shapes

    def fit(
        self,
        source: Source,
        target: ArrayLike | Tensor | Source,
        *,
        held_out: ArrayLike | Tensor | Source | None = None,
        steps: int = 2000,
        batch_size: int = 32,
        seed: int = 0,
        callbacks: Sequence[Callback | Callable[..., object]] = (),
        resume: str | Path | None = None,
        target_labels: ArrayLike | None = None,
    ) -> Self:
        """Train for ``steps``; the modules then have the weights of the least held-out doubt.

        Args:
            source: ``(inputs, labels)``, arrays or tensors; or a loader of such batches.
            target: inputs; or a loader.
            held_out: inputs that guide; by default a tenth of ``target``. Needed beside a loader.
            steps, batch_size, seed: of the run.
            callbacks, resume: of `solve`; a resumed run has the same bits as one never stopped, with tensors.
            target_labels: to judge by; they never train.

        ``result`` is the `Result`, with the history of weights, cosines and modes.

        Raises:
            InvalidProblem, NotFinite: see `AdaptationTask` and `Adapt`.
        """
        task = AdaptationTask(
            lambda: self.backbone,
            lambda: self.head,
            _pair(source),
            _inputs(target),
            None if held_out is None else _inputs(held_out),
            steps,
            batch_size,
            None if target_labels is None else torch.as_tensor(np.asarray(target_labels)).long(),
            self.device,
        )
        self.result = solve(task, self.method, seed=seed, callbacks=callbacks, resume=resume, progress=False)
        return self

    def partial_fit(
        self,
        X: ArrayLike | Tensor,
        y: ArrayLike | Tensor,
        target: ArrayLike | Tensor,
        held_out: ArrayLike | Tensor,
    ) -> Self:
        """One step on one batch of each: source rows with labels, target rows, held-out target rows."""
        rows = _pair((X, y)), _inputs(target), _inputs(held_out)
        task = AdaptationTask(
            lambda: self.backbone, lambda: self.head, *rows, steps=2**62, device=self.device
        )
        if self._state is None:
            self._state = self.method.init(task, 0)
            if self._kept is not None:
                self._take_up(self._state, self._kept)
        batch = tuple(as_rows(part, self.device) for part in task.parts)
        self._state = self.method.advance(task, self._state, batch)
        return self

    @property
    def metrics(self) -> dict[str, float]:
        """Of the last step of `partial_fit`, or of the fit's answer."""
        if self._state is not None:
            return dict(self._state.metrics)
        return {} if self.result is None else dict(self.result.metrics)

    def predict_proba(self, X: ArrayLike | Tensor) -> NDArray[np.float64]:
        """Probabilities of the classes, shape (n, K); (n, K, height, width) where there is a class at each pixel."""
        inputs = as_rows(_inputs(X), "cpu")
        net = Adapted(self.backbone, self.head).train(self.backbone.training)
        p = torch.cat(list(predicted(net, inputs[:1], self.device))).double().softmax(1).cpu()
        was_training = net.training
        with torch.no_grad():
            shape = net.eval()(inputs[0][:1].to(self.device)).shape
        net.train(was_training)
        if len(shape) == 4:
            p = p.reshape(len(inputs[0]), *shape[2:], shape[1]).movedim(-1, 1)
        return np.asarray(p.numpy())

    def predict(self, X: ArrayLike | Tensor) -> NDArray[np.int64]:
        """The likeliest class of each row, or pixel."""
        return np.asarray(self.predict_proba(X).argmax(1))

    def state_dict(self) -> dict[str, object]:
        """Modules, discriminators, the optimizer and the step of `partial_fit`, as plain data."""
        found: dict[str, object] = {"backbone": self.backbone.state_dict(), "head": self.head.state_dict()}
        if self._state is not None:
            s = self._state
            found["training"] = {
                "heads": s.heads.state_dict(),
                "optimizer": s.optimizer.state_dict(),
                "step": s.step,
                "lowest": s.lowest,
                "best": s.best,
                "rng": random_states(),
            }
        elif self._kept is not None:
            found["training"] = self._kept
        return found

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Inverse of `state_dict`, into modules of the same shapes; training goes on with the next `partial_fit`."""
        self.backbone.load_state_dict(cast(Weights, state["backbone"]))
        self.head.load_state_dict(cast(Weights, state["head"]))
        self._state, self._kept = None, cast("dict[str, object] | None", state.get("training"))

    def _take_up(self, state: AdaptState, kept: dict[str, object]) -> None:
        state.heads.load_state_dict(cast(Weights, kept["heads"]))
        state.optimizer.load_state_dict(cast("dict[str, object]", kept["optimizer"]))
        state.step, state.lowest, state.best = (
            cast(int, kept["step"]),
            cast(float, kept["lowest"]),
            cast(Weights, kept["best"]),
        )
        set_random_states(cast("dict[str, object]", kept["rng"]))
        self._kept = None


def _pair(source: object) -> Source:
    if not isinstance(source, tuple | list):
        return cast(Source, source)
    if len(source) != 2:
        raise InvalidProblem(
            f"source is (inputs, labels), or a loader of such batches; got {len(source)} parts."
        )
    labels = source[1]
    y = labels if isinstance(labels, Tensor) else torch.as_tensor(np.asarray(labels))
    return as_rows(_inputs(source[0]), "cpu")[0], y


def _inputs(X: object) -> Source:
    """Arrays and tensors as a tuple of one tensor, float32 where they are numbers of NumPy's float64."""
    if isinstance(X, Tensor):
        return (X,)
    if isinstance(X, np.ndarray | list) or hasattr(X, "__array__"):
        found = torch.as_tensor(np.asarray(X))
        return (found.float() if found.dtype == torch.float64 else found,)
    return cast(Source, X)

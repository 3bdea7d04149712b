"""Many updates of a model from one expensive gradient with respect to what the model gives out.

Lavington, Vaswani, Babanezhad, Schmidt and Le Roux (2023), "Target-based surrogates for stochastic optimization",
ICML, arXiv 2302.02607, algorithms 1 and 2.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torch.optim import Optimizer

from thalweg.core import CheckpointMismatch, InvalidParameter, InvalidProblem, NotFinite, UnknownName
from thalweg.core.validation import require
from thalweg.training.armijo import ArmijoSGD
from thalweg.training.snapshot import set_random_states, torch_random_states
from thalweg.training.target_geometry import GEOMETRIES, STEPS, GeometryName, TargetGeometry

Decay = Literal["constant", "sqrt", "exponential"]
#: The loss, or the loss and its gradient, of z's shape.
Told: TypeAlias = Tensor | tuple[float | Tensor, ArrayLike | Tensor]
#: Armijo's rule in the target's space: decrease asked for, factors of the search, most trials.
DECREASE, BACKTRACK, EXPAND, TRIALS = 0.5, 0.9, 1.8, 100
#: Units in the last place that a sum over layers and examples is off by.
ROUNDED = 64.0


class NotMonotone(UserWarning):
    """The loss rose although the surrogate was lowered: it is no upper bound at this step size."""


def _rounding(loss: float, gradient: Tensor, target: Tensor, eta: float) -> float:
    """What rounding of z and of the sum may add to a loss whose curvature is at most ``1/eta``; in the loss's unit."""
    size = ROUNDED * torch.finfo(target.dtype).eps
    by_slope = size * float((gradient * target).abs().sum())
    return size * abs(loss) + by_slope + size**2 * float(target.square().sum()) / eta


class TargetLoss:
    """An expensive loss of a model's outputs that counts its calls.

    Args:
        loss: takes z; gives a scalar that torch can differentiate, or a pair: the loss and its gradient in z.

    >>> loss = TargetLoss(lambda z: z.square().mean())
    >>> float(loss(torch.ones(3))), loss.calls
    (1.0, 1)
    """

    def __init__(self, loss: Callable[[Tensor], Told]) -> None:
        self.loss, self.calls = loss, 0

    def __call__(self, z: Tensor) -> Told:
        """The loss of z."""
        self.calls += 1
        return self.loss(z)


class TargetSurrogate(Optimizer):
    """Minimise ``l(f(theta))`` where the gradient of l is expensive and f, the model, is cheap.

    A step asks once for the gradient of l in ``z_t = f(theta_t)``, and then makes ``inner_steps`` updates of theta on
    ``<grad l(z_t), f(theta) - z_t> + D(f(theta), z_t)/eta``, which needs the model only. With l smooth and ``eta`` at
    most one over its curvature that is an upper bound of the loss, and lowering it lowers the loss.

    Args:
        params: of the model.
        eta: step in the target's space; ``"mse"``, ``"logistic"`` or ``"softmax"`` for the largest safe step of that
            loss, taken as a mean. Groups have it as ``lr``.
        inner: makes the optimizer of the updates, ``inner(params)``. Default `ArmijoSGD`, which has no rate to tune.
        inner_steps: updates a step, the paper's m: 1 to 1000; more use each gradient better, up to a point.
        decay: of eta over steps: ``"constant"`` when all examples can be fitted, ``"sqrt"``, ``1/sqrt(t)``, in
            general, or ``"exponential"``, ``(1/T)^(t/T)``, which needs ``total_steps``.
        geometry: ``"euclidean"``, ``"kl"``, ``"diagonal"``, ``"newton"`` or ``"adam"``: see `TargetGeometry`.
        linesearch: eta by Armijo's rule in the target's space, starting from ``eta``; it needs more values of l,
            counted in `evaluations`, but no more gradients.
        fresh: a new inner optimizer each step, since each surrogate is a new problem; False keeps its momentum.
        monotone: for full batches: warn if the loss rises.

    Raises:
        InvalidProblem: z does not depend on the parameters, or the loss was called more than once in a step.
        NotFinite: the loss or its gradient is not.

    Cost per step: one gradient of l; one forward and backward pass of the model per inner step, and its line search.

    >>> import torch
    >>> from thalweg.training import TargetSurrogate
    >>> _ = torch.manual_seed(0)
    >>> X = torch.randn(50, 3); y = X.sum(1, keepdim=True)
    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = TargetSurrogate(model.parameters(), eta="mse", inner_steps=20)
    >>> for _ in range(10):
    ...     loss = optimizer.step(lambda: model(X), lambda z: (z - y).square().mean())
    >>> loss < 1e-3, optimizer.calls
    (True, 10)
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, object]],
        eta: float | str,
        *,
        inner: Callable[[list[Tensor]], Optimizer] = ArmijoSGD,
        inner_steps: int = 10,
        decay: Decay = "constant",
        total_steps: int | None = None,
        geometry: GeometryName = "euclidean",
        linesearch: bool = False,
        fresh: bool = True,
        monotone: bool = False,
    ) -> None:
        if isinstance(eta, str) and eta not in STEPS:
            raise UnknownName("loss with a known step", eta, STEPS)
        require(isinstance(eta, str) or 0 < eta < math.inf, "TargetSurrogate needs eta > 0", got=eta)
        require(inner_steps >= 1, "TargetSurrogate needs inner_steps >= 1", got=inner_steps)
        require(
            decay in ("constant", "sqrt", "exponential"), "decay is constant, sqrt or exponential", got=decay
        )
        if decay == "exponential" and not total_steps:
            raise InvalidParameter(f"decay 'exponential' needs total_steps; got {total_steps!r}.")
        if geometry not in GEOMETRIES:
            raise UnknownName("geometry", geometry, GEOMETRIES)
        require(
            not linesearch or geometry == "euclidean", "linesearch is for geometry 'euclidean'", got=geometry
        )
        super().__init__(params, {"lr": 1.0 if isinstance(eta, str) else float(eta)})
        self._step_of = STEPS[eta] if isinstance(eta, str) else None
        self._make_inner, self.inner_steps, self.fresh = inner, inner_steps, fresh
        self.decay, self.total_steps, self.monotone = decay, total_steps or 0, monotone
        self.geometry, self.linesearch = TargetGeometry(geometry), linesearch
        self._inner = self._new_inner()
        #: Gradients of the expensive loss, values of it beside them, and cheap updates so far.
        self.calls = self.evaluations = self.updates = 0
        self._eta, self._last_loss = math.nan, math.inf

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; `InvalidParameter` if they come with an ``lr`` of their own: eta is the target's."""
        if self.param_groups:
            shared = self.param_groups[0]["lr"]
            if param_group.setdefault("lr", shared) != shared:
                raise InvalidParameter(
                    f"eta is a step in the target's space, one for all groups; group {len(self.param_groups)} (counted "
                    f"from 0) has lr = {param_group['lr']}. Give rates of groups to inner=."
                )
        super().add_param_group(param_group)

    def step(self, forward: Callable[[], Tensor], target_loss: Callable[[Tensor], Told]) -> float:  # type: ignore[override]
        """One expensive gradient and ``inner_steps`` updates; returns the loss before them.

        Args:
            forward: gives z, differentiable in the parameters; called once per update, and once more for each trial
                of `ArmijoSGD`'s search.
            target_loss: the loss of z, or a pair of loss and gradient; called once (see ``linesearch``).
        """
        oracle = target_loss if isinstance(target_loss, TargetLoss) else TargetLoss(target_loss)
        before, noise = oracle.calls, torch_random_states()
        with torch.enable_grad():
            z = forward()
        if not isinstance(z, Tensor) or not z.requires_grad:
            raise InvalidProblem(
                "forward() has to return the model's output, a tensor that depends on the parameters; was it detached, "
                "or computed under no_grad?"
            )
        target = self.geometry.target(z.detach().clone())  # z may be the parameter itself
        loss, gradient = self._expensive(oracle, target)
        self.calls += 1
        eta = self._step_size(oracle, target, loss, gradient)
        self._minimise(forward, (z, noise), target, self.geometry.observed(gradient), eta)
        if not self.linesearch and oracle.calls - before != 1:
            raise InvalidProblem(
                f"The expensive loss was called {oracle.calls - before} times in a step; expected once. "
                "forward() must not compute it."
            )
        if self.monotone and loss - self._last_loss > _rounding(loss, gradient, target, eta):
            warnings.warn(
                f"The loss rose from {self._last_loss:.6g} to {loss:.6g} at step {self.calls}: eta = {eta:.3g} is more "
                "than one over the loss's curvature, or an inner step failed.",
                NotMonotone,
                stacklevel=2,
            )
        self._last_loss = loss
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The parameters' groups, the inner optimizer, the metric and the counts."""
        counts = {"calls": self.calls, "evaluations": self.evaluations, "updates": self.updates}
        own = {"eta": self._eta, "last_loss": self._last_loss, "geometry": self.geometry.state, **counts}
        return {**super().state_dict(), "surrogate": own, "inner": self._inner.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`; `CheckpointMismatch` for another optimizer's."""
        state = dict(state_dict)
        if not {"surrogate", "inner"} <= state.keys():
            raise CheckpointMismatch("This is the state of another optimizer, not of a TargetSurrogate.")
        own, inner = state.pop("surrogate"), state.pop("inner")
        super().load_state_dict(state)
        self._inner.load_state_dict(inner)
        self.geometry.state = dict(own["geometry"])
        self._eta, self._last_loss = own["eta"], own["last_loss"]
        self.calls, self.evaluations, self.updates = own["calls"], own["evaluations"], own["updates"]

    def _new_inner(self) -> Optimizer:
        return self._make_inner([p for group in self.param_groups for p in group["params"]])

    def _expensive(self, oracle: TargetLoss, target: Tensor) -> tuple[float, Tensor]:
        leaf = target.clone().requires_grad_(True)
        with torch.enable_grad():
            told = oracle(leaf)
            if isinstance(told, tuple):
                loss, gradient = (
                    float(told[0]),
                    torch.as_tensor(told[1], dtype=target.dtype, device=target.device),
                )
            else:
                if not (isinstance(told, Tensor) and told.requires_grad and told.numel() == 1):
                    raise InvalidProblem(
                        "target_loss(z) has to return a scalar tensor that depends on z, or (loss, gradient)."
                    )
                loss = float(told.detach())
                (gradient,) = torch.autograd.grad(told, leaf)
        if gradient.shape != target.shape:
            raise InvalidProblem(
                f"The gradient has shape {tuple(gradient.shape)}; expected that of z, {tuple(target.shape)}."
            )
        if not math.isfinite(loss) or not bool(torch.isfinite(gradient).all()):
            raise NotFinite(f"Step {self.calls + 1}: the loss is {loss}, or its gradient is not finite.")
        return loss, gradient

    def _step_size(self, oracle: TargetLoss, target: Tensor, loss: float, gradient: Tensor) -> float:
        eta = float(self.param_groups[0]["lr"]) * (self._step_of(target.shape) if self._step_of else 1.0)
        if self.linesearch:
            eta = self._searched(oracle, target, loss, gradient, eta)
        if self.decay == "sqrt":
            return eta / math.sqrt(self.calls)
        if self.decay == "exponential":
            return float(eta * (1.0 / self.total_steps) ** (self.calls / self.total_steps))
        return eta

    @torch.no_grad()
    def _searched(
        self, oracle: TargetLoss, target: Tensor, loss: float, gradient: Tensor, eta: float
    ) -> float:
        eta = eta if math.isnan(self._eta) else EXPAND * self._eta
        slope = float(gradient.square().sum())
        for _ in range(TRIALS):
            told = oracle(target - eta * gradient)
            self.evaluations += 1
            if float(told[0] if isinstance(told, tuple) else told) <= loss - DECREASE * eta * slope:
                break
            eta *= BACKTRACK
        self._eta = eta
        return eta

    def _minimise(
        self,
        forward: Callable[[], Tensor],
        done: tuple[Tensor, Mapping[str, Any]],
        target: Tensor,
        gradient: Tensor,
        eta: float,
    ) -> None:
        if self.fresh:
            self._inner = self._new_inner()
        # The model's pass for the expensive gradient serves the first update, too; its random numbers are drawn.
        waiting, drawn = [done[0]], torch_random_states()
        set_random_states(done[1])

        def output() -> Tensor:
            if not waiting:
                return forward()
            set_random_states(drawn)
            return waiting.pop()

        def surrogate() -> Tensor:
            now = self.geometry.target(output())
            return (gradient * (now - target)).sum() + self.geometry.divergence(now, target) / eta

        def closure() -> Tensor:
            self._inner.zero_grad()
            with torch.enable_grad():
                value = surrogate()
                value.backward()
            return value

        for _ in range(self.inner_steps):
            if isinstance(self._inner, ArmijoSGD):
                self._inner.step(closure, surrogate)
            else:
                self._inner.step(closure)  # type: ignore[arg-type]
            self.updates += 1

"""The models behind a study: of the objective, of each constraint, of failing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor

from thalweg.blackbox.acquisition import Survival, survival
from thalweg.blackbox.choice import NOISY, Knowledge
from thalweg.blackbox.maximize import SAME
from thalweg.blackbox.parameters import Real
from thalweg.blackbox.space import Space
from thalweg.blackbox.suggestion import Worth, compile_kernels
from thalweg.blackbox.trial import Trial
from thalweg.core import InvalidParameter
from thalweg.numerics.gaussian_process import (
    Derivative,
    GaussianProcess,
    Matern,
    Posterior,
    Scaled,
    Stationary,
    standardised,
    with_gradients,
)
from thalweg.numerics.gaussian_process.compiled import MOST, CompiledSurrogate, is_plain
from thalweg.numerics.gaussian_process.surrogate import OfValues, Surrogate

#: A model that follows growing data, in torch or compiled.
Model: TypeAlias = Surrogate | CompiledSurrogate


def in_order(trials: Sequence[Trial]) -> list[Trial]:
    """Trials as they were told: a model that follows them only ever gets more at the end."""
    return sorted(trials, key=lambda t: t.told or 0)


def _apart(pending: Tensor, visited: Tensor) -> Tensor:
    """The pending points that are no visited ones and none before them, which would teach nothing more."""
    near = (pending[:, None] - torch.cat([visited, pending])).abs().amax(2) <= SAME
    before = torch.ones_like(near).tril(len(visited) - 1)
    return pending[~(near & before).any(1)]


@dataclass
class Models:
    """Gaussian processes that follow the trials of a study; all for maximisation.

    Args:
        space: whose coordinates they live in.
        process: of the objective.
        sign: -1 to minimise.
        constraints: how many.
        bayesian: average over hyper-parameters while there are few data.
        seed: of their starts.
    """

    space: Space
    process: GaussianProcess
    sign: float
    constraints: int = 0
    bayesian: bool = False
    seed: int = 0
    held: dict[str, Model] = field(default_factory=dict)

    def encoded(self, trials: Sequence[Trial]) -> Tensor:
        """Coordinates, shape (n, dimension)."""
        return torch.tensor([t.u for t in trials], dtype=torch.float64).reshape(-1, self.space.dimension)

    def objective(self, done: Sequence[Trial]) -> Model:
        """The model of the objective with all data in it.

        Raises:
            InvalidParameter: there are none.
        """
        if not done:
            raise InvalidParameter("The model has no data: tell the study a value first.")
        done = in_order(done)
        X = self.encoded(done)
        y = torch.tensor([self.sign * (t.value or 0.0) for t in done], dtype=torch.float64)
        noise = None
        if any(t.noise is not None for t in done):
            noise = torch.tensor([t.noise or 0.0 for t in done], dtype=torch.float64)
        if any(t.gradient for t in done):
            return self._with_slopes(X, y, noise, done)
        return self._updated("objective", self.process, X, y, noise)

    def feasibility(self, trials: Sequence[Trial]) -> list[tuple[Posterior, float]]:
        """Posteriors of the constraints, with the bounds they are to stay below."""
        done, models = in_order([t for t in trials if t.status == "done"]), []
        for i in range(self.constraints):
            y = torch.tensor([t.constraints[i] for t in done], dtype=torch.float64)
            model = self._updated(f"constraint {i}", GaussianProcess(Matern()), self.encoded(done), y)
            models.append((cast(Posterior, model.posterior), -model.offset / model.scale))
        return models

    def survival(self, trials: Sequence[Trial]) -> Survival | None:
        """What is known of failing; None where nothing has failed, or nothing has succeeded."""
        told = in_order([t for t in trials if t.status != "pending"])
        failed = torch.tensor([t.status == "failed" for t in told])
        if not len(told) or not bool(failed.any()) or bool(failed.all()):
            return None
        return survival(self.encoded(told), ~failed, self.seed)

    def knowledge(self, trials: Sequence[Trial], seed: int, batch: str) -> Knowledge:
        """All that an acquisition of the objective is made of."""
        done = [t for t in trials if t.status == "done"]
        model, visited = self.objective(done), self.encoded(done)
        counting = [i for i, t in enumerate(done) if t.feasible] or list(range(len(done)))
        if self.process.learn_noise or any(t.noise for t in done):
            best = float(self.marginal(model, visited[counting])[0].max())
        else:
            best = (max(self.sign * (done[i].value or 0.0) for i in counting) - model.offset) / model.scale
        noise = self._noise(model, done)
        pending = _apart(self.encoded([t for t in trials if t.status == "pending"]), visited)
        return Knowledge(model.posterior, best, visited, pending, noise, seed, batch)

    def worth(self, trials: Sequence[Trial], acquisition: str, batch: str) -> Worth | None:
        """The compiled acquisition of that name; None where something about it is not compiled.

        Compiled are ``"auto"``, beside pending points only with their joint improvement, and ``"logei"`` without any;
        for a model that is compiled, without constraints and failures.
        """
        if (
            self.constraints
            or acquisition not in ("auto", "logei")
            or any(t.status == "failed" for t in trials)
        ):
            return None
        held = [t for t in trials if t.status == "pending"]
        if held and (acquisition, batch) != ("auto", "joint"):
            return None
        model = self.objective([t for t in trials if t.status == "done"])
        if not isinstance(model, CompiledSurrogate):
            return None
        pending = _apart(self.encoded(held), torch.from_numpy(model.X)).numpy() if held else model.X[:0]
        best = float((model.fitted if self.process.learn_noise else model.standard).max())
        return Worth(model, pending, acquisition == "auto" and model.noise > NOISY, best, self.seed)

    def marginal(self, model: Model, X: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised mean and variance at points, shape (n,); over all models of a batch."""
        if isinstance(model, CompiledSurrogate):
            return model.predict(X)
        mean, variance = (v.reshape(-1, len(X)) for v in model.posterior.predict(X))
        return mean.mean(0), variance.mean(0) + (mean.var(0) if len(mean) > 1 else 0.0)

    def lengthscales(self, model: Model) -> Tensor:
        """Lengthscales of a stationary kernel of all coordinates, shape (dimension,); ones for another."""
        kernel, d = self.process.kernel, self.space.dimension
        base, first = (kernel.base, 1) if isinstance(kernel, Scaled) else (kernel, 0)
        if model.theta is None or not isinstance(base, Stationary) or base.dims is not None:
            return torch.ones(d, dtype=torch.float64)
        return torch.exp(model.theta[first : first + d])

    def state_dict(self) -> dict[str, object]:
        """The hyper-parameters of each."""
        return {name: model.state_dict() for name, model in self.held.items() if name != "slopes"}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`."""
        self.held = {}
        for name, saved in state.items():
            process = self.process if name == "objective" else GaussianProcess(Matern())
            self.held[name] = self._made(process, "metric" in saved)
            self.held[name].load_state_dict(saved)

    def _noise(self, model: Model, done: Sequence[Trial]) -> float:
        """Variance of an observation to come, standardised."""
        learned = self.process.learn_noise and model.theta is not None
        noise = float(torch.exp(model.theta[-1])) if learned and model.theta is not None else 0.0
        told = [t.noise for t in done if t.noise is not None]
        return noise + ((sum(told) / len(told) / model.scale) ** 2 if told else 0.0)

    def _updated(
        self, name: str, process: GaussianProcess, X: Tensor, y: Tensor, noise: Tensor | None = None
    ) -> Model:
        """The model with all data in it; compiled where it can be, and it goes on from one of the other kind."""
        plain = noise is None and not self.bayesian and len(y) <= MOST and is_plain(process)
        model = self.held.get(name)
        if model is None or isinstance(model, CompiledSurrogate) != plain:
            made = self._made(process, plain)
            if model is not None:
                made.load_state_dict({"metric": None, **model.state_dict(), "blocks": []})
            model = self.held[name] = made
        if isinstance(model, CompiledSurrogate):
            compile_kernels()
            model.update(X, y)
        else:
            model.update(X, y, noise)
        return model

    def _made(self, process: GaussianProcess, plain: bool) -> Model:
        return (
            CompiledSurrogate(process, self.seed) if plain else Surrogate(process, self.bayesian, self.seed)
        )

    def _with_slopes(self, X: Tensor, y: Tensor, noise: Tensor | None, done: Sequence[Trial]) -> Surrogate:
        """The model of values and gradients, in coordinates of the cube by the chain rule."""
        slopes = torch.full_like(X, torch.nan)
        for i, trial in enumerate(done):
            for j, (name, parameter) in enumerate(self.space.parameters.items()):
                if trial.gradient and name in trial.gradient and isinstance(parameter, Real):
                    width = parameter.high - parameter.low
                    if parameter.log:
                        width = trial.point[name] * math.log(parameter.high / parameter.low)
                    slopes[i, j] = self.sign * width * trial.gradient[name]
        kernel = self.process.kernel
        base = kernel.base if isinstance(kernel, Scaled) else kernel
        if not isinstance(base, Stationary):
            raise InvalidParameter(
                f"Gradients need a stationary kernel, e.g. Matern() or RBF(); got {kernel!r}."
            )
        process = GaussianProcess(Scaled(Derivative(base)), degree=-1, learn_noise=self.process.learn_noise)
        model = cast(Surrogate, self.held.setdefault("slopes", Surrogate(process, seed=self.seed)))
        standard, model.offset, model.scale = standardised(y)
        points, values = with_gradients(X, standard, slopes / model.scale)
        known = None
        if noise is not None:
            known = ((noise / model.scale) ** 2).repeat_interleave(1 + (~torch.isnan(slopes)).sum(1))
        held = model.posterior.inner if model.posterior is not None else None
        if held is not None and torch.equal(held.X, points) and torch.equal(held.y, values):
            return model  # nothing has come on top
        warm = model.theta
        fitted = process.fit(points, values, known, starts=4 if warm is None else 1, warm=warm)
        model.theta, model.posterior = fitted.theta, OfValues(fitted)
        return model

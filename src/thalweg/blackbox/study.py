"""Ask where to evaluate next, tell what came out.

Frazier (2018), "A tutorial on Bayesian optimization"; the whole of it behind two calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from thalweg.blackbox import acquisition as acq
from thalweg.blackbox.choice import ACQUISITIONS, Knowledge, acquisition_named
from thalweg.blackbox.extensions import Environment, Fidelity
from thalweg.blackbox.maximize import maximize
from thalweg.blackbox.space import Point, Real, Space
from thalweg.blackbox.surrogate import OfValues, Surrogate
from thalweg.blackbox.trust_region import TrustRegion
from thalweg.core import CheckpointMismatch, InvalidParameter, NotFinite
from thalweg.core.fingerprint import fingerprint
from thalweg.core.storage import load_tree, save_tree
from thalweg.core.validation import require
from thalweg.numerics.gaussian_process import (
    Derivative,
    GaussianProcess,
    Kernel,
    Matern,
    Scaled,
    with_gradients,
)

Status = Literal["pending", "done", "failed"]
BATCHES = ("joint", "believer", "liar", "penalisation")


@dataclass(frozen=True)
class Trial:
    """One evaluation: asked for, and told when it is known.

    Args:
        number: from 0, in the order asked.
        point: the parameters' values.
        status: ``"pending"``, ``"done"`` or ``"failed"``.
        value: what came out.
        noise: standard deviation of the value, where known.
        gradient: partial derivatives by name, where known.
        constraints: values that must be at most zero.
    """

    number: int
    point: Point
    status: Status = "pending"
    value: float | None = None
    noise: float | None = None
    gradient: Mapping[str, float] | None = None
    constraints: tuple[float, ...] = ()

    def __getitem__(self, name: str) -> Any:
        return self.point[name]

    @property
    def feasible(self) -> bool:
        """Whether it is done and no constraint is above zero."""
        return self.status == "done" and all(c <= 0 for c in self.constraints)


@dataclass(frozen=True)
class Recommendation:
    """The visited point with the best posterior mean, which noise cannot flatter.

    Args:
        point: where.
        mean, std: what the model says about the value there.
        number: of the trial.
    """

    point: Point
    mean: float
    std: float
    number: int


class Study:
    """A black box being optimised: the model, the data, and what to evaluate next.

    Args:
        space: a `Space`, or a dictionary of parameters.
        direction: ``"minimize"`` or ``"maximize"``.
        acquisition: ``"auto"`` (log expected improvement; its noisy form where there is noise; its joint form beside
            pending points), or a name of `ACQUISITIONS`. Which one when: see the guide.
        constraints: how many values must be at most zero, told with each evaluation.
        initial: evaluations spread over the space before the model is asked. Default 2 (d + 1).
        design: of those: ``"sobol"`` or ``"lhs"``.
        noise: ``"learn"`` (default), or ``"none"`` for an exact objective. Known standard deviations are told with
            the values.
        kernel: covariance function of the encoded space. The default is Matern 5/2 with a lengthscale each.
        bayesian: average over the model's parameters while there are few data, instead of taking the best.
        batch: how several points at once are chosen, and pending ones count: ``"joint"``, ``"believer"``,
            ``"liar"`` or ``"penalisation"``.
        trust_region: look near the best point only, in a box that grows and shrinks: for more than 20 parameters, or
            hundreds of evaluations.
        fidelity: a parameter that makes evaluations cheaper and worse.
        environment: conditions that the objective is a mean over.
        seed: makes the suggestions repeatable.

    Raises:
        InvalidParameter, UnknownName: options outside their range.

    Cost: a suggestion takes some tens of milliseconds at 100 evaluations, about 0.3 s at 500.

    >>> study = Study({"x": Real(-2.0, 2.0)}, noise="none")
    >>> for _ in range(15):
    ...     trial = study.ask()
    ...     study.tell(trial, (trial["x"] - 0.7) ** 2)
    >>> abs(study.recommend().point["x"] - 0.7) < 0.01
    True
    """

    def __init__(
        self,
        space: Space | Mapping[str, Any],
        direction: str = "minimize",
        *,
        acquisition: str = "auto",
        constraints: int = 0,
        initial: int | None = None,
        design: str = "sobol",
        noise: str = "learn",
        kernel: Kernel | None = None,
        bayesian: bool = False,
        batch: str = "joint",
        trust_region: bool = False,
        fidelity: Fidelity | None = None,
        environment: Environment | None = None,
        seed: int = 0,
    ) -> None:
        self.space = space if isinstance(space, Space) else Space(space)
        require(
            direction in ("minimize", "maximize"),
            "Study: direction is 'minimize' or 'maximize'",
            got=direction,
        )
        require(noise in ("learn", "none"), "Study: noise is 'learn' or 'none'", got=noise)
        require(batch in BATCHES, f"Study: batch is one of {', '.join(BATCHES)}", got=batch)
        require(constraints >= 0, "Study needs constraints >= 0", got=constraints)
        acquisition_named(acquisition)
        d = self.space.dimension
        self.direction, self.acquisition, self.batch, self.seed = direction, acquisition, batch, seed
        self.constraints = constraints
        self.initial = 2 * (d + 1) if initial is None else initial
        require(self.initial >= 1, "Study needs initial >= 1", got=self.initial)
        self.fidelity, self.environment = fidelity, environment
        for extension in (fidelity, environment):
            if extension is not None:
                extension.check(self.space)
        self._design = self.space.design(self.initial, seed, design)
        base = kernel or (fidelity.kernel(self.space) if fidelity else Scaled(Matern()))
        self._process = GaussianProcess(base, learn_noise=noise == "learn")
        self._bayesian = bayesian
        self.region = TrustRegion(d) if trust_region else None
        self.trials: list[Trial] = []
        self._models: dict[str, Surrogate] = {}
        self._coordinates: dict[int, list[float]] = {}

    # Asking and telling

    @overload
    def ask(self) -> Trial: ...
    @overload
    def ask(self, q: int) -> list[Trial]: ...
    def ask(self, q: int | None = None) -> Trial | list[Trial]:
        """The next point to evaluate, or a list of ``q`` that are worth most together.

        Points asked for and not told yet are pending: later ones keep clear of them, so any number of workers may ask.
        """
        require(q is None or q >= 1, "Study.ask needs q >= 1", got=q)
        trials = []
        for _ in range(q or 1):
            u = self._next()
            trial = Trial(len(self.trials), self.space.decode(u))
            self._coordinates[trial.number] = self.space.encode(trial.point)
            self.trials.append(trial)
            trials.append(trial)
        return trials if q is not None else trials[0]

    def tell(
        self,
        trial: Trial | Mapping[str, Any],
        value: float | None = None,
        *,
        noise: float | None = None,
        gradient: Mapping[str, float] | None = None,
        constraints: Sequence[float] = (),
        failed: bool = False,
    ) -> Trial:
        """Say what came out of a trial, or of a point of one's own.

        Args:
            trial: from `ask`, or a point that was evaluated anyway.
            value: the objective; leave it out with ``failed=True``.
            noise: its standard deviation, where known.
            gradient: derivatives by parameter, any of them; for real parameters.
            constraints: as many as the study has, each at most zero where feasible.
            failed: the evaluation crashed; such places are avoided.

        Raises:
            InvalidParameter: told twice, out of the space, another number of constraints.
            NotFinite: a value that is NaN or infinite; tell it as failed.
        """
        number = trial.number if isinstance(trial, Trial) else self._own_trial(trial)
        held = self.trials[number] if 0 <= number < len(self.trials) else None
        if held is None or (isinstance(trial, Trial) and held.point != trial.point):
            raise InvalidParameter(f"Trial {number} is not of this study.")
        if held.status != "pending":
            raise InvalidParameter(f"Trial {number} has been told already: {held.status}.")
        try:
            told = self._told(held, value, noise, gradient, constraints, failed)
        except Exception:
            if not isinstance(trial, Trial):  # a point of one's own that is refused leaves nothing behind
                self.trials.pop()
                self._coordinates.pop(number)
            raise
        self.trials[number] = told
        if self.region is not None and told.feasible and told.value is not None:
            self.region.see(self._sign * told.value, self.done)
        return told

    def _own_trial(self, point: Mapping[str, Any]) -> int:
        coordinates = self.space.encode(dict(point))
        number = len(self.trials)
        self.trials.append(Trial(number, dict(point)))
        self._coordinates[number] = coordinates
        return number

    def _told(
        self,
        held: Trial,
        value: float | None,
        noise: float | None,
        gradient: Mapping[str, float] | None,
        constraints: Sequence[float],
        failed: bool,
    ) -> Trial:
        if failed:
            return replace(held, status="failed")
        where = f"Trial {held.number}"
        if value is None or not math.isfinite(value):
            raise NotFinite(f"{where} has the value {value}. Tell what is no finite number with failed=True.")
        if noise is not None and not (math.isfinite(noise) and noise >= 0):
            raise InvalidParameter(f"{where}: noise is a standard deviation >= 0; got {noise}.")
        if len(constraints) != self.constraints or not all(map(math.isfinite, constraints)):
            raise InvalidParameter(
                f"{where}: the study has {self.constraints} constraints; got {list(constraints)}."
            )
        for name in gradient or {}:
            parameter = self.space.parameters.get(name)
            if not isinstance(parameter, Real) or not self.space.continuous:
                raise InvalidParameter(
                    f"{where}: gradients are for spaces of real parameters; {name!r} is none."
                )
        values = tuple(float(c) for c in constraints)
        return replace(
            held, status="done", value=float(value), noise=noise, gradient=gradient, constraints=values
        )

    # What is known

    @property
    def done(self) -> list[Trial]:
        """The trials with a value."""
        return [t for t in self.trials if t.status == "done"]

    @property
    def best(self) -> Trial | None:
        """The feasible trial with the best value told; noise flatters it: see `recommend`."""
        feasible = [t for t in self.trials if t.feasible]
        return max(feasible, key=lambda t: self._sign * (t.value or 0.0), default=None)

    def recommend(self) -> Recommendation:
        """The point to use: of those visited and feasible, the one with the best posterior mean.

        Raises:
            InvalidParameter: nothing has been told yet.
        """
        done = [t for t in self.trials if t.feasible] or self.done
        if not done:
            raise InvalidParameter("Nothing to recommend: no trial has a value yet.")
        X = self._encoded(done)
        if self.fidelity is not None:
            X = self.fidelity.at_truth(self.space, X)
        model = self._objective()
        if self.environment is not None:
            mean, variance = self.environment.integrated(self.space, model.posterior, X)
        else:
            mean, variance = self._marginal(model, X)
        best = int(mean.argmax())
        point = self.space.decode(X[best])
        for name in self.environment.names if self.environment is not None else ():
            point.pop(name)
        value = self._sign * float(model.to_values(mean[best]))
        return Recommendation(point, value, model.scale * float(variance[best]) ** 0.5, done[best].number)

    def predict(self, points: Sequence[Point]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        """Mean and standard deviation of the objective at points, shape (n,) each."""
        X = torch.tensor([self.space.encode(p) for p in points], dtype=torch.float64)
        model = self._objective()
        mean, variance = self._marginal(model, X)
        return (
            (self._sign * model.to_values(mean)).detach().numpy(),
            (model.scale * variance.sqrt()).detach().numpy(),
        )

    def expected_gain(self) -> float:
        """The largest expected improvement left, in units of the objective: stop when it is not worth a trial."""
        known = self._knowledge()
        _, values = maximize(acq.LogEI(known.posterior, known.best), self.space, near=known.visited[-8:])
        return self._objective().scale * math.exp(float(values[0]))

    @property
    def _sign(self) -> float:
        return -1.0 if self.direction == "minimize" else 1.0

    def _encoded(self, trials: Sequence[Trial]) -> Tensor:
        rows = [self._coordinates[t.number] for t in trials]
        return torch.tensor(rows, dtype=torch.float64).reshape(-1, self.space.dimension)

    def _objective(self) -> Surrogate:
        """The model of the objective with all data in it; of what is to be maximised."""
        done = self.done
        if not done:
            raise InvalidParameter("The model has no data: tell the study a value first.")
        X = self._encoded(done)
        y = torch.tensor([self._sign * (t.value or 0.0) for t in done], dtype=torch.float64)
        noise = None
        if any(t.noise is not None for t in done):
            noise = torch.tensor([(t.noise or 0.0) ** 2 for t in done], dtype=torch.float64)
        if any(t.gradient for t in done):
            return self._with_slopes(X, y, noise, done)
        return self._updated("objective", self._process, X, y, noise)

    def _with_slopes(self, X: Tensor, y: Tensor, noise: Tensor | None, done: list[Trial]) -> Surrogate:
        slopes = torch.full_like(X, torch.nan)
        for i, trial in enumerate(done):
            for j, (name, parameter) in enumerate(self.space.parameters.items()):
                if trial.gradient and name in trial.gradient and isinstance(parameter, Real):
                    x, width = trial.point[name], parameter.high - parameter.low
                    chain = x * math.log(parameter.high / parameter.low) if parameter.log else width
                    slopes[i, j] = self._sign * chain * trial.gradient[name]
        offset, scale = float(y.mean()), max(float(y.std()) if len(y) > 1 else 1.0, 1e-12)
        points, values = with_gradients(X, (y - offset) / scale, slopes / scale)
        base = self._process.kernel.base if isinstance(self._process.kernel, Scaled) else None
        require(base is not None, "gradients need a kernel of the form Scaled(Matern()) or Scaled(RBF())")
        process = GaussianProcess(Scaled(Derivative(base)), degree=-1, learn_noise=self._process.learn_noise)  # type: ignore[arg-type]
        known = None
        if noise is not None:
            known = (noise / scale**2).repeat_interleave(1 + (~torch.isnan(slopes)).sum(1))
        model = self._models.setdefault("slopes", Surrogate(process, seed=self.seed))
        warm = model.theta
        fitted = process.fit(points, values, known, starts=1 if warm is not None else 4, warm=warm)
        model.theta, model.posterior = fitted.theta, OfValues(fitted)
        model.offset, model.scale = offset, scale
        return model

    def _updated(
        self, name: str, process: GaussianProcess, X: Tensor, y: Tensor, noise: Tensor | None = None
    ) -> Surrogate:
        model = self._models.setdefault(name, Surrogate(process, self._bayesian, self.seed))
        model.update(X, y, noise)
        return model

    def _marginal(self, model: Surrogate, X: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = (v.reshape(-1, len(X)) for v in model.posterior.predict(X))
        return mean.mean(0), variance.mean(0) + (mean.var(0) if len(mean) > 1 else 0.0)

    def _feasibility(self) -> list[tuple[Any, float]]:
        """Models of the constraints, and of crashing, with the bounds they are to stay below."""
        done, models = self.done, []
        for i in range(self.constraints):
            y = torch.tensor([t.constraints[i] for t in done], dtype=torch.float64)
            model = self._updated(f"constraint {i}", GaussianProcess(), self._encoded(done), y)
            models.append((model.posterior, -model.offset / model.scale))
        told = [t for t in self.trials if t.status != "pending"]
        if any(t.status == "failed" for t in told):
            y = torch.tensor([float(t.status == "failed") for t in told], dtype=torch.float64)
            model = self._updated("crashes", GaussianProcess(), self._encoded(told), y)
            models.append((model.posterior, (0.5 - model.offset) / model.scale))
        return models

    def _knowledge(self) -> Knowledge:
        model, done = self._objective(), self.done
        visited = self._encoded(done)
        counting = [i for i, t in enumerate(done) if t.feasible] or list(range(len(done)))
        mean, _ = self._marginal(model, visited[counting])
        best = float(mean.max())
        if not self._process.learn_noise and not any(t.noise for t in done):
            values = torch.tensor([self._sign * (done[i].value or 0.0) for i in counting])
            best = float((values.max() - model.offset) / model.scale)
        noise = (
            float(torch.exp(model.theta[-1]))
            if self._process.learn_noise and model.theta is not None
            else 0.0
        )
        told = [t.noise for t in done if t.noise is not None]
        noise += (sum(told) / len(told) / model.scale) ** 2 if told else 0.0
        pending = self._encoded([t for t in self.trials if t.status == "pending"])
        seed = self.seed + len(self.trials)
        return Knowledge(model.posterior, best, visited, pending, noise, seed, self.batch)

    def _next(self) -> Tensor:
        """Coordinates of the next point."""
        if len(self.trials) < self.initial:
            return self._design[len(self.trials)]
        if not self.done:  # all failed so far: go on spreading
            return self.space.design(1, self.seed + len(self.trials))[0]
        known = self._knowledge()
        base = self._base(known)
        models = self._feasibility()
        if models:
            feasible = any(t.feasible for t in self.trials)
            base = acq.Constrained(base if feasible else None, models)
        mean, _ = self._marginal(self._models_objective(), known.visited)
        near = known.visited[mean.topk(min(8, len(mean))).indices]
        box = None
        if self.region is not None:
            box = self.region.box(near[0], self._lengthscales())
            near = near[((near >= box[0]) & (near <= box[1])).all(1)]
        points, _ = maximize(base, self.space, near=near, box=box, seed=known.seed)
        return self._fresh(points, known)

    def _models_objective(self) -> Surrogate:
        return self._models["slopes"] if "slopes" in self._models else self._models["objective"]

    def _base(self, known: Knowledge) -> acq.Acquisition:
        if self.fidelity is not None:
            return self.fidelity.acquisition(self.space, known)
        if self.environment is not None:
            return self.environment.acquisition(self.space, known)
        return acquisition_named(self.acquisition)(known)

    def _lengthscales(self) -> Tensor:
        """Lengthscales of the default kernel, shape (dimension,); equal ones for another."""
        theta, d = self._models_objective().theta, self.space.dimension
        kernel = self._process.kernel
        if theta is None or not (isinstance(kernel, Scaled) and isinstance(kernel.base, Matern)):
            return torch.ones(d, dtype=torch.float64)
        return torch.exp(theta[1 : 1 + d])

    def _fresh(self, points: Tensor, known: Knowledge) -> Tensor:
        """The best point that is not visited or pending; any, when noise makes it worth to look again."""
        if known.noisy:
            return points[0]
        seen = torch.cat([known.visited, known.pending])
        for point in points:
            if float((seen - point).abs().amax(1).min()) > 1e-7:
                return point
        spare = self.space.design(64, known.seed)
        far = torch.cdist(spare, seen).amin(1)
        return spare[far.argmax()]

    # Keeping

    def state_dict(self) -> dict[str, Any]:
        """All trials and the model's parameters, as plain data."""
        trials = [{**vars(t), "gradient": dict(t.gradient) if t.gradient else None} for t in self.trials]
        models = {name: model.state_dict() for name, model in self._models.items()}
        region = self.region.state_dict() if self.region is not None else None
        return {
            "space": fingerprint(self.space.parameters),
            "trials": trials,
            "models": models,
            "region": region,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`; `CheckpointMismatch` if it is of another space."""
        if state["space"] != fingerprint(self.space.parameters):
            raise CheckpointMismatch(
                "The saved study has another space. Make this one with the same parameters."
            )
        self.trials = [Trial(**{**t, "constraints": tuple(t["constraints"])}) for t in state["trials"]]
        self._coordinates = {t.number: self.space.encode(t.point) for t in self.trials}
        self._models = {}
        for name, saved in state["models"].items():
            process = self._process if name == "objective" else GaussianProcess()
            if name != "slopes":
                self._models[name] = Surrogate(process, self._bayesian, self.seed)
                self._models[name].load_state_dict(saved)
        if self.region is not None and state["region"] is not None:
            self.region.load_state_dict(state["region"])

    def save(self, path: str | Path) -> None:
        """Write the study to one file, atomically; `load` it into one made in the same way."""
        save_tree(path, self.state_dict())

    def load(self, path: str | Path) -> None:
        """Go on from what `save` wrote; pending trials are pending still."""
        self.load_state_dict(load_tree(path))

    def forget_pending(self) -> int:
        """Count trials that were asked for and never told as failed, say after a crash; returns how many."""
        lost = [t for t in self.trials if t.status == "pending"]
        for trial in lost:
            self.tell(trial, failed=True)
        return len(lost)


__all__ = ["ACQUISITIONS", "Recommendation", "Study", "Trial"]

"""Ask where to evaluate next, tell what came out.

Frazier (2018), "A tutorial on Bayesian optimization"; the whole of it behind two calls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.blackbox import acquisition as acq
from thalweg.blackbox.choice import Knowledge, acquisition_named
from thalweg.blackbox.extensions import Environment, Fidelity
from thalweg.blackbox.figures import figures
from thalweg.blackbox.guard import Guard, guarded
from thalweg.blackbox.keeping import check_parameters, check_parts, check_settings, marks
from thalweg.blackbox.maximize import maximize, unseen
from thalweg.blackbox.models import Models, in_order
from thalweg.blackbox.parameters import Parameter, Point
from thalweg.blackbox.space import Space
from thalweg.blackbox.suggestion import Worth
from thalweg.blackbox.telling import checked_outcome
from thalweg.blackbox.trial import Recommendation, Trial
from thalweg.blackbox.trust_region import TrustRegion
from thalweg.core import CheckpointMismatch, InvalidParameter, UnreadableFile
from thalweg.core.figure import Figure
from thalweg.core.fingerprint import fingerprint
from thalweg.core.tree import load_tree, save_tree
from thalweg.core.validation import is_whole, require
from thalweg.numerics.gaussian_process import GaussianProcess, Kernel, Matern
from thalweg.numerics.gaussian_process.surrogate import Belief

BATCHES = ("joint", "believer", "liar", "penalisation")


class Study:
    """A black box being optimised: the model, the data, and what to evaluate next.

    Args:
        space: a `Space`, or a dictionary of parameters.
        direction: ``"minimize"`` or ``"maximize"``.
        acquisition: ``"auto"`` (log expected improvement; its noisy form where there is noise; its joint form beside
            pending points), or a name of `ACQUISITIONS`. Which one when: see the guide.
        constraints: how many values must be at most zero, told with each evaluation.
        initial: evaluations spread over the space before the model is asked. Default 2 (d + 1), d parameters.
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

    Any number of threads may ask and tell one study; each call has it for itself while it lasts.

    Raises:
        InvalidParameter, UnknownName: options outside their range.

    Cost: a suggestion takes about 1 ms at 20 evaluations, 4 at 100, some ten at 500; tens of milliseconds where the
    model is not compiled (see the guide). The first one on a machine compiles for some twenty seconds, and says so.

    >>> from thalweg.blackbox import Study
    >>> from thalweg.blackbox import Real
    >>> study = Study({"x": Real(-2.0, 2.0)}, noise="none")
    >>> for _ in range(15):
    ...     trial = study.ask()
    ...     trial = study.tell(trial, (trial["x"] - 0.7) ** 2)
    >>> abs(study.recommend().point["x"] - 0.7) < 0.01
    True
    """

    def __init__(
        self,
        space: Space | Mapping[str, Parameter],
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
        require(
            direction in ("minimize", "maximize"),
            "Study: direction is 'minimize' or 'maximize'",
            got=direction,
        )
        require(noise in ("learn", "none"), "Study: noise is 'learn' or 'none'", got=noise)
        require(batch in BATCHES, f"Study: batch is one of {', '.join(BATCHES)}", got=batch)
        require(constraints >= 0, "Study needs constraints >= 0", got=constraints)
        acquisition_named(acquisition)
        self.direction, self.acquisition, self.batch, self.seed = direction, acquisition, batch, seed
        self.constraints = constraints
        self.noise, self.kernel, self.bayesian, self.design = noise, kernel, bayesian, design
        self.fidelity, self.environment = fidelity, environment
        self.guard = Guard()
        given = space if isinstance(space, Space) else Space(space)
        self.initial = 2 * (len(given.parameters) + 1) if initial is None else initial
        require(self.initial >= 1, "Study needs initial >= 1", got=self.initial)
        for extension in (fidelity, environment):
            if extension is not None:
                extension.check(given)
        self._arrange(given)
        self.region = TrustRegion(given.dimension) if trust_region else None
        self.trials: list[Trial] = []
        #: What evaluates the trials, where that is a command of the shell; kept with them.
        self.command = ""

    def _arrange(self, space: Space) -> None:
        """Take the space with its parameters in this order: all that lives in its coordinates is made anew."""
        self.space = space
        self._design = space.design(self.initial, self.seed, self.design)
        kernel = self.kernel or (self.fidelity.kernel(space) if self.fidelity else Matern())
        process = GaussianProcess(kernel, learn_noise=self.noise == "learn")
        self._models = Models(space, process, self._sign, self.constraints, self.bayesian, self.seed)

    # Asking and telling

    @overload
    def ask(self) -> Trial: ...
    @overload
    def ask(self, q: int) -> list[Trial]: ...
    def ask(self, q: int | None = None) -> Trial | list[Trial]:
        """The next point to evaluate, or a list of ``q`` that are worth most together.

        Points asked for and not told yet are pending: later ones keep clear of them, so any number of workers may ask.
        """
        require(q is None or (is_whole(q) and q >= 1), "Study.ask needs q >= 1, a whole number", got=q)
        with self.guard:
            trials = [
                self.expect(self.space.decode(self._next())) for _ in range(q or 1)
            ]  # each sees those before
        return trials if q is not None else trials[0]

    @guarded
    def expect(self, point: Mapping[str, object]) -> Trial:
        """Note that a point of one's own is being evaluated: suggestions keep clear of it until it is told."""
        trial = self._trial(dict(point))
        self.trials.append(trial)
        return trial

    @guarded
    def tell(
        self,
        trial: Trial | Mapping[str, object],
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
            InvalidParameter: told twice, out of the space, another number of constraints, beyond 1e300, no number, a
                truth value for a constraint.
            NotFinite: a value that is NaN or infinite; tell it as failed.
        """
        if isinstance(trial, Trial):
            held = self.trials[trial.number] if trial.number < len(self.trials) else None
            if held is None or held.point != trial.point:
                raise InvalidParameter(f"Trial {trial.number} is not of this study.")
            if held.status != "pending":
                raise InvalidParameter(f"Trial {held.number} has been told already: {held.status}.")
        else:
            require(isinstance(trial, Mapping), "Study.tell takes a trial, or a point, first", got=trial)
            held = self._trial(dict(trial))
        require(isinstance(failed, bool | np.bool_), "Study.tell needs failed=True or False", got=failed)
        order = sum(t.status != "pending" for t in self.trials)
        if failed:
            told = replace(held, status="failed", told=order)
        else:
            found = checked_outcome(
                held.number, self.space, self.constraints, value, noise, gradient, constraints
            )
            told = replace(held, status="done", told=order, **vars(found))
        # in the place of a pending one, or behind the last
        self.trials[told.number : told.number + 1] = [told]
        if self.region is not None and told.feasible and told.value is not None:
            self.region.see(self._sign * told.value)
        return told

    def _trial(self, point: Point) -> Trial:
        return Trial(len(self.trials), point, u=tuple(self.space.encode(point)))

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

    @guarded
    def recommend(self) -> Recommendation:
        """The point to use: of those visited and feasible, the one with the best posterior mean.

        Raises:
            InvalidParameter: nothing has been told yet.
        """
        done = [t for t in self.trials if t.feasible] or self.done
        if not done:
            raise InvalidParameter("Nothing to recommend: no trial has a value yet.")
        X, model = self._models.encoded(done), self._models.objective(self.done)
        if self.fidelity is not None:
            X = self.fidelity.at_truth(self.space, X)
        if self.environment is not None:
            mean, variance = self.environment.integrated(self.space, model.posterior, X)
        else:
            mean, variance = self._models.marginal(model, X)
        best = int(mean.argmax())
        point = dict(done[best].point)  # as it was evaluated: coordinates are rounded
        if self.fidelity is not None:
            point[self.fidelity.name] = self.fidelity.truth(self.space)
        for name in self.environment.names if self.environment is not None else ():
            point.pop(name)
        value = self._sign * float(model.to_values(mean[best]))
        return Recommendation(point, value, model.scale * float(variance[best]) ** 0.5, done[best].number)

    @guarded
    def predict(self, points: Sequence[Point]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of the objective at points, shape (n,) each."""
        X = torch.tensor([self.space.encode(p) for p in points], dtype=torch.float64)
        model = self._models.objective(self.done)
        with torch.no_grad():
            mean, variance = self._models.marginal(model, X)
        return (self._sign * model.to_values(mean)).numpy(), (model.scale * variance.sqrt()).numpy()

    @guarded
    def expected_gain(self) -> float:
        """The largest expected improvement left, in units of the objective: stop when it is not worth a trial."""
        known = self.knowledge()
        scale = self._models.objective(self.done).scale
        _, values = maximize(acq.LogEI(known.posterior, known.best), self.space, near=known.visited[-8:])
        return scale * math.exp(float(values[0]))

    @guarded
    def plot(self) -> list[Figure]:
        """Course, slices of the model, importance, the best trials and calibration, as plain data.

        ``thalweg.workbench.render_figures(study.plot(), "page.html", "title")`` makes a page of them.
        """
        return figures(self)

    @property
    def _sign(self) -> float:
        return -1.0 if self.direction == "minimize" else 1.0

    @property
    @guarded
    def posterior(self) -> Belief:
        """What is believed of the objective, standardised and to be maximised, in the unit cube."""
        return self._models.objective(self.done).posterior

    @guarded
    def knowledge(self) -> Knowledge:
        """What the next acquisition is made of."""
        return self._models.knowledge(self.trials, self.seed + len(self.trials), self.batch)

    def _next(self) -> Tensor:
        """Coordinates of the next point."""
        if len(self.trials) < self.initial:
            return self._design[len(self.trials)]
        if not self.done:  # all failed so far: go on spreading
            return self.space.design(1, self.seed + len(self.trials))[0]
        seed = self.seed + len(self.trials)
        score: Worth | acq.Acquisition | None = None
        if self.fidelity is None and self.environment is None:
            score = self._models.worth(self.trials, self.acquisition, self.batch)
        if isinstance(score, Worth):
            noisy, visited, pending = score.noisy, torch.from_numpy(score.model.X), score.pending
            mean = torch.from_numpy(score.model.fitted)
        else:
            known = self.knowledge()
            score = self._torch_score(known)
            noisy, visited, pending = known.noisy, known.visited, known.pending
            mean, _ = self._models.marginal(self._models.objective(self.done), visited)
        near, box = visited[mean.topk(min(8, len(mean))).indices], None
        if self.region is not None:
            box = self.region.box(near[0], self._models.lengthscales(self._models.objective(self.done)))
            near = near[((near >= box[0]) & (near <= box[1])).all(1)]
        points, _ = maximize(score, self.space, near=near, box=box, seed=seed)
        # to look again at a visited point is worth something with noise only
        return unseen(points, pending if noisy else torch.cat([visited, pending]), self.space, seed)

    def _torch_score(self, known: Knowledge) -> acq.Acquisition:
        base = self._base(known)
        models, survival = self._models.feasibility(self.trials), self._models.survival(self.trials)
        if not models and survival is None:
            return base
        feasible = any(t.feasible for t in self.trials)
        asked = in_order([t for t in self.trials[self.initial :] if t.status != "pending"])
        least = acq.least_chance([t.status == "failed" for t in asked])
        return acq.Constrained(base if feasible else None, models, survival, least)

    def _base(self, known: Knowledge) -> acq.Acquisition:
        if self.fidelity is not None:
            return self.fidelity.acquisition(self.space, known)
        if self.environment is not None:
            return self.environment.acquisition(self.space, known)
        return acquisition_named(self.acquisition)(known)

    # Keeping

    @guarded
    def state_dict(self) -> dict[str, object]:
        """All trials and the model's parameters, as plain data."""
        trials = [{**vars(t), "gradient": dict(t.gradient) if t.gradient else None} for t in self.trials]
        return {
            "settings": self._settings(),
            "parameters": marks(self.space.parameters),
            "trials": trials,
            "command": self.command,
            "models": self._models.state_dict(),
            "region": self.region.state_dict() if self.region is not None else None,
        }

    def _settings(self) -> dict[str, object]:
        """What the trials and the models depend on besides the parameters."""
        return {
            "direction": self.direction,
            "noise": self.noise,
            "constraints": self.constraints,
            "bayesian": self.bayesian,
            "kernel": None if self.kernel is None else f"one of content {fingerprint(self.kernel)[:12]}",
            "order": None
            if self.kernel is None
            else tuple(self.space.parameters),  # which its dims are about
            "fidelity": None if self.fidelity is None else self.fidelity.name,
            "environment": None if self.environment is None else self.environment.names,
        }

    @guarded
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`.

        The order of the parameters is no setting: this study takes that of the saved one. Acquisition, batch, design
        and seed may be others.

        Raises:
            CheckpointMismatch: other parameters, or another direction, noise, kernel, number of constraints, bayesian,
                fidelity or environment; names what differs.
            UnreadableFile: the state of something else.
        """
        kept = check_parts(state)
        check_parameters(kept["parameters"], marks(self.space.parameters))
        check_settings(kept["settings"], self._settings())
        names, own = list(kept["parameters"]), self.space.parameters
        if names != list(own):
            self._arrange(replace(self.space, parameters={name: own[name] for name in names}))
        self.trials = [Trial(**t) for t in kept["trials"]]
        self.command = kept.get("command", "")
        self._models.load_state_dict(kept["models"])
        if self.region is None:
            return
        if kept["region"] is not None:
            self.region.load_state_dict(kept["region"])
        else:
            for trial in in_order([t for t in self.trials if t.feasible]):
                self.region.see(self._sign * (trial.value or 0.0))

    def save(self, path: str | Path) -> None:
        """Write the study to one file, atomically; `load` it into one made with the same settings."""
        save_tree(path, self.state_dict())

    def load(self, path: str | Path) -> None:
        """Go on from what `save` wrote, as `load_state_dict` does; pending trials are pending still."""
        try:
            self.load_state_dict(load_tree(path))
        except (CheckpointMismatch, UnreadableFile) as error:
            raise type(error)(f"{path}: {error}") from None

    @guarded
    def forget_pending(self) -> int:
        """Count trials that were asked for and never told as failed, say after a crash; returns how many."""
        lost = [t for t in self.trials if t.status == "pending"]
        for trial in lost:
            self.tell(trial, failed=True)
        return len(lost)

"""What samplers of inverse problems share: denoise, meet the data, add noise again, from the noisiest time to none."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from thalweg.core import InvalidParameter, InvalidProblem, Method, NotFinite, Result, State, Status, solve
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import is_real, is_whole, require
from thalweg.inverse.denoisers import Denoiser, as_channels, noise_in, schedule_of
from thalweg.inverse.familiarity import told
from thalweg.inverse.operators.base import Operator
from thalweg.inverse.problem import InverseProblem, repeated
from thalweg.inverse.schedules import Schedule


class Levels(NamedTuple):
    """One step: its time, signal and noise there, and those of the next time."""

    t: int
    signal: float
    noise: float
    next_signal: float
    next_noise: float


@dataclass(kw_only=True)
class DiffusionState(State):
    """``x`` is the estimate that meets the data, in the form that y has; ``noisy`` what goes on."""

    noisy: Tensor  # (batch, *image)
    seeds: tuple[int, ...]  # of each image
    done: int = 0


@dataclass(frozen=True, eq=False)
class PosteriorSamples:
    """Several samples for each y.

    Args:
        samples: shape (samples, ...), as the problem's answers.
        mean: of the samples.
        deviation: of the samples at each pixel: how much the data and the prior leave open. For complex images, of
            both parts together.
    """

    samples: Tensor
    mean: Tensor
    deviation: Tensor


@dataclass(frozen=True, eq=False)
class Diffusion(Method[InverseProblem, DiffusionState]):
    """Base of samplers. A method says in `consistent` how an estimate is made to meet the data.

    Where the denoiser knows its ``usual_error``, as the shipped one does, the result's message says which images are
    unlike those that it has learned; that is one evaluation more.

    Args:
        denoiser: ``eps(x, t)`` of real images (batch, channels, height, width), whole times (batch,).
        operator: for `solve` and `posterior`; `thalweg.solve` takes the problem's.
        steps: evaluations of the denoiser.
        eta: share of new noise in the noise that is added again, in [0, 1]: ``eta z + sqrt(1 - eta^2) eps``. It mixes,
            and is not the eta of DDIM.
        schedule: default the denoiser's own, else the linear one of 1 000 times.
        seeds: one integer for each image. Default: made of the run's seed and the image's place. An image is the same
            to rounding with the same seed in any batch.

    Raises:
        InvalidParameter: eta or steps out of range, more steps than the schedule has times, not a seed an image.
        InvalidProblem: another operator than the problem's; a denoiser of other channels or a shorter schedule.
    """

    denoiser: Denoiser = field(repr=False)
    operator: Operator | None = field(default=None, repr=False)
    steps: int = 50
    eta: float = 0.85
    schedule: Schedule | None = None
    seeds: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        name = type(self).__name__
        require(callable(self.denoiser), f"{name} needs a denoiser eps(x, t)", got=self.denoiser)
        require(is_whole(self.steps) and self.steps >= 1, f"{name} needs steps >= 1", got=self.steps)
        require(is_real(self.eta) and 0 <= self.eta <= 1, f"{name} needs 0 <= eta <= 1", got=self.eta)
        self.levels.times(self.steps)

    @property
    def levels(self) -> Schedule:
        """The schedule that is used."""
        return schedule_of(self.denoiser, self.schedule)

    @abstractmethod
    def consistent(
        self, problem: InverseProblem, state: DiffusionState, x0: Tensor, now: Levels
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The denoised batch ``x0`` made to meet the data, and the state's own fields to be replaced."""

    def init(self, problem: InverseProblem, seed: int) -> DiffusionState:
        name = type(self).__name__
        if self.operator is not None and self.operator is not problem.operator:
            raise InvalidProblem(f"{name} has another operator than the problem; leave one of them out.")
        x = problem.start()
        count = len(x)
        if self.seeds is None:
            seeds = tuple(int(torch_generator(seed, i).initial_seed()) for i in range(count))
        else:
            seeds = tuple(self.seeds)
        whole = len(seeds) == count and all(is_whole(s) and s >= 0 for s in seeds)
        require(whole, f"{name} needs a seed >= 0 for each of {count} images", got=seeds)
        first = self.levels.levels(self.levels.times(self.steps)[0])
        noisy = first[1] * self.drawn(x, seeds, 0)
        return self._state(x=problem.answer(x), noisy=noisy, seeds=seeds)

    def _state(self, x: Tensor, noisy: Tensor, seeds: tuple[int, ...]) -> DiffusionState:
        return DiffusionState(x=x, noisy=noisy, seeds=seeds)

    def step(self, problem: InverseProblem, state: DiffusionState) -> DiffusionState:
        now = self.now(state.done)
        with torch.no_grad():
            eps = noise_in(self.denoiser, state.noisy, now.t, problem.operator)
            x0 = (state.noisy - now.noise * eps) / now.signal
            x0, kept = self.consistent(problem, state, x0, now)
            noisy = self.renoised(problem, state, x0, eps, now)
        return self.advanced(problem, state, x0, noisy, kept)

    def renoised(
        self, problem: InverseProblem, state: DiffusionState, x0: Tensor, eps: Tensor, now: Levels
    ) -> Tensor:
        """What goes on from the consistent ``x0``."""
        if now.next_noise == 0:
            return now.next_signal * x0
        z = self.drawn(x0, state.seeds, state.done + 1)
        return now.next_signal * x0 + now.next_noise * (self.eta * z + math.sqrt(1 - self.eta**2) * eps)

    def now(self, done: int) -> Levels:
        """Times and levels of a step."""
        times = (*self.levels.times(self.steps), -1)
        return Levels(times[done], *self.levels.levels(times[done]), *self.levels.levels(times[done + 1]))

    def advanced(
        self,
        problem: InverseProblem,
        state: DiffusionState,
        x0: Tensor,
        noisy: Tensor,
        kept: dict[str, Tensor],
    ) -> DiffusionState:
        """The state after a step, with its end where it was the last."""
        residual = problem.residual(x0)
        if not math.isfinite(residual):
            raise NotFinite(f"The image is not finite after step {state.done + 1}.")
        state = dataclasses.replace(
            state,
            x=problem.answer(x0),
            noisy=noisy,
            done=state.done + 1,
            calls=state.calls + 1,
            metrics={"residual": residual},
        )
        for name, value in kept.items():
            setattr(state, name, value)
        if state.done >= self.steps:
            fits = problem.fits(residual)
            state.status = Status.CONVERGED if fits else Status.STALLED
            ending = (
                f"{self.steps} steps done."
                if fits
                else (
                    f"After {self.steps} steps the data are not met: the residual is {residual:.3g}, the noise's "
                    f"{problem.level:.3g}. Take more steps, or more steps of data consistency."
                )
            )
            kind = told(self.denoiser, as_channels(x0, problem.operator))
            state.message = f"{ending} {kind}".strip()
        return state

    def drawn(self, like: Tensor, seeds: tuple[int, ...], step: int) -> Tensor:
        """Normal numbers of a batch, each image's from its own seed; complex ones have variance one in each part."""
        shape = (*like.shape[1:], 2) if like.is_complex() else like.shape[1:]
        rows = [
            torch.randn(shape, generator=torch_generator(seed, 0x34, step), dtype=torch.float64)
            for seed in seeds
        ]
        z = torch.stack(rows)
        return (torch.view_as_complex(z) if like.is_complex() else z).to(like.device, like.dtype)

    def solve(
        self,
        y: ArrayLike | Tensor,
        sigma: float = 0.0,
        *,
        truth: ArrayLike | Tensor | None = None,
        seed: int = 0,
        **options: Any,  # noqa: ANN401 -- passed on to thalweg.solve
    ) -> Result[Tensor]:
        """`thalweg.solve` of ``InverseProblem(self.operator, y, sigma, truth)`` by this method.

        Raises:
            InvalidParameter: there is no operator.
        """
        if self.operator is None:
            raise InvalidParameter(
                f"{type(self).__name__}.solve needs an operator: {type(self).__name__}(denoiser, A)."
            )
        problem = InverseProblem(self.operator, y, sigma, truth)
        return solve(problem, self, seed=seed, **options)

    def posterior(
        self, y: ArrayLike | Tensor, sigma: float = 0.0, *, samples: int = 8, seed: int = 0
    ) -> PosteriorSamples:
        """Several samples for one y or for each of a batch, their mean and their spread.

        Cost: as many runs as samples, in one batch.
        """
        require(is_whole(samples) and samples >= 2, "posterior needs samples >= 2", got=samples)
        require(
            self.seeds is None, "posterior makes the seeds of its samples; leave seeds out", got=self.seeds
        )
        copies = repeated(y, samples)
        if self.operator is not None and copies.ndim == len(self.operator.data_shape) + 2:
            found = self.solve(copies.flatten(0, 1), sigma, seed=seed, progress=False).x
            found = found.reshape(*copies.shape[:2], *found.shape[1:])
        else:
            found = self.solve(copies, sigma, seed=seed, progress=False).x
        spread = (found - found.mean(0)).abs().square().sum(0) / (samples - 1)
        return PosteriorSamples(found, found.mean(0), spread.sqrt())

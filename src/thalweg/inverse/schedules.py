"""How much signal and how much noise a diffusion has at each time: ``x_t = signal_t x_0 + noise_t z``.

Ho, Jain and Abbeel (2020), "Denoising diffusion probabilistic models"; Nichol and Dhariwal (2021) for the cosine; Song
et al. (2021), "Score-based generative modeling", for the exploding variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.core.validation import as_real, check_finite, is_whole, require

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Schedule:
    """Levels of signal and noise at the times 0, 1, ..., T - 1 that a denoiser was trained for.

    Args:
        signal: shape (T,), in (0, 1]: ``sqrt(abar)`` where the variance is preserved, ones where it explodes.
        noise: shape (T,), positive and rising.

    Make one by `linear`, `quad`, `cosine`, `sigmoid` (variance preserved), `exploding`, or `from_diffusers`.

    Raises:
        InvalidProblem: shapes that differ, levels out of range, noise that does not rise.

    >>> schedule = Schedule.linear()
    >>> schedule.length, round(float(schedule.signal[-1]), 4), schedule.times(4)
    (1000, 0.0064, (750, 500, 250, 0))
    """

    signal: ArrayLike
    noise: ArrayLike

    def __post_init__(self) -> None:
        signal, noise = as_real("Schedule: signal", self.signal), as_real("Schedule: noise", self.noise)
        if signal.ndim != 1 or signal.shape != noise.shape or not signal.size:
            raise InvalidProblem(
                f"Schedule: signal has shape {signal.shape} and noise {noise.shape}; expected two of (T,), T >= 1."
            )
        check_finite("Schedule: signal", signal)
        check_finite("Schedule: noise", noise)
        fits = (
            signal.min() > 0 and signal.max() <= 1 and noise.min() > 0 and bool((np.diff(noise) >= 0).all())
        )
        require(
            fits, "Schedule needs 0 < signal <= 1 and a noise > 0 that does not fall", error=InvalidProblem
        )
        object.__setattr__(self, "signal", signal)
        object.__setattr__(self, "noise", noise)

    @property
    def length(self) -> int:
        """T."""
        return int(np.size(self.signal))

    @property
    def explodes(self) -> bool:
        """Whether the signal is kept and the noise's variance grows."""
        return bool(np.min(self.signal) == 1.0)

    def times(self, steps: int) -> tuple[int, ...]:
        """``steps`` times from the noisiest to 0, evenly spread: ``floor(i T / steps)`` downwards.

        Raises:
            InvalidParameter: more steps than times.
        """
        require(is_whole(steps) and steps >= 1, "A schedule needs steps >= 1", got=steps)
        if steps > self.length:
            raise InvalidParameter(
                f"{steps} steps were asked for and the denoiser's schedule has {self.length} times; take fewer."
            )
        return tuple(i * self.length // steps for i in reversed(range(steps)))

    def levels(self, t: int) -> tuple[float, float]:
        """Signal and noise at a time; (1, 0) at -1, after the last step."""
        if t < 0:
            return 1.0, 0.0
        return float(np.asarray(self.signal)[t]), float(np.asarray(self.noise)[t])

    @classmethod
    def of_betas(cls, betas: ArrayLike) -> Schedule:
        """Variance preserved: ``abar`` is the cumulative product of ``1 - beta``, each beta in (0, 1)."""
        found = as_real("betas", betas)
        inside = found.ndim == 1 and found.size > 0 and found.min() > 0 and found.max() < 1
        require(inside, "Schedule.of_betas needs betas between 0 and 1, shape (T,)", error=InvalidProblem)
        return cls.of_alphas(np.cumprod(1 - found))

    @classmethod
    def of_alphas(cls, abar: ArrayLike) -> Schedule:
        """Variance preserved, by the cumulative products abar, falling in (0, 1)."""
        found = as_real("abar", abar)
        return cls(np.sqrt(found), np.sqrt(1 - found))

    @classmethod
    def linear(cls, length: int = 1000, first: float = 1e-4, last: float = 0.02) -> Schedule:
        """beta from ``first`` to ``last`` along a line: that of most pretrained models."""
        _check_betas(length, first, last)
        return cls.of_betas(np.linspace(first, last, length))

    @classmethod
    def quad(cls, length: int = 1000, first: float = 1e-4, last: float = 0.02) -> Schedule:
        """The root of beta along a line."""
        _check_betas(length, first, last)
        return cls.of_betas(np.linspace(math.sqrt(first), math.sqrt(last), length) ** 2)

    @classmethod
    def sigmoid(cls, length: int = 1000, first: float = 1e-4, last: float = 0.02) -> Schedule:
        """beta along a sigmoid of -6 to 6."""
        _check_betas(length, first, last)
        return cls.of_betas(first + (last - first) / (1 + np.exp(-np.linspace(-6, 6, length))))

    @classmethod
    def cosine(cls, length: int = 1000, offset: float = 0.008) -> Schedule:
        """abar along a squared cosine, beta at most 0.999."""
        _check_betas(length, offset, offset)
        angle = (np.arange(length + 1) / length + offset) / (1 + offset) * math.pi / 2
        abar = np.cos(angle) ** 2
        return cls.of_betas(np.minimum(1 - abar[1:] / abar[:-1], 0.999))

    @classmethod
    def exploding(cls, length: int = 1000, smallest: float = 0.01, largest: float = 50.0) -> Schedule:
        """Signal 1, noise from ``smallest`` to ``largest`` along a geometric sequence."""
        require(is_whole(length) and length >= 2, "Schedule.exploding needs length >= 2", got=length)
        ordered = 0 < smallest < largest < math.inf
        require(ordered, "Schedule.exploding needs 0 < smallest < largest", got=(smallest, largest))
        return cls(np.ones(length), np.geomspace(smallest, largest, length))

    @classmethod
    def from_diffusers(cls, scheduler: object) -> Schedule:
        """The levels of a scheduler of diffusers, by its ``alphas_cumprod`` or, exploding, ``discrete_sigmas``.

        Raises:
            InvalidProblem: it has neither.
        """
        abar = getattr(scheduler, "alphas_cumprod", None)
        if abar is not None:
            return cls.of_alphas(np.asarray(abar, dtype=np.float64))
        sigmas = getattr(scheduler, "discrete_sigmas", None)
        if sigmas is None:
            raise InvalidProblem(
                f"A {type(scheduler).__name__} has neither alphas_cumprod nor discrete_sigmas; expected one such "
                "as DDPMScheduler, DDIMScheduler or ScoreSdeVeScheduler."
            )
        return cls(np.ones(len(sigmas)), np.asarray(sigmas, dtype=np.float64))


def _check_betas(length: int, first: float, last: float) -> None:
    require(is_whole(length) and length >= 1, "A schedule needs length >= 1", got=length)
    require(0 < first <= last < 1, "A schedule needs 0 < first <= last < 1", got=(first, last))

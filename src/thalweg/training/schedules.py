"""Learning-rate schedules for a known budget: a profile, and how often it is read.

Chen, Wolfe and Kyrillidis (2022), "REX: revisiting budgeted training with an improved schedule", MLSys.
"""

from __future__ import annotations

import warnings
from typing import Any, TypedDict, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from thalweg.core import CheckpointMismatch, InvalidParameter
from thalweg.core.validation import require
from thalweg.training.profiles import Profile, Refined, Rex
from thalweg.training.profiles import profile as named_profile

#: ``"step"``; a number of steps; a fraction of the budget; or the fractions at which the profile is read.
Sampling = str | int | float | tuple[float, ...]


class Options(TypedDict, total=False):
    """Options of every `ProfileSchedule`, which says what they are."""

    sampling: Sampling
    warmup_steps: int
    floor: float
    momentum: tuple[float, float] | None
    last_epoch: int


class ProfileSchedule(LRScheduler):
    """Learning rate ``base * p(z)``, z the share of the budget that is used, p a profile.

    Call ``step()`` once after each ``optimizer.step()``. Past the end the last rate is held. Composes with
    torch's own schedulers (`SequentialLR`, `ChainedScheduler`); each group keeps its own base rate.

    Args:
        optimizer: its rates at this moment are the base rates.
        total_steps: the budget, warm-up included.
        profile: a name (see `PROFILES`) or a `Profile`.
        sampling: when the profile is read: ``"step"``, every step (default); an int, every so many steps (an
            epoch, say); a float, every such fraction of the budget; a tuple of fractions, at these only.
        warmup_steps: linear rise from near zero in front.
        floor: the profile's zero stands for this share of the base rate, in [0, 1).
        momentum: ``(low, high)`` to schedule momentum (or the first beta) against the rate: low when the rate
            is at its highest.

    Raises:
        InvalidParameter: no steps, a warm-up as long as the budget, a sampling that is none.
        UnknownName: no such profile.

    Cost per step: microseconds; `rates` gives any number of steps at once, in closed form.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    >>> schedule = ProfileSchedule(optimizer, total_steps=100, profile="rex")
    >>> schedule.rates([0, 50, 100])[:, 0].round(3)
    array([0.3, 0.2, 0. ])
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        profile: str | Profile = "rex",
        *,
        sampling: Sampling = "step",
        warmup_steps: int = 0,
        floor: float = 0.0,
        momentum: tuple[float, float] | None = None,
        last_epoch: int = -1,
    ) -> None:
        require(total_steps > 0, "ProfileSchedule needs total_steps > 0", got=total_steps)
        require(
            0 <= warmup_steps < total_steps,
            f"ProfileSchedule needs 0 <= warmup_steps < total_steps = {total_steps}",
            got=warmup_steps,
        )
        require(0 <= floor < 1, "ProfileSchedule needs floor in [0, 1)", got=floor)
        if momentum is not None:
            require(0 <= momentum[0] <= momentum[1] < 1, "momentum needs 0 <= low <= high < 1", got=momentum)
        self.profile = named_profile(profile)
        self.sampling = _checked_sampling(sampling)
        self.total_steps, self.warmup_steps = int(total_steps), int(warmup_steps)
        self.floor, self.momentum = floor, momentum
        # z runs straight from anchor = (step, share) to (total_steps, 1).
        self.anchor = (float(warmup_steps), 0.0)
        super().__init__(optimizer, last_epoch)

    def rates(self, steps: ArrayLike) -> NDArray[np.float64]:
        """The rate of every group at every step, shape (steps, groups): what training will use, or has."""
        return np.outer(self._factors(np.atleast_1d(steps)), [float(rate) for rate in self.base_lrs])

    def set_total_steps(self, total_steps: int) -> None:
        """Cut or extend the budget while running: z goes on from where it is, without a jump."""
        now = max(self.last_epoch, 0)
        require(
            total_steps > now,
            f"set_total_steps needs more than the {now} steps already done",
            got=total_steps,
        )
        if now > self.warmup_steps:
            self.anchor = (float(now), float(self._share(np.array([now]))[0]))
        else:
            require(
                total_steps > self.warmup_steps,
                f"set_total_steps needs more than the {self.warmup_steps} steps of warm-up",
                got=total_steps,
            )
        self.total_steps = int(total_steps)

    def get_lr(self) -> list[float | Tensor]:
        """The rates at the current step; torch's own hook."""
        factor = float(self._factors(np.array([self.last_epoch]))[0])
        if self.momentum is not None:
            self._set_momentum(*self.momentum, factor)
        return [base * factor for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Plain data; the profile is written by its text and compared on loading."""
        state: dict[str, Any] = super().state_dict()
        return {**state, "profile": repr(self.profile)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`; `CheckpointMismatch` if it was saved with another profile."""
        if state_dict["profile"] != repr(self.profile):
            raise CheckpointMismatch(
                f"The schedule was saved with profile {state_dict['profile']}; this one has {self.profile!r}."
            )
        super().load_state_dict({**state_dict, "profile": self.profile})

    def _share(self, steps: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
        start, share = self.anchor
        used = (steps - start) / (self.total_steps - start)
        return np.asarray(share + (1.0 - share) * np.clip(used, 0.0, 1.0))

    def _factors(self, steps: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
        if isinstance(self.sampling, int):
            done = np.maximum(steps - self.warmup_steps, 0)
            z = self._share(self.warmup_steps + done // self.sampling * self.sampling)
        elif isinstance(self.sampling, float):
            # A share that rounding left just below a sampling point has reached it.
            z = np.floor(self._share(steps) / self.sampling + 1e-9) * self.sampling
        elif isinstance(self.sampling, tuple):
            points = np.array([0.0, *self.sampling])
            z = points[np.searchsorted(points, self._share(steps) + 1e-12, side="right") - 1]
        else:
            z = self._share(steps)
        factors = self.floor + (1.0 - self.floor) * self.profile(z)
        rise = (steps + 1.0) / (self.warmup_steps + 1.0)
        return np.asarray(np.where(steps < self.warmup_steps, rise * factors, factors))

    def _set_momentum(self, low: float, high: float, factor: float) -> None:
        value = high - (high - low) * factor
        for group in self.optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (value, *group["betas"][1:])
            elif "momentum" in group:
                group["momentum"] = value
            else:
                raise InvalidParameter(
                    "momentum= needs an optimizer with momentum or betas; "
                    f"{type(self.optimizer).__name__} has none."
                )


class LongerThanRecorded(UserWarning):
    """A refined schedule is stretched over more steps than were recorded."""


class REX(ProfileSchedule):
    """The REX schedule: ``p(z) = (1 - z)/(1/2 + (1 - z)/2)``, read every step. No hyper-parameters.

    Use it when the number of steps is known; it does well for small budgets and large ones.

    Args:
        optimizer, total_steps: as for `ProfileSchedule`.
        beta: strength of the family; 1/2 is the paper's, 0 is linear.
        options: ``warmup_steps``, ``floor``, ``sampling``, ``momentum`` of `ProfileSchedule`.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> schedule = REX(optimizer, total_steps=4)
    >>> for _ in range(4):
    ...     optimizer.step(); schedule.step()
    >>> schedule.get_last_lr()
    [0.0]
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, *, beta: float = 0.5, **options: Unpack[Options]
    ) -> None:
        super().__init__(optimizer, total_steps, Rex(beta), **options)


class LinearDecay(ProfileSchedule):
    """``1 - t/T``: the best schedule for the last iterate when nothing is known of the norms.

    Args:
        optimizer, total_steps, options: as for `ProfileSchedule`.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> LinearDecay(optimizer, total_steps=4).rates(range(5))[:, 0]
    array([1.  , 0.75, 0.5 , 0.25, 0.  ])
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, **options: Unpack[Options]) -> None:
        super().__init__(optimizer, total_steps, "linear", **options)


class RefinedSchedule(ProfileSchedule):
    """A learning rate that follows a `Refined` profile, stretched over ``total_steps``.

    Args:
        optimizer, total_steps, options: as for `ProfileSchedule`.
        refined: what `thalweg.training.refine` made of an earlier run.

    Warns:
        LongerThanRecorded: more steps than the run had that it was refined from; its shape is stretched.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    >>> schedule = RefinedSchedule(optimizer, 4, Refined(np.linspace(1.0, 0.0, 8)))
    >>> schedule.rates(range(5))[:, 0]  # of constant norms: linear decay
    array([0.1  , 0.075, 0.05 , 0.025, 0.   ])
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, refined: Refined, **options: Unpack[Options]
    ) -> None:
        if total_steps > len(refined.values):
            warnings.warn(
                f"The schedule was refined from {len(refined.values)} steps and is stretched over {total_steps}.",
                LongerThanRecorded,
                stacklevel=2,
            )
        super().__init__(optimizer, total_steps, refined, **options)


def _checked_sampling(sampling: Sampling) -> Sampling:
    valid = sampling == "step"
    if isinstance(sampling, int) and not isinstance(sampling, bool):
        valid = sampling >= 1
    elif isinstance(sampling, float):
        valid = 0 < sampling <= 1
    elif isinstance(sampling, tuple | list):
        sampling = tuple(float(s) for s in sampling)
        valid = all(0 < s < 1 for s in sampling) and list(sampling) == sorted(sampling)
    if not valid:
        raise InvalidParameter(
            "sampling is 'step', a number of steps >= 1, a fraction in (0, 1], or rising fractions in "
            f"(0, 1); got {sampling!r}."
        )
    return sampling

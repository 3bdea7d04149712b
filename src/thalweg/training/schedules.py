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
from thalweg.core.validation import is_real, is_whole, require
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

    Call ``step()`` once after each ``optimizer.step()``. Past the end the last rate is held. Composes with torch's own
    schedulers: in a `ChainedScheduler` the rate is the product of the parts, in a `SequentialLR` each part begins at
    its own start. A rate changed by hand, or by `ReduceLROnPlateau`, stays changed by as much. Each group keeps its own
    base rate; a group added later joins where the schedule is.

    Args:
        optimizer: its rates at this moment are the base rates. Where an earlier schedule has ended at zero, training
            begins again at ``initial_lr``.
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
        _check_steps(total_steps, warmup_steps)
        require(is_real(floor) and 0 <= floor < 1, "ProfileSchedule needs floor in [0, 1)", got=floor)
        if momentum is not None:
            require(0 <= momentum[0] <= momentum[1] < 1, "momentum needs 0 <= low <= high < 1", got=momentum)
        self.profile = named_profile(profile)
        self.sampling = _checked_sampling(sampling)
        self.total_steps, self.warmup_steps = int(total_steps), int(warmup_steps)
        self.floor, self.momentum = floor, momentum
        # z runs straight from anchor = (step, share) to (total_steps, 1).
        self.anchor = (float(warmup_steps), 0.0)
        #: Budgets of before: the last step that each was used for, its total_steps and anchor.
        self.past: list[tuple[int, int, tuple[float, float]]] = []
        # The part of each rate that is not this schedule's, and this one's part of the rate that it set last.
        self._others = [1.0] * len(optimizer.param_groups)
        self._factor = 0.0
        self._fresh_lr: list[float] = []  # rates before a `load_state_dict`
        super().__init__(optimizer, last_epoch)

    def rates(self, steps: ArrayLike) -> NDArray[np.float64]:
        """The rate of every group at every step, shape (steps, groups): what training will use, or has.

        Others that change the rate, schedules chained with this one or a hand, count as they stand now.
        """
        bases = [float(base) * other for base, other in zip(self.base_lrs, self._others, strict=True)]
        return np.outer(self._factors(np.atleast_1d(steps)), bases)

    def set_total_steps(self, total_steps: int) -> None:
        """Cut or extend the budget while running: z goes on from where it is, without a jump.

        Raises:
            InvalidParameter: no more than the steps already done, or the budget is used up: the rate is at its end.
        """
        now = max(self.last_epoch, 0)
        _check_steps(total_steps, self.warmup_steps)
        require(
            total_steps > now,
            f"set_total_steps needs more than the {now} steps already done",
            got=total_steps,
        )
        require(
            now < self.total_steps,
            f"The budget of {self.total_steps} steps is used up and the rate is at its end, where it would stay. Make "
            "a new schedule for the steps to come",
            got=total_steps,
        )
        self.past.append((now, self.total_steps, self.anchor))
        if now > self.warmup_steps:
            read = now
            if isinstance(self.sampling, int):  # the value read last holds until it is read again
                read -= (now - self.warmup_steps) % self.sampling
            share = self._share(np.array([read]), self.total_steps, self.anchor)
            self.anchor = (float(read), float(share[0]))
        self.total_steps = int(total_steps)

    def get_lr(self) -> list[float | Tensor]:
        """The rates at the current step; torch's own hook."""
        self._see_others()
        return self._current()

    def _get_closed_form_lr(self) -> list[float | Tensor]:
        """Torch's hook for the start of a part of `SequentialLR`, where nothing of the parts before counts."""
        self._others = [1.0] * len(self.base_lrs)
        return self._current()

    def _current(self) -> list[float | Tensor]:
        self._factor = float(self._factors(np.array([self.last_epoch]))[0])
        if self.momentum is not None:
            self._set_momentum(*self.momentum, self._factor)
        pairs = zip(self.base_lrs, self._others, strict=True)
        return [float(base) * other * self._factor for base, other in pairs]

    def state_dict(self) -> dict[str, Any]:
        """Plain data; the profile is written by its text and compared on loading."""
        state: dict[str, Any] = super().state_dict()
        return {**state, "profile": repr(self.profile)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`.

        Raises:
            CheckpointMismatch: it is another scheduler's, or was saved with another profile or number of groups.
        """
        if "profile" not in state_dict:
            raise CheckpointMismatch("This is the state of another scheduler: it has no profile.")
        if state_dict["profile"] != repr(self.profile):
            raise CheckpointMismatch(
                f"The schedule was saved with profile {state_dict['profile']}; this one has {self.profile!r}."
            )
        saved, ours = len(state_dict["base_lrs"]), len(self.optimizer.param_groups)
        if saved != ours:
            raise CheckpointMismatch(
                f"The schedule was saved for {saved} parameter groups; this optimizer has {ours}."
            )
        fresh = [float(rate) for rate in self.get_last_lr()]
        super().load_state_dict({"past": [], **state_dict, "profile": self.profile, "_fresh_lr": fresh})
        if "_factor" not in state_dict:  # of an earlier release
            self._factor = float(self._factors(np.array([self.last_epoch]))[0])

    def _see_others(self) -> None:
        """Take note of what others have made of each rate since this schedule set it."""
        groups = self.optimizer.param_groups
        for group in groups[len(self.base_lrs) :]:  # added since
            self.base_lrs.append(group.setdefault("initial_lr", float(group["lr"])))
            self._others.append(1.0)
            self._last_lr.append(float(group["lr"]))
        stepped = getattr(self.optimizer, "_opt_called", False)
        for i, group in enumerate(groups):
            base, rate = float(self.base_lrs[i]), float(group["lr"])
            if self.last_epoch == 0:
                # The end of an earlier schedule is no rate to train at; the start of one that rises from zero is.
                self._others[i] = rate / base if base and (rate or not stepped) else 1.0
            elif self._step_count > 1 and self._factor and base and rate not in self._known(i):
                self._others[i] = rate / (base * self._factor)
        self._fresh_lr = []

    def _known(self, i: int) -> list[float]:
        """Rates of a group that are this schedule's own doing: set last, or at its making before it was loaded."""
        return [float(self._last_lr[i]), *self._fresh_lr[i : i + 1]]

    @staticmethod
    def _share(
        steps: NDArray[np.float64] | NDArray[np.int64], total_steps: int, anchor: tuple[float, float]
    ) -> NDArray[np.float64]:
        start, share = anchor
        used = (steps - start) / (total_steps - start)
        return np.asarray(share + (1.0 - share) * np.clip(used, 0.0, 1.0))

    def _factors(self, steps: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
        factors = self._factors_of(steps, self.total_steps, self.anchor)
        for until, total_steps, anchor in reversed(self.past):
            factors = np.where(steps <= until, self._factors_of(steps, total_steps, anchor), factors)
        return factors

    def _factors_of(
        self, steps: NDArray[np.float64] | NDArray[np.int64], total_steps: int, anchor: tuple[float, float]
    ) -> NDArray[np.float64]:
        share = self._share(steps, total_steps, anchor)
        if isinstance(self.sampling, int):
            done = np.maximum(steps - self.warmup_steps, 0)
            read = self.warmup_steps + done // self.sampling * self.sampling
            z = self._share(read, total_steps, anchor)
        elif isinstance(self.sampling, float):
            # A share that rounding left just below a sampling point has reached it.
            z = np.floor(share / self.sampling + 1e-9) * self.sampling
        elif isinstance(self.sampling, tuple):
            points = np.array([0.0, *self.sampling])
            z = points[np.searchsorted(points, share + 1e-12, side="right") - 1]
        else:
            z = share
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

    >>> from thalweg.training import REX
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

    >>> import numpy as np
    >>> from thalweg.training import Refined, RefinedSchedule
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


def _check_steps(total_steps: int, warmup_steps: int) -> None:
    whole = is_whole(total_steps) and total_steps > 0
    require(whole, "ProfileSchedule needs a whole number total_steps > 0", got=total_steps)
    require(
        is_whole(warmup_steps) and 0 <= warmup_steps < total_steps,
        f"ProfileSchedule needs a whole number 0 <= warmup_steps < total_steps = {total_steps}",
        got=warmup_steps,
    )


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

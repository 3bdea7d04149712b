"""The learning rate found while training, stage by stage.

Jin, Zhou, Zhao, Zhu, Guo, Canini and Krishnamurthy (2021), "AutoLRS: automatic learning-rate schedule by Bayesian
optimization on the fly", ICLR, arXiv 2105.10762.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim import Optimizer

from thalweg.core import InvalidProblem, NotFinite
from thalweg.core.figure import Figure
from thalweg.training import _group
from thalweg.training._held_out import held_out_loss
from thalweg.training.auto_file import read_search, write_search
from thalweg.training.forecast import LossForecaster
from thalweg.training.rate_search import (
    Candidate,
    Stage,
    check_settings,
    is_lost,
    next_lower,
    next_rate,
    search_figures,
)
from thalweg.training.replay import Replay
from thalweg.training.snapshot import Snapshot, Stateful

#: Fewest steps of a candidate: fewer losses than this are no series to forecast from.
LEAST = 8
#: Validation losses measured during a candidate.
VALIDATIONS = 16

#: A batch.
B = TypeVar("B")


class AutoLRS:
    """Choose the learning rate on the fly: short trials from the same state, a forecast of each, the best one kept.

    A stage of tau steps is preceded by ``explore`` trials of ``explore_fraction`` tau steps each. Every trial starts
    from the same weights, optimizer state, random states and batches, and leaves no trace. Its losses are forecast to
    the stage's end, and Bayesian optimisation names the next rate. tau doubles from stage to stage. From the stage of
    ``max_stage_steps`` on, trials are judged by ``validate`` if it is given. By default as many steps go into trials
    as into training.

    A rate may do well in its trial and kill the network later. Where the loss of a stage lies above what its rate's own
    trial came to, training goes back to the stage's beginning and on at the next lower rate that was tried.

    Args:
        model, optimizer: what is trained. All groups keep the ratio of their rates.
        lr_min, lr_max: where to look, for the first group's rate; a range test or two decades around a usual rate.
        total_steps: training steps, those of trials not counted.
        validate: gives a loss on held-out data; called in evaluation mode and without gradients.
        stage_steps, max_stage_steps: tau of the first stage, and the longest (paper: 1000 and 8000).
        explore, explore_fraction: trials a stage, and the share of tau that each lasts (paper: 10 and 0.1).
        kappa: of the lower confidence bound. The authors' code has 10^6, all exploration; the default of 2 spends
            fewer trials on rates known to be bad.
        guard: go back where a stage is lost. The steps of that stage count as ``explored``. The paper has no guard.
        warmup_steps: so many steps first with a rate rising to the middle of the range, before the first stage.
        others: more objects with a state that steps change, by name, e.g. ``{"scaler": scaler}``.
        path: save here after every trial, and go on from there if the file exists. With several workers each saves
            its own file.
        seed: of the search.

    Under `torch.distributed` losses are averaged over the workers and rank 0 decides.

    Raises:
        InvalidParameter: a range without width, counts out of range.
        NotFinite: the loss stopped being finite in a stage, without ``guard`` or at the lowest rate that was tried; the
            weights are those before it, and the run has ended. Or ``validate`` gives NaN or infinity where training's
            losses are finite.
        InvalidProblem: ``validate`` gives no number; ``path`` with weights that are sharded.
        CheckpointMismatch: the file at ``path`` was saved with other settings.

    Cost: one copy of weights and optimizer state, kept; a copy back per trial; milliseconds per trial for fit and
    search. Up to ``explore_fraction * max_stage_steps`` batches are kept to be trained on again.

    >>> import torch
    >>> from torch import nn
    >>> from thalweg.training import AutoLRS
    >>> _ = torch.manual_seed(0)
    >>> X, model = torch.randn(64, 3), nn.Linear(3, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> auto = AutoLRS(model, optimizer, 1e-3, 1.0, total_steps=200, stage_steps=80, max_stage_steps=160)
    >>> for batch in auto.steps(X.split(16)):
    ...     loss = (model(batch) - batch.sum(1, keepdim=True)).square().mean()
    ...     optimizer.zero_grad(); loss.backward(); optimizer.step()
    ...     auto.step(loss)
    >>> [stage.steps for stage in auto.stages], loss.item() < 0.01
    ([80, 120], True)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        lr_min: float,
        lr_max: float,
        *,
        total_steps: int,
        validate: Callable[[], float] | None = None,
        stage_steps: int = 1000,
        max_stage_steps: int = 8000,
        explore: int = 10,
        explore_fraction: float = 0.1,
        kappa: float = 2.0,
        guard: bool = True,
        warmup_steps: int = 0,
        others: Mapping[str, Stateful] | None = None,
        path: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.optimizer, self.validate = model, optimizer, validate
        self.settings: dict[str, Any] = {
            "lr_min": lr_min,
            "lr_max": lr_max,
            "total_steps": total_steps,
            "stage_steps": stage_steps,
            "max_stage_steps": max_stage_steps,
            "explore": explore,
            "explore_fraction": explore_fraction,
            "kappa": kappa,
            "guard": guard,
            "warmup_steps": warmup_steps,
            "seed": seed,
        }
        check_settings(self.settings, LEAST)
        self.others = dict(others or {})
        self.path = None if path is None else _group.own(Path(path))
        #: Every rate that was tried, in order.
        self.candidates: list[Candidate] = []
        #: The stages that training went through; their rates are the schedule that was found.
        self.stages: list[Stage] = []
        #: Training steps done, and steps of trials.
        self.trained = self.explored = 0
        first = float(optimizer.param_groups[0]["lr"])
        self._ratios = [float(group["lr"]) / first if first else 1.0 for group in optimizer.param_groups]
        self._ended = ""  # why, once the loss has stopped being finite
        self._phase, self._count = "warm-up" if warmup_steps else "explore", 0
        self._tau, self._rate, self._start_loss = stage_steps, math.sqrt(lr_min * lr_max), math.inf
        self._first_loss = math.nan  # of the very first step
        self._losses: list[Tensor] = []
        self._validations: list[float] = []
        self._move = ""  # what the batches have to do: "back" to the mark, "on" to set a new one
        self._replay: Replay | None = None
        self._place: dict[str, Any] | None = None
        self._snapshot = Snapshot(model, optimizer, self.others)
        if self.path is not None and self.path.exists():
            self._load(self.path)
        elif self._phase == "warm-up":
            self._set_rate(lr_min)
        else:
            self._begin_stage()

    # -- the loop's side

    @property
    def done(self) -> bool:
        """Whether all training steps are done."""
        return bool(self.trained >= self.settings["total_steps"])

    @property
    def exploring(self) -> bool:
        """Whether the next step is one of a trial."""
        return self._phase == "explore"

    def steps(self, loader: Iterable[B]) -> Iterator[B]:
        """Batches of ``loader`` until training is done, those of each trial the same; call `step` after each.

        Raises:
            InvalidProblem: the loader is empty or cannot be iterated over again, or `step` was not called.
        """
        self._require_going_on()
        self._move = ""
        self._replay = Replay(loader, keep=self._trial_steps(self.settings["max_stage_steps"]))
        if self._place is not None:
            self._replay.load_state_dict(self._place)
        else:
            self._replay.mark()
        while not self.done:
            before = self.trained + self.explored
            yield self._replay.next()
            if self.trained + self.explored != before + 1:
                raise InvalidProblem("Call step(loss) once after each batch of steps().")
            self._follow(self._replay)

    def step(self, loss: Tensor | float) -> None:
        """Take note of the loss of the step that was just made, and set the rate of the next."""
        if self.done:
            raise InvalidProblem(f"All {self.settings['total_steps']} training steps are done.")
        self._require_going_on()
        given = torch.as_tensor(loss)
        if given.numel() != 1:
            raise InvalidProblem(
                f"step(loss) needs one number; got shape {tuple(given.shape)}. Take its mean."
            )
        self._losses.append(given.detach().double())  # a copy: the next step may write into it
        self._count += 1
        if self._phase == "train":
            self._after_training()
        elif self._phase == "explore":
            self._after_trial()
        else:
            self._after_warmup()
        self._set_rate(self._rate)  # a trainer's own schedule may have written another

    def rates(self) -> NDArray[np.float64]:
        """The rate of each training step so far, shape (trained,): a schedule to use again."""
        warmup = min(self.settings["warmup_steps"], self.trained)
        ramp = [self._warmup_rate(i) for i in range(warmup)]
        stages = [np.full(min(s.steps, max(self.trained - s.first, 0)), s.rate) for s in self.stages]
        return np.concatenate([ramp, *stages]) if stages else np.array(ramp)

    def figures(self) -> list[Figure]:
        """The schedule that was found, and what each trial was forecast to come to."""
        return search_figures(self.rates(), self.candidates)

    # -- the machine's side

    def _require_going_on(self) -> None:
        if self._ended:
            raise InvalidProblem(f"This run has ended. {self._ended} Make a new AutoLRS to do so.")

    def _trial_steps(self, tau: int) -> int:
        return min(max(round(self.settings["explore_fraction"] * tau), LEAST), tau)

    def _length(self) -> int:
        """Steps of the stage at hand: the last one has what is left."""
        return int(min(self._tau, self.settings["total_steps"] - self.trained))

    def _judged_by_validation(self) -> bool:
        return self.validate is not None and self._tau >= self.settings["max_stage_steps"]

    def _set_rate(self, rate: float) -> None:
        self._rate = rate
        groups = self.optimizer.param_groups
        if len(groups) > len(self._ratios):  # added since: at the share that they came with
            first = float(groups[0]["lr"])
            self._ratios += [float(g["lr"]) / first if first else 1.0 for g in groups[len(self._ratios) :]]
        for group, ratio in zip(groups, self._ratios, strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate * ratio)
            else:
                group["lr"] = rate * ratio

    def _warmup_rate(self, step: int) -> float:
        low, high = self.settings["lr_min"], math.sqrt(self.settings["lr_min"] * self.settings["lr_max"])
        return float(low + (high - low) * step / self.settings["warmup_steps"])

    def _after_warmup(self) -> None:
        self.trained += 1
        if self._count == self.settings["warmup_steps"]:
            self._start_loss = self._level(self._taken_losses())
            self._snapshot = Snapshot(self.model, self.optimizer, self.others)
            self._begin_stage()
        else:
            self._set_rate(self._warmup_rate(self._count))

    def _begin_stage(self) -> None:
        """The snapshot has been taken; what is next is the first trial."""
        self._move = "on"
        if self.stages and self._length() < LEAST:
            self._begin_training(self.stages[-1].rate)  # too short for a trial to say anything
            return
        if self._judged_by_validation():
            self._start_loss = self._validated()
            if not math.isfinite(self._start_loss):
                raise NotFinite(
                    f"validate() gave {self._start_loss} for the weights of step {self.trained}, before any trial: the "
                    "fault is in it or in its data, not in a learning rate."
                )
        self._begin_trial([])

    def _begin_trial(self, tried: list[Candidate]) -> None:
        self._phase, self._count, self._losses, self._validations = "explore", 0, [], []
        s = self.settings
        if tried or not self.stages:
            rates, forecasts = [c.rate for c in tried], [c.forecast for c in tried]
            seed = s["seed"] + len(self.candidates)
            rate = next_rate(rates, forecasts, s["lr_min"], s["lr_max"], s["kappa"], seed)
        else:
            rate = self.stages[-1].rate
        self._set_rate(_group.decided(rate))
        self._save()

    def _tried(self) -> list[Candidate]:
        return [c for c in self.candidates if c.stage == len(self.stages)]

    def _after_trial(self) -> None:
        self.explored += 1
        length = self._trial_steps(self._length())
        if self._judged_by_validation() and self._count % max(length // VALIDATIONS, 1) == 0:
            self._validations.append(self._validated())
        if self._count < length:
            return
        self.candidates.append(self._judged(length))
        self._snapshot.restore(self.model, self.optimizer, self.others)
        self._move = "back"
        tried = self._tried()
        if len(tried) < self.settings["explore"]:
            self._begin_trial(tried)
        else:
            self._begin_training(self._best_of(tried))

    def _judged(self, length: int) -> Candidate:
        losses, rounds = self._taken_losses(), 10
        times = np.arange(1.0, len(losses) + 1.0)
        reached = self._second_half(losses)
        trained_well = bool(np.isfinite(losses).all())
        if self._judged_by_validation():
            every = max(length // VALIDATIONS, 1)
            losses, rounds = np.array(self._validations), 1
            times = every * np.arange(1.0, len(losses) + 1.0)
        level = self._level(losses)
        if not np.isfinite(losses).all():
            by_validation = trained_well and self._judged_by_validation()
            forecast, rule = math.nan, "not validated" if by_validation else "diverged"
        elif level > self._start_loss or len(losses) < 4:
            forecast, rule = level, "last"
        else:
            fit = LossForecaster(rounds=rounds).fit(losses, times)
            forecast, rule = float(fit(float(self._length()))), "fit"
        numbers = tuple(map(float, losses)), tuple(map(float, times))
        return Candidate(len(self.stages), self._rate, *numbers, forecast, rule, reached)

    def _best_of(self, tried: list[Candidate]) -> float:
        finite = [c for c in tried if math.isfinite(c.forecast)]
        if not finite and all(c.rule == "not validated" for c in tried):
            raise NotFinite(
                f"validate() gave no finite loss in any of {len(tried)} trials, though all losses of training were "
                "finite: the fault is in it or in its data, not in a learning rate."
            )
        if not finite:
            warnings.warn(
                f"All {len(tried)} rates tried diverged; the stage goes on with lr_min. Lower lr_min.",
                stacklevel=3,
            )
        return min(finite, key=lambda c: c.forecast).rate if finite else float(self.settings["lr_min"])

    def _begin_training(self, rate: float) -> None:
        self._phase, self._count, self._losses = "train", 0, []
        self.stages.append(Stage(self.trained, self._length(), _group.decided(rate)))
        self._set_rate(self.stages[-1].rate)
        self._save()

    def _after_training(self) -> None:
        self.trained += 1
        stage = self.stages[-1]
        every = self._trial_steps(stage.steps)
        ends = self._count == stage.steps
        if not ends and self._count % every:
            return
        losses = self._taken_losses()
        lower = next_lower(self._of_stage(), stage.rate)
        if self.settings["guard"] and lower is not None and self._is_lost(losses):
            self._go_back(lower)
            return
        if not np.isfinite(losses).all():
            self._snapshot.restore(self.model, self.optimizer, self.others)
            self._ended = (
                f"The loss stopped being finite within step {self.trained}, at rate {stage.rate:.3g}. The weights are "
                f"those of step {stage.first}. Lower lr_max = {self.settings['lr_max']:.3g} and go on from them."
            )
            self.trained = stage.first
            self.stages.pop()
            raise NotFinite(self._ended)
        self._start_loss = self._level(losses)
        if ends and not self.done:
            self._tau = min(2 * self._tau, self.settings["max_stage_steps"])
            self._snapshot = Snapshot(self.model, self.optimizer, self.others)
            self._begin_stage()
        else:
            self._save(midway=True)

    def _is_lost(self, losses: NDArray[np.float64]) -> bool:
        stage = self.stages[-1]
        if not np.isfinite(losses).all():
            return True
        own = [c.level for c in self._of_stage() if c.rate == stage.rate]
        level, share = self._second_half(losses), self._count / stage.steps
        return bool(own) and is_lost(level, own[0], self._first_loss, share)

    def _of_stage(self) -> list[Candidate]:
        """What was tried for the stage that training is in."""
        return [c for c in self.candidates if c.stage == len(self.stages) - 1]

    def _go_back(self, rate: float) -> None:
        """To the stage's beginning, and on from there at another rate, on fresh batches."""
        self._snapshot.restore(self.model, self.optimizer, self.others)
        self.explored += self._count
        self.trained = self.stages.pop().first
        self._begin_training(rate)

    def _taken_losses(self) -> NDArray[np.float64]:
        """The losses since the last call or the phase's start, over all workers; waits for the device."""
        losses = _group.mean(torch.stack([loss.reshape(()) for loss in self._losses])).cpu().numpy()
        self._losses = []
        if math.isnan(self._first_loss):
            self._first_loss = float(losses[0])
        return np.asarray(losses)

    @staticmethod
    def _level(losses: NDArray[np.float64]) -> float:
        """Where a series has come to: the mean of its last tenth."""
        return float(losses[-max(len(losses) // 10, 1) :].mean())

    @staticmethod
    def _second_half(losses: NDArray[np.float64]) -> float:
        """The mean of a series' second half: fewer steps than that say little of a level."""
        return float(losses[len(losses) // 2 :].mean())

    def _validated(self) -> float:
        if self.validate is None:
            raise InvalidProblem("AutoLRS was given no validate=, and cannot judge by it.")
        return held_out_loss(self.model, self.validate)

    # -- the place in the data, and files

    def _follow(self, replay: Replay) -> None:
        if self._move == "back":
            replay.rewind()
        elif self._move == "on":
            replay.mark()
        self._move = ""

    def _save(self, midway: bool = False) -> None:
        if self.path is None:
            return
        if any(hasattr(p, "full_tensor") for p in self.model.parameters()):
            raise InvalidProblem("AutoLRS does not save sharded weights: leave path= out.")
        if self._replay is not None:
            self._follow(self._replay)
        here = Snapshot(self.model, self.optimizer, self.others) if midway else None
        tree = {
            "settings": self.settings,
            "machine": {name: getattr(self, name) for name in _MACHINE},
            "place": None if self._replay is None else self._replay.state_dict(),
        }
        write_search(self.path, tree, self.candidates, self.stages, self._snapshot, here)

    def _load(self, path: Path) -> None:
        tree, self.candidates, self.stages, self._snapshot, here = read_search(path, self.settings)
        self.__dict__.update(tree["machine"])
        here.restore(self.model, self.optimizer, self.others)
        self._set_rate(self._rate)
        self._place = tree["place"]


_MACHINE = (
    "trained",
    "explored",
    "_phase",
    "_count",
    "_tau",
    "_rate",
    "_start_loss",
    "_first_loss",
    "_ratios",
)

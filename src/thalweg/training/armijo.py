"""Gradient descent with a backtracking line search.

Vaswani, Mishkin, Laradji, Schmidt, Gidel and Lacoste-Julien (2019), "Painless stochastic gradient: interpolation,
line-search, and convergence rates", algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from thalweg.core import CheckpointMismatch, InvalidParameter, InvalidProblem, NotFinite
from thalweg.core.validation import is_real, is_whole, require
from thalweg.numerics.tensor_checks import length
from thalweg.training.snapshot import set_random_states, torch_random_states


class ArmijoSGD(Optimizer):
    """Gradient descent whose step is the first that lowers the loss by ``c * step * |gradient|^2``.

    Args:
        params: as for any optimizer; groups share one step.
        lr: the first step that is tried. Where it promises less than the loss's rounding, a longer one is looked for.
        c: share of the decrease that the gradient promises, in (0, 1).
        backtrack: the step is multiplied by this until it is accepted.
        expand: the next search starts from the accepted step times this.
        max_backtracks: after so many the last, tiny step is taken back, and nothing moves.

    Each `step` needs a closure, as `torch.optim.LBFGS` does; a second one that gives the loss alone saves the
    backward passes of the search. All trials of a search see the same random numbers of torch, dropout's masks say, as
    the gradient did. Buffers that the closure changes, such as BatchNorm's running statistics, change once a trial.

    Cost per step: one gradient, and a loss for each trial; two copies of the parameters.

    >>> x = torch.nn.Parameter(torch.tensor([3.0, -1.0]))
    >>> optimizer = ArmijoSGD([x], lr=100.0)
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = x.square().sum() / 2
    ...     loss.backward()
    ...     return loss
    >>> for _ in range(50):
    ...     loss = optimizer.step(closure)
    >>> loss.item() < 1e-12
    True
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, object]],
        lr: float = 1.0,
        *,
        c: float = 0.1,
        backtrack: float = 0.9,
        expand: float = 1.8,
        max_backtracks: int = 100,
    ) -> None:
        require(is_real(lr) and 0 < lr < math.inf, "ArmijoSGD needs a finite lr > 0", got=lr)
        require(is_real(c) and 0 < c < 1, "ArmijoSGD needs c in (0, 1)", got=c)
        require(
            is_real(backtrack) and 0 < backtrack < 1, "ArmijoSGD needs backtrack in (0, 1)", got=backtrack
        )
        require(
            is_real(expand) and 1 <= expand < math.inf, "ArmijoSGD needs a finite expand >= 1", got=expand
        )
        whole = is_whole(max_backtracks) and max_backtracks >= 1
        require(whole, "ArmijoSGD needs whole max_backtracks >= 1", got=max_backtracks)
        options = {
            "lr": lr,
            "c": c,
            "backtrack": backtrack,
            "expand": expand,
            "max_backtracks": max_backtracks,
        }
        super().__init__(params, options)
        #: Losses evaluated by searches so far.
        self.evaluations = 0

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters; `InvalidParameter` if they come with a step or rule of their own, which a search has not."""
        shared = self.param_groups[0] if self.param_groups else self.defaults
        for name in self.defaults:
            if self.param_groups and param_group.setdefault(name, shared[name]) != shared[name]:
                raise InvalidParameter(
                    f"ArmijoSGD searches one step for all groups; group {len(self.param_groups)} (counted from 0) has "
                    f"{name} = {param_group[name]}, the first {shared[name]}."
                )
        super().add_param_group(param_group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a `state_dict`; `CheckpointMismatch` for another optimizer's."""
        for group in state_dict["param_groups"]:
            if not self.defaults.keys() <= group.keys():
                raise CheckpointMismatch(
                    f"This is the state of another optimizer, with {', '.join(sorted(group))}; ArmijoSGD's has "
                    f"{', '.join(sorted(self.defaults))}."
                )
        super().load_state_dict(state_dict)

    def step(  # type: ignore[override]
        self, closure: Callable[[], Tensor], value: Callable[[], Tensor] | None = None
    ) -> Tensor:
        """Take a step and return the loss before it.

        Args:
            closure: clears the gradients, computes the loss, calls ``backward`` and returns the loss.
            value: the loss alone, no gradient; by default ``closure``.

        Raises:
            InvalidProblem: no closure.
            NotFinite: the loss or its gradient is not.
        """
        if closure is None:
            raise InvalidProblem("ArmijoSGD.step needs a closure that computes the loss and its gradient.")
        noise = torch_random_states()
        with torch.enable_grad():
            loss = closure()
        noise_after = torch_random_states()
        group = self.param_groups[0]
        moving = [p for g in self.param_groups for p in g["params"] if p.grad is not None]
        with torch.no_grad():
            gradients = [p.grad.clone() if value is None else p.grad for p in moving]
            norm = math.hypot(*(float(length(g.abs().double().flatten())) for g in gradients))
            before = float(loss.detach())
            if not (before < math.inf and norm < math.inf):
                raise NotFinite(f"ArmijoSGD: the loss is {before}, its gradient's norm {norm}.")
            if norm == 0.0:
                return loss
            start = [p.clone() for p in moving]

            def is_low(size: float) -> bool:
                """Whether the loss is low enough after this step, which is taken."""
                torch._foreach_copy_(moving, start)
                torch._foreach_add_(moving, gradients, alpha=-size)
                self.evaluations += 1
                set_random_states(noise)
                return self._loss(closure, value) <= before - group["c"] * size * norm * norm

            size = self._shown(is_low, abs(before) * torch.finfo(loss.dtype).eps, norm)
            for _ in range(group["max_backtracks"]):
                if is_low(size):
                    break
                size *= group["backtrack"]
            else:
                torch._foreach_copy_(moving, start)
            set_random_states(noise_after)
            for g in self.param_groups:
                g["lr"] = size * group["expand"]
        return loss

    def _shown(self, is_low: Callable[[float], bool], rounding: float, norm: float) -> float:
        """Where the search starts: where it ended, or, if rounding hides what that promises, the longest step found
        by doubling that lowers the loss by what it promises.
        """
        group = self.param_groups[0]
        size, least = float(group["lr"]), 2.0 * rounding / norm / norm / group["c"]
        if size >= least or not (least < math.inf and is_low(least)):
            return size
        size = least
        for _ in range(group["max_backtracks"]):
            if not is_low(2.0 * size):
                break
            size *= 2.0
        return size

    @staticmethod
    def _loss(closure: Callable[[], Tensor], value: Callable[[], Tensor] | None) -> float:
        if value is not None:
            return float(value())
        with torch.enable_grad():
            return float(closure().detach())

"""Methods that evaluate the whole sum in every step: extragradient and its kin, Halpern iteration, anchored steps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

from torch import Tensor

from thalweg.equilibrium.method import InclusionMethod, InclusionState, check_options
from thalweg.equilibrium.problem import MonotoneInclusion, estimate_lipschitz


@dataclass(kw_only=True)
class ForwardState(InclusionState):
    """The iterate with F there, so that it is evaluated once."""

    value: Tensor  # (d,) F(x)
    step_size: float


@dataclass(kw_only=True)
class ReflectedState(ForwardState):
    """As `ForwardState`, with F at the iterate before."""

    before: Tensor  # (d,)


@dataclass(kw_only=True)
class AnchoredState(ForwardState):
    """As `ForwardState`, with the point that every step is pulled to."""

    anchor: Tensor  # (d,)


S = TypeVar("S", bound=ForwardState)


@dataclass(frozen=True)
class _Deterministic(InclusionMethod[S]):
    """Base: a step size of ``share / L``, and the residual of every iterate.

    Args:
        step_size: of the steps; by default a share of 1/L.
    """

    share: ClassVar[float]

    step_size: float | None = None

    def __post_init__(self) -> None:
        check_options(self, positive=["step_size"])

    def _begin(self, problem: MonotoneInclusion, seed: int) -> ForwardState:
        tau = self.step_size
        if tau is None:
            tau = self.share / estimate_lipschitz(problem, seed=seed)
        u = problem.resolvent(problem.x0, tau)
        value = problem.components.full(u)
        metrics = {"residual": problem.natural_residual(u, value)}
        return ForwardState(x=u, metrics=metrics, calls=problem.count, seed=seed, value=value, step_size=tau)

    def _moved(self, problem: MonotoneInclusion, state: S, u: Tensor, evaluations: int) -> S:
        """The state at the new iterate u, ``evaluations`` of F later, one of them at u."""
        value = problem.components.full(self.checked(problem, u, state))
        return replace(
            state,
            x=u,
            value=value,
            step=state.step + 1,
            calls=state.calls + evaluations * problem.count,
            metrics={"residual": problem.natural_residual(u, value)},
        )


@dataclass(frozen=True)
class Extragradient(_Deterministic[ForwardState]):
    """``v = J(u - tau F(u)), u = J(u - tau F(v))`` (Korpelevich, 1976). Two evaluations of F a step.

    The method of choice for sums of few components: linear convergence on matrix games and strongly monotone sums.
    Many components that are alike are cheaper by `InexactHalpern` with restarts.

    Args:
        step_size: tau; by default 0.9/L.

    >>> import torch
    >>> from thalweg import Stop, solve
    >>> from thalweg.equilibrium import matrix_game
    >>> game = matrix_game(torch.tensor([[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]]).double())
    >>> solve(game, Extragradient(), stop=Stop(below={"residual": 1e-8})).x[:3].round(decimals=3)
    tensor([0.3330, 0.3330, 0.3330], dtype=torch.float64)
    """

    share: ClassVar[float] = 0.9

    def init(self, problem: MonotoneInclusion, seed: int) -> ForwardState:
        return self._begin(problem, seed)

    def step(self, problem: MonotoneInclusion, state: ForwardState) -> ForwardState:
        u, tau = state.x, state.step_size
        v = problem.resolvent(u - tau * state.value, tau)
        new = problem.resolvent(u - tau * problem.components.full(v), tau)
        return self._moved(problem, state, new, 2)


@dataclass(frozen=True)
class ForwardReflectedBackward(_Deterministic[ReflectedState]):
    """``u = J(u - 2 tau F(u) + tau F(u before))``: optimistic gradients (Malitsky and Tam, 2020). One F a step.

    Args:
        step_size: tau; by default 0.45/L, half of what extragradient may take.
    """

    share: ClassVar[float] = 0.45

    def init(self, problem: MonotoneInclusion, seed: int) -> ReflectedState:
        begun = self._begin(problem, seed)
        return ReflectedState(**vars(begun), before=begun.value)

    def step(self, problem: MonotoneInclusion, state: ReflectedState) -> ReflectedState:
        tau = state.step_size
        new = problem.resolvent(state.x - tau * (2.0 * state.value - state.before), tau)
        return self._moved(problem, replace(state, before=state.value), new, 1)


@dataclass(frozen=True)
class Halpern(_Deterministic[AnchoredState]):
    """Halpern for cocoercive F: ``u_{k+1} = J(l_k u_0 + (1 - l_k) u_k - tau F(u_k))``, ``l_k = 2/(k + 4)``.

    `VRHalpern` with all components in every batch, step by step. One evaluation a step.

    Args:
        step_size: tau; by default 1/(4 L).
    """

    share: ClassVar[float] = 0.25

    def init(self, problem: MonotoneInclusion, seed: int) -> AnchoredState:
        begun = self._begin(problem, seed)
        return AnchoredState(**vars(begun), anchor=begun.x)

    def step(self, problem: MonotoneInclusion, state: AnchoredState) -> AnchoredState:
        pull = 2.0 / (state.step + 4.0)
        ahead = pull * state.anchor + (1.0 - pull) * state.x - state.step_size * state.value
        return self._moved(problem, state, problem.resolvent(ahead, state.step_size), 1)


@dataclass(frozen=True)
class AnchoredExtragradient(_Deterministic[AnchoredState]):
    """Extra-anchored gradient (Yoon and Ryu, 2021): extragradient steps pulled to the start by 1/(k + 2).

    The optimal last-iterate rate O(1/k) of deterministic methods. Two evaluations a step.

    Args:
        step_size: tau; by default 0.35/L.
    """

    share: ClassVar[float] = 0.35

    def init(self, problem: MonotoneInclusion, seed: int) -> AnchoredState:
        begun = self._begin(problem, seed)
        return AnchoredState(**vars(begun), anchor=begun.x)

    def step(self, problem: MonotoneInclusion, state: AnchoredState) -> AnchoredState:
        pull, tau = 1.0 / (state.step + 2.0), state.step_size
        base = pull * state.anchor + (1.0 - pull) * state.x
        v = problem.resolvent(base - tau * state.value, tau)
        new = problem.resolvent(base - tau * problem.components.full(v), tau)
        return self._moved(problem, state, new, 2)

"""One step of online dictionary learning by Frank-Wolfe, and all that it keeps from step to step: no data.

Xue and Lau (2021), arXiv 2103.01484. Where few codes are not zero, ``E |D'y|_3^3`` over orthogonal D is largest at the
basis that made y. Over the spectral ball, whose extreme points the orthogonal matrices are, that is a convex function
to be maximised, and Frank-Wolfe's linear problem there is a polar factor.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import scipy.linalg as la
from numpy.typing import NDArray

from thalweg.numerics.polar import newton_schulz, polar_and_values
from thalweg.numerics.scaling import MODERATE

Matrix = NDArray[np.float64]
Loss = Literal["l3", "l4", "smooth-l1"]

#: How the gradient grows with the data: their power of two enters the momentum so many times.
DEGREE: dict[Loss, int] = {"l3": 3, "l4": 4, "smooth-l1": 1}
#: Steps between two square roots of the second moment, and the ridge of each as a share of its mean eigenvalue.
REFRESH, RIDGE = 10, 1e-3


@dataclass(frozen=True)
class Rule:
    """What stays the same from step to step; the estimator's arguments say what each is."""

    loss: Loss = "l3"
    smoothing: float = 2.0
    update: Literal["frank-wolfe", "polar"] = "frank-wolfe"
    lmo: Literal["svd", "newton-schulz"] = "svd"
    momentum_floor: float = 0.0
    step_floor: float = 0.0
    forgetting: float = 1.0
    center: bool = False
    whiten: bool = False
    clip: float | None = None

    def rates(self, t: int) -> tuple[float, float]:
        """Weights of step t's gradient in the momentum, rho, and of its extreme point in D, gamma.

        With ``rho ~ t^-1/2`` and ``gamma ~ t^-3/4`` the momentum is ``t^-1/4`` away from the gradient, which gives
        the published rate ``ln t / t^1/4`` of the gap.
        """
        rho = max(min(1.0, 4.0 / math.sqrt(t + 8)), self.momentum_floor)
        gamma = max(t**-0.75, self.step_floor)
        return rho, 1.0 if self.update == "polar" else gamma


@dataclass(frozen=True)
class Learned:
    """All that a learner keeps, O(n^2) numbers; each step makes a new one, so that an interrupted step leaves the old.

    Data are divided by ``2**power`` before anything is done with them, so that no cube of theirs overflows.
    """

    D: Matrix  # (n, n) in the spectral ball; its polar factor is the basis
    momentum: Matrix  # (n, n) running gradient
    root: Matrix  # (n, n) C^(1/2), of the second moment C; (0, 0) without whitening, as the next two
    unroot: Matrix  # (n, n) C^(-1/2)
    moment: Matrix  # (n, n) C
    mean: Matrix  # (n,) zeros without centring
    weight: float = 0.0  # samples that mean and moment stand for, older ones forgotten
    steps: int = 0
    samples: int = 0  # learned from
    zeros: int = 0  # samples of zeros, which say nothing
    incomplete: int = 0  # samples with missing entries, skipped or filled
    square: float = 0.0  # running mean of z^2
    level: float = 0.0  # running logarithm of the quantile where codes are clipped
    power: int | None = None
    gap: float = math.nan
    nuclear: float = math.nan

    @classmethod
    def at(cls, D: Matrix, whiten: bool) -> Learned:
        """Before the first step."""
        n = len(D)
        square = (n, n) if whiten else (0, 0)
        eye = np.eye(*square)
        return cls(D, np.zeros((n, n)), eye, eye, np.zeros(square), np.zeros(n))

    def scaled(self, power: int, degree: int) -> Learned:
        """The same with data divided by ``2**power``."""
        if self.power is None or power == self.power:
            return dataclasses.replace(self, power=power)
        by = self.power - power
        codes = 0 if self.root.size else by  # whitened codes have no unit
        return dataclasses.replace(
            self,
            power=power,
            momentum=np.ldexp(self.momentum, degree * codes),
            root=np.ldexp(self.root, by),
            unroot=np.ldexp(self.unroot, -by),
            moment=np.ldexp(self.moment, 2 * by),
            mean=np.ldexp(self.mean, by),
            square=math.ldexp(self.square, 2 * codes),
            level=self.level + codes * math.log(2.0),
            gap=math.ldexp(self.gap, degree * codes),
            nuclear=math.ldexp(self.nuclear, degree * codes),
        )

    @cached_property
    def basis(self) -> Matrix:
        """The polar factor of D, shape (n, n), columns the atoms: ten to twenty times nearer to the truth than D."""
        return polar_and_values(self.D)[0]

    def unit(self) -> int:
        """The power of two that data are divided by."""
        return self.power or 0


def fields_of(state: Learned) -> dict[str, object]:
    """What is saved of a state: its fields by name, nothing that follows from them."""
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def advanced(state: Learned, rule: Rule, Y: Matrix) -> Learned:
    """One step on a minibatch Y, shape (b, n), finite; samples of zeros are counted and left out."""
    state = _in_units(state, Y, DEGREE[rule.loss])
    if state.power is None:  # nothing but zeros so far
        return dataclasses.replace(state, zeros=state.zeros + len(Y))
    Y = np.ldexp(Y, -state.power) if state.power else Y
    if rule.center or rule.whiten:
        state, Y = _whitened(state, rule, Y)
    alive = Y.any(1)
    if not alive.all():
        state, Y = dataclasses.replace(state, zeros=state.zeros + int((~alive).sum())), Y[alive]
        if not len(Y):
            return state
    return _frank_wolfe(state, rule, Y)


def _frank_wolfe(state: Learned, rule: Rule, Y: Matrix) -> Learned:
    D, t = state.D, state.steps + 1
    rho, gamma = rule.rates(t)
    Z = Y @ D
    if rule.clip is not None:
        state, Y, Z = _clipped(state, rule.clip, rho, Y, Z)
    square = (1.0 - rho) * state.square + rho * float(np.vdot(Z, Z)) / Z.size
    G = Y.T @ slope(Z, rule, square)  # minus the gradient, but for 1/b
    momentum = (1.0 - rho) * state.momentum - (rho / len(Y)) * G
    S, values = _extreme_point(momentum, rule, D)
    nuclear = float(values.sum())
    gap = float(np.vdot(momentum, D)) + nuclear  # <d, D - S>
    return dataclasses.replace(
        state,
        D=S if gamma == 1.0 else D + gamma * (S - D),
        momentum=momentum,
        steps=t,
        samples=state.samples + len(Y),
        square=square,
        gap=gap,
        nuclear=nuclear,
    )


def slope(Z: Matrix, rule: Rule, square: float) -> Matrix:
    """The derivative, entry by entry, of the convex function that is maximised: ``|z|^3/3``, ``z^4/4``, or for
    ``"smooth-l1"`` ``z^2/(2 mu) - sqrt(z^2 + mu^2)``.

    The l1 norm alone is least at D = 0, so that its minimum over the ball is no basis. But ``E |D'y|^2`` is the same
    for all orthogonal D; with enough of it the difference is convex, and largest where the norm is least.
    """
    if rule.loss == "l3":
        return np.abs(Z) * Z
    if rule.loss == "l4":
        return Z * Z * Z
    mu = rule.smoothing * math.sqrt(square)
    return Z / mu - Z / np.sqrt(Z * Z + mu * mu)


def _extreme_point(momentum: Matrix, rule: Rule, D: Matrix) -> tuple[Matrix, Matrix]:
    """The ball's point farthest against the momentum, and numbers whose sum is ``-<momentum, point>``."""
    if rule.lmo == "svd":
        return polar_and_values(-momentum, near=D)
    S = newton_schulz(-momentum)
    return S, -np.einsum("ij,ij->j", momentum, S)


def _in_units(state: Learned, Y: Matrix, degree: int) -> Learned:
    """The state with a power of two under which Y's cubes neither overflow nor, if they are the first, vanish."""
    largest = max(float(Y.max()), -float(Y.min()))
    if largest == 0.0:
        return state
    power = math.frexp(largest)[1]
    if state.power is None:
        return state.scaled(power if abs(power) > MODERATE else 0, degree)
    return state.scaled(power, degree) if power - state.power > MODERATE else state


def _whitened(state: Learned, rule: Rule, Y: Matrix) -> tuple[Learned, Matrix]:
    """Y less the running mean, by the inverse root of the running second moment, both with Y in them."""
    kept = rule.forgetting ** len(Y) * state.weight
    weight = kept + len(Y)
    mean = state.mean
    if rule.center:
        mean = (kept * mean + Y.sum(0)) / weight
        Y = Y - mean
    if not rule.whiten:
        return dataclasses.replace(state, mean=mean, weight=weight), Y
    moment = (kept * state.moment + Y.T @ Y) / weight
    root, unroot = state.root, state.unroot
    if state.steps % REFRESH == 0:
        root, unroot = roots(moment)
    state = dataclasses.replace(state, mean=mean, moment=moment, root=root, unroot=unroot, weight=weight)
    return state, Y @ unroot


def roots(moment: Matrix) -> tuple[Matrix, Matrix]:
    """``C^(1/2)`` and ``C^(-1/2)`` of a second moment with a small ridge; the identity for one of zeros."""
    ridge = RIDGE * float(np.trace(moment)) / len(moment)
    if ridge <= 0.0:
        return np.eye(len(moment)), np.eye(len(moment))
    values, V = la.eigh(moment)
    size = np.sqrt(np.maximum(values, 0.0) + ridge)
    return (V * size) @ V.T, (V / size) @ V.T


def _clipped(
    state: Learned, quantile: float, rho: float, Y: Matrix, Z: Matrix
) -> tuple[Learned, Matrix, Matrix]:
    """Codes cut at the running quantile of their sizes, and the samples that have these codes."""
    here = max(float(np.quantile(np.abs(Z), quantile)), np.finfo(float).tiny)
    level = math.log(here) if state.steps == 0 else (1.0 - rho) * state.level + rho * math.log(here)
    bound = math.exp(level)
    kept = np.clip(Z, -bound, bound)
    return dataclasses.replace(state, level=level), Y - (Z - kept) @ state.D.T, kept

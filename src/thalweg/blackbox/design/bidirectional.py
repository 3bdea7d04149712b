"""Bidirectional learning: designs that the table predicts to be good, and that predict the table.

Chen, Zhang, Fu, Liu and Coates (2022, 2023), arXiv 2209.07507 and 2301.02931.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from thalweg.blackbox.design.adaptive import AdaptiveGamma
from thalweg.blackbox.design.descent import LetterDescent, LetterState, Pull, Pulled
from thalweg.blackbox.design.problem import SequenceTable
from thalweg.blackbox.design.proxy import Proxy
from thalweg.core import InvalidProblem
from thalweg.core.validation import is_real, is_whole, require

Mode = Literal["forward", "backward", "bidirectional", "joint"]
MODES = ("forward", "backward", "bidirectional", "joint")
#: What keeps the logarithm of a set's volume finite where two designs are one.
FLOOR = 1e-3


@dataclass(frozen=True, kw_only=True)
class BidirectionalDesign(LetterDescent):
    """Designs whose score the table predicts to be high, and from which the table's scores can be told in turn.

    Use it for a table that no further experiment can extend. The forward loss ``(w . h - target)^2`` alone finds
    the proxy's errors; the backward loss, the table's scores told from the design, draws it back to what the
    table knows. Neither is best everywhere: the adaptive weight is seldom far from the better one.

    Args:
        mode: ``"bidirectional"``, both losses; ``"forward"``, ``"backward"``, one of them; ``"joint"``, both, with
            designs in sets that tell the table together, drawn apart by ``diversity``. Default bidirectional.
        target: the score that designs are told to have, in deviations above the mean, default 10. See
            `SequenceDesign.sweep`.
        gamma: weight of the forward loss, a number or `AdaptiveGamma`. Default adaptive.
        together: designs of a set in mode ``"joint"``, default 4; it has to divide the number of proposals.
        diversity: weight of a set's volume there, ``-log det`` of the cosines of its features, default 0.1.
        encoder: makes the features, default `MaskedLetters`.
        steps: default 100, 25 for alphabets of more than 8 letters. step_size: of Adam, default 0.1, or `AdaptiveEta`.

    The run ends CONVERGED after its steps, if the loss has fallen and a design has left its start.

    Raises:
        InvalidParameter: an unknown mode, gamma outside [0, 1].
        InvalidProblem: ``together`` does not divide the number of proposals; an encoder without soft input.

    Cost per step: the encoder forward once and backward one to three times for all designs, and ``O(n min(D, rows)
    D)`` for n proposals.

    >>> from thalweg import solve
    >>> from thalweg.blackbox.design import OneHot, SequenceSpace
    >>> texts = ["AAA", "AAC", "ACA", "CAA"]
    >>> table = SequenceTable(SequenceSpace("AC", 3), texts, [0.0, 1.0, 1.0, 1.0], n=2)
    >>> solve(table, BidirectionalDesign(mode="forward", encoder=OneHot())).x.tolist()
    [[1, 1, 1], [1, 1, 1]]
    """

    mode: Mode = "bidirectional"
    target: float = 10.0
    gamma: float | AdaptiveGamma = AdaptiveGamma()
    together: int = 4
    diversity: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        known = self.mode in MODES
        require(known, f"BidirectionalDesign: mode is one of {', '.join(MODES)}", got=self.mode)
        finite = is_real(self.target) and math.isfinite(self.target)
        require(finite, "BidirectionalDesign needs a finite target", got=self.target)
        inside = isinstance(self.gamma, AdaptiveGamma) or (is_real(self.gamma) and 0 <= self.gamma <= 1)
        require(inside, "BidirectionalDesign needs 0 <= gamma <= 1, or AdaptiveGamma()", got=self.gamma)
        some = is_whole(self.together) and self.together >= 2
        require(some, "BidirectionalDesign needs together >= 2", got=self.together)
        weight = is_real(self.diversity) and 0 <= self.diversity < math.inf
        require(weight, "BidirectionalDesign needs diversity >= 0", got=self.diversity)

    def first_gamma(self) -> float:
        """1 for the forward loss alone, 0 for the backward one."""
        if self.mode in ("forward", "backward"):
            return float(self.mode == "forward")
        return self.gamma.start if isinstance(self.gamma, AdaptiveGamma) else float(self.gamma)

    def init(self, problem: SequenceTable, seed: int) -> LetterState:
        if self.mode == "joint" and problem.n % self.together:
            raise InvalidProblem(
                f"BidirectionalDesign: sets of {self.together} do not divide {problem.n} proposals; take another "
                "`together` or n."
            )
        return super().init(problem, seed)

    def pulled(
        self, problem: SequenceTable, proxy: Proxy, h: Tensor, pull: Pull, state: LetterState
    ) -> Pulled:
        gamma = (state.gamma, state.gamma_first, state.gamma_second)
        if self.mode == "forward":
            loss, toward = proxy.forward_gradient(h, self.target)
            return Pulled(pull(toward), loss, gamma)
        together = self.together if self.mode == "joint" else 1
        told, back = proxy.backward_gradient(h, self.target, together)
        if self.mode == "joint" and self.diversity:
            crowding, apart = crowded(h, together)
            told, back = told + self.diversity * crowding, back + self.diversity * apart
        if self.mode == "backward":
            return Pulled(pull(back), told, gamma)
        loss, toward = proxy.forward_gradient(h, self.target)
        if not isinstance(self.gamma, AdaptiveGamma):
            mixed = state.gamma[:, None] * toward + (1 - state.gamma[:, None]) * back
            return Pulled(pull(mixed), state.gamma * loss + (1 - state.gamma) * told, gamma)
        forward, backward = pull(toward), pull(back)
        score = pull(proxy.auxiliary_gradient(h)[1])
        eta = self.step_size if isinstance(self.step_size, float | int) else self.step_size.centre
        slope = self.gamma.hypergradient(eta, score, forward, backward)
        gamma = self.gamma.ascended(*gamma[:1], slope, *gamma[1:], state.steps + 1)
        share = gamma[0][:, None, None]
        mixed = share * forward + (1 - share) * backward
        return Pulled(mixed, gamma[0] * loss + (1 - gamma[0]) * told, gamma, score)


def crowded(h: Tensor, together: int) -> tuple[Tensor, Tensor]:
    """How alike the designs of a set are, ``-log det`` of their cosines, shared out; and its gradient in h."""
    leaf = h.detach().double().requires_grad_()
    unit = torch.nn.functional.normalize(leaf, dim=1).view(-1, together, h.shape[1])
    cosines = unit @ unit.mT + FLOOR * torch.eye(together, dtype=leaf.dtype)
    loss = (-torch.linalg.slogdet(cosines)[1] / together).repeat_interleave(together)
    return loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0].to(h.dtype)


@dataclass(frozen=True, kw_only=True)
class ProxyAscent(LetterDescent):
    """Plain ascent on a model of the table: the ridge's score, or the auxiliary ensemble's.

    The baseline of every other method: what it finds are good designs and the model's errors alike.

    Args:
        on: ``"ridge"``, the default, or ``"ensemble"``.
        encoder, steps, step_size: as for `BidirectionalDesign`.

    Cost per step: the encoder forward and backward once for all designs.
    """

    on: Literal["ridge", "ensemble"] = "ridge"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.on in ("ridge", "ensemble"), "ProxyAscent: on is ridge or ensemble", got=self.on)

    def pulled(
        self, problem: SequenceTable, proxy: Proxy, h: Tensor, pull: Pull, state: LetterState
    ) -> Pulled:
        gamma = (state.gamma, state.gamma_first, state.gamma_second)
        if self.on == "ridge":
            loss, gradient = proxy.score_gradient(h)
        else:
            score, gradient = proxy.auxiliary_gradient(h)
            loss, gradient = -score, -gradient
        return Pulled(pull(gradient), loss, gamma)

"""Models of a table: ridge regression on an encoder's features, forward and backward, and an auxiliary ensemble."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from thalweg.blackbox.design.encoders import Encoder, check_soft, encoded
from thalweg.blackbox.design.ensemble import Ensemble
from thalweg.blackbox.design.problem import SequenceTable
from thalweg.blackbox.design.space import Codes, SequenceSpace
from thalweg.core import InvalidProblem, NotFinite

Array = NDArray[np.float64]
#: Ridge over the mean of the kernel's diagonal, on the table and on a design.
RIDGE = 1e-6


class Proxy:
    """Ridge regression on features ``h``, and what designs are judged by on the way.

    Scores are standardised by their own mean and deviation. With features H, shape (n, D), the weights are ``w = H^T (H
    H^T + beta I)^-1 y`` and ``beta = 1e-6 tr(H H^T) / n``. The backward loss needs ``G = H^T H / n`` and ``r = H^T y /
    n``, so that a step knows nothing of n. Where D is larger than n, H itself takes the place of G.

    Args:
        problem: the table. encoder: makes the features. seed: of encoder and ensemble.

    Raises:
        InvalidProblem: an encoder without soft input. NotFinite: features that are NaN or infinite.

    Cost: ``O(n D min(n, D))`` once.
    """

    def __init__(self, problem: SequenceTable, encoder: Encoder, seed: int) -> None:
        self.space, self.seed = problem.space, seed
        best_first = np.argsort(-problem.values, kind="stable")
        rest = problem.text[problem.rows :]
        text = np.concatenate([problem.codes[best_first], rest])
        self.features = encoder.fitted(problem.space, text, seed)
        check_soft(self.features, problem.space)
        H = encoded(self.features, problem.codes, problem.space.letters)
        self.dtype = H.dtype
        H = H.double()
        if not bool(torch.isfinite(H).all()):
            raise NotFinite("The encoder's features are not finite; see its weights.")
        if not bool(H.any()):
            raise InvalidProblem("The encoder's features of every row are zero.")
        self.mean, self.std = float(problem.values.mean()), float(problem.values.std())
        y = torch.from_numpy((problem.values - self.mean) / self.std)
        self.w = ridge(H, y)
        self.gram = BackwardForm(H, y)
        self.w_used, self._H, self._y = self.w.to(self.dtype), H, y

    @cached_property
    def ensemble(self) -> Ensemble:
        """The auxiliary model, trained when first needed."""
        return Ensemble(self._H, self._y, self.seed)

    def encode(self, codes: Codes) -> Tensor:
        """Features of sequences in float64, shape (n, D)."""
        return encoded(self.features, codes, self.space.letters).double()

    def predict(self, codes: Codes) -> Array:
        """The ridge's scores, in the table's unit."""
        return self.mean + self.std * (self.encode(codes) @ self.w).numpy()

    def auxiliary(self, codes: Codes) -> tuple[Array, Array]:
        """The ensemble's mean and spread, in the table's unit."""
        with torch.no_grad():
            found = self.ensemble(self.encode(codes)).numpy()
        return self.mean + self.std * found.mean(0), self.std * found.std(0)

    def forward_gradient(self, h: Tensor, target: float) -> tuple[Tensor, Tensor]:
        """``(h . w - target)^2`` of each design, and its gradient in h."""
        off = h @ self.w_used - target
        return off * off, 2 * off[:, None] * self.w_used

    def score_gradient(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """``- h . w`` and its gradient."""
        return -(h @ self.w_used), -self.w_used.expand_as(h)

    def auxiliary_gradient(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """The ensemble's mean of each design, standardised, and its gradient in h."""
        leaf = h.detach().double().requires_grad_()
        found = self.ensemble(leaf).mean(0)
        return found.detach(), torch.autograd.grad(found.sum(), leaf)[0].to(h.dtype)

    def backward_gradient(self, h: Tensor, target: float, together: int = 1) -> tuple[Tensor, Tensor]:
        """How badly designs, taken for the only data, tell the table: of each, and the gradient in h.

        ``together`` designs at a time are one set: ``mean_l (h_l^T H_h^T (K_hh + 1e-6 D_hh)^-1 target - y_l)^2`` with
        D_hh the diagonal of K_hh; each design of a set carries its share.
        """
        leaf = h.detach().double().requires_grad_()
        loss = self.gram(told_weights(leaf, target, together)).repeat_interleave(together) / together
        return loss.detach(), torch.autograd.grad(loss.sum(), leaf)[0].to(h.dtype)


def proxy_of(problem: SequenceTable, encoder: Encoder, seed: int) -> Proxy:
    """The models of a table that methods design on; made once for each encoder and seed."""
    return problem.made((encoder, seed), lambda: Proxy(problem, encoder, seed))


def told_weights(h: Tensor, target: float, together: int = 1) -> Tensor:
    """The ridge weights of designs as the only data, all with the score ``target``: shape (designs / together, D)."""
    if together == 1:
        own = h.square().sum(1, keepdim=True)
        return h * (target / (own * (1 + RIDGE)))
    groups = h.view(-1, together, h.shape[1])
    K = groups @ groups.mT
    # A floor of the mean: two equal designs make K singular, and only the ridge tells them apart.
    K = K + torch.diag_embed(RIDGE * K.diagonal(dim1=1, dim2=2))
    a = torch.linalg.solve(K, torch.full_like(K[:, :, :1], target))
    return (groups * a).sum(1)


def ridge(H: Tensor, y: Tensor) -> Tensor:
    """``H^T (H H^T + beta I)^-1 y``, shape (D,), by the smaller of the two systems."""
    n, D = H.shape
    beta = RIDGE * float(H.square().sum()) / n
    if n > D:
        A, b = H.T @ H, H.T @ y
        return torch.linalg.solve(A + beta * torch.eye(D, dtype=H.dtype), b)
    return H.T @ torch.linalg.solve(H @ H.T + beta * torch.eye(n, dtype=H.dtype), y)


class BackwardForm:
    """``mean_l (h_l . c - y_l)^2`` of any c, shape (m, D), for a table H, shape (n, D), and y, shape (n,).

    Cost of a call: ``O(m D^2)`` by the Gram matrix, whatever n is; ``O(m n D)`` where n is smaller than D.

    >>> H, y, c = torch.ones(3, 2, dtype=torch.double), torch.zeros(3, dtype=torch.double), torch.ones(1, 2)
    >>> float(BackwardForm(H, y)(c.double())[0])
    4.0
    """

    def __init__(self, H: Tensor, y: Tensor) -> None:
        n, D = H.shape
        self._power = float(y.square().mean())
        self._r = H.T @ y / n
        self._matrix = H.T @ H / n if n >= D else H
        self._is_gram = n >= D

    def __call__(self, c: Tensor) -> Tensor:
        if self._is_gram:
            square = ((c @ self._matrix) * c).sum(1)
        else:
            square = (c @ self._matrix.T).square().mean(1)
        return square - 2 * (c @ self._r) + self._power


def soft_letters(theta: Tensor, hard: Tensor) -> Tensor:
    """One-hot letters forward, the softmax's derivative backward: the straight-through estimator.

    Args:
        theta: logits, shape (batch, length, letters); minus infinity forbids a letter.
        hard: the letters to show, shape (batch, length).
    """
    soft = theta.softmax(-1)
    shown = torch.nn.functional.one_hot(hard, theta.shape[-1]).to(soft.dtype)
    return shown + soft - soft.detach()


def letters_of(theta: Tensor, space: SequenceSpace, parents: Tensor) -> Tensor:
    """The letters that logits stand for, shape (batch, length): the largest, no more than ``edits`` of them changed.

    Where more positions would change, those with the largest lead over the parent's letter do.
    """
    hard = theta.argmax(-1)
    if space.edits is None or space.edits >= space.positions:
        return hard
    lead = theta.amax(-1) - theta.gather(-1, parents[..., None])[..., 0]
    lead = torch.where(hard == parents, -torch.inf, lead)
    kept = lead.topk(space.edits, 1).indices
    changed = parents.scatter(1, kept, hard.gather(1, kept))
    return changed

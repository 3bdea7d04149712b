"""Derivatives of a policy's value from a sample, by differentiating one function twice: no matrix is formed.

Foerster, Farquhar, Al-Shedivat, Rocktaschel, Xing and Whiteson (2018), "DiCE" (arXiv 1802.05098).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from thalweg.bilevel.alignment.policies import Policy
from thalweg.bilevel.alignment.rewards import RewardModel
from thalweg.bilevel.alignment.segments import Segments
from thalweg.core import InvalidParameter, UnknownName
from thalweg.numerics.tensor_checks import divisor
from thalweg.numerics.torch_krylov import LinearSolver, Product

#: How ``M x = b`` is solved.
InverseName = Literal["cg", "neumann", "dense"]
#: Parameters up to which ``dense`` makes the matrix.
DENSE = 512
#: Most times that damping is raised where the sampled Hessian is indefinite.
RAISES = 30


class TrajectorySurrogate:
    """``sum_h gamma^h r_h exp(L_h - stop(L_h))``, ``L_h`` the sum of ``ln pi`` so far: its derivatives are those of V.

    Each step's mean reward is taken off. With the entropy's part and ``-(ridge/2)|theta|^2``.

    Args:
        policy, reward: with parameters ``theta`` (n,) and ``nu`` (m,).
        segments: N whole lives from their start.
        discount, entropy, ridge: as in the task.

    Cost: one gradient with its graph; then each product is about two gradients.
    """

    def __init__(
        self,
        policy: Policy,
        reward: RewardModel,
        segments: Segments,
        theta: Tensor,
        nu: Tensor,
        *,
        discount: float,
        entropy: float,
        ridge: float,
    ) -> None:
        self._theta, self._nu = theta.detach().requires_grad_(), nu.detach().requires_grad_()
        logs = policy.log_prob(self._theta, segments)
        powers = discount ** torch.arange(segments.length, dtype=logs.dtype)
        rewards = reward.steps(self._nu, segments)
        so_far = logs.cumsum(1)
        box = (so_far - so_far.detach()).exp()
        each = (powers * (rewards - rewards.mean(0)) * box).sum(1)
        if entropy:
            told = policy.entropies(self._theta, segments)
            before = box / (logs - logs.detach()).exp()
            each = each + entropy * (powers * (told - told.mean(0).detach()) * before).sum(1)
        self._each = each  # of each life, shape (N,)
        value = each.mean() - 0.5 * ridge * self._theta @ self._theta
        (self._slope,) = torch.autograd.grad(value, self._theta, create_graph=True)
        #: ``grad_theta V``, shape (n,).
        self.gradient = self._slope.detach()

    def hessian_product(self, v: Tensor) -> Tensor:
        """``(d2V / dtheta2) v``, shape (n,)."""
        return torch.autograd.grad(self._slope, self._theta, v, retain_graph=True)[0]

    def mixed_transposed(self, v: Tensor) -> Tensor:
        """``(d2V / dtheta dnu)' v``, shape (m,)."""
        found = torch.autograd.grad(
            self._slope, self._nu, v, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return found[0]

    def by_groups(self, v: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """Both products with ``v`` as each of so many groups of lives has them, shapes (groups, n) and (groups, m).

        The ridge, which is the same in all, is left out. Cost: a gradient and a product a group.
        """
        curved, mixed = [], []
        for k in range(groups):
            part = self._each[k::groups].mean()
            (slope,) = torch.autograd.grad(part, self._theta, create_graph=True)
            found = torch.autograd.grad(
                slope,
                (self._theta, self._nu),
                v,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            curved.append(found[0])
            mixed.append(found[1])
        return torch.stack(curved), torch.stack(mixed)


@dataclass(frozen=True, eq=False)
class Response:
    """``x = M^{-1} b``: ``damping`` was added to M or is the floor of its eigenvalues, ``raised`` how often it was,
    or how many eigenvalues were; ``products`` with the Hessian; ``solve`` takes more rows with the same M and damping.
    """

    x: Tensor
    damping: float
    raised: int
    products: int
    solve: Callable[[Tensor], Tensor]


def responses(
    hessian_product: Product, sources: Tensor, how: InverseName, floor: float, *, steps: int = 20
) -> Response:
    """Solve ``M x = b`` with ``M = -Hessian``, for the rows of ``sources``, shape (k, n).

    Args:
        hessian_product: of the value, which is at a maximum, or nearly.
        how: ``"cg"``, conjugate gradients; ``"neumann"``, ``x <- x + (b - M x) / largest eigenvalue``, as many steps;
            ``"dense"``, the matrix with its eigenvalues raised to the floor, up to 512 parameters.
        floor: least eigenvalue; where a sample's curvature is negative, ``"cg"`` and ``"neumann"`` add damping, from
            this on in factors of 2, until it is not.
        steps: most products for each row.

    Cost: ``steps`` products a row; ``"dense"`` n products and O(n^3).

    >>> H = -torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))
    >>> responses(lambda v: H @ v, torch.ones(1, 2, dtype=torch.float64), "cg", 1e-3).x
    tensor([[1.0000, 0.2500]], dtype=torch.float64)
    """
    if how not in get_args(InverseName):
        raise UnknownName("inverse", how, get_args(InverseName))
    n = sources.shape[1]
    if how == "dense":
        if n > DENSE:
            raise InvalidParameter(
                f"inverse='dense' makes an n x n matrix, for up to {DENSE} parameters; the policy has {n}. Take 'cg'."
            )
        eye = torch.eye(n, dtype=sources.dtype)
        M = -torch.stack([hessian_product(e) for e in eye])
        values, vectors = torch.linalg.eigh(0.5 * (M + M.T))
        raised = int((values < floor).sum())

        def by_vectors(b: Tensor) -> Tensor:
            return ((b @ vectors) / values.clamp_min(floor)) @ vectors.T

        return Response(by_vectors(sources), floor if raised else 0.0, raised, n, by_vectors)
    products, damping = 0, 0.0
    largest = 0.0
    if how == "neumann":
        largest, products = _largest(hessian_product, sources[0])
    for raised in range(RAISES):
        watched = _Watched(hessian_product, damping)

        def by_products(b: Tensor, watched: _Watched = watched) -> Tensor:
            if how == "cg":
                return torch.stack([LinearSolver("cg", 1e-10, steps)(watched, row).x for row in b])
            eta = 1.0 / (largest + watched.damping)
            return torch.stack([_neumann(watched, row, eta, steps) for row in b])

        x = by_products(sources)
        products += watched.products
        if not watched.negative:
            return Response(x, damping, raised, products, by_products)
        damping = max(floor, 2.0 * damping)
    raise InvalidParameter(
        f"The lower Hessian stays indefinite with damping {damping:.3g}: give more episodes, or a larger ridge."
    )


class _Watched:
    """``v -> M v + damping v``, which notes whether curvature was negative."""

    def __init__(self, hessian_product: Product, damping: float) -> None:
        self._product, self.damping = hessian_product, damping
        self.negative, self.products = False, 0

    def __call__(self, v: Tensor) -> Tensor:
        self.products += 1
        found = self.damping * v - self._product(v)
        self.negative |= float(v @ found) < 0.0
        return found


def _neumann(M: Product, b: Tensor, eta: float, steps: int) -> Tensor:
    x = torch.zeros_like(b)
    for _ in range(steps):
        x = x + eta * (b - M(x))
    return x


def _largest(hessian_product: Product, start: Tensor) -> tuple[float, int]:
    """The largest size of an eigenvalue by twenty power iterations, a tenth added for what they miss."""
    v = start / divisor(torch.linalg.vector_norm(start))
    size = 0.0
    for _ in range(20):
        w = hessian_product(v)
        size = float(torch.linalg.vector_norm(w))
        if not size > 0.0 or not math.isfinite(size):
            break
        v = w / size
    return 1.1 * max(size, 1e-300), 20

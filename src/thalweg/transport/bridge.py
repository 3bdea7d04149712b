"""The light Schrodinger bridge: a plan, a drift and a diffusion in closed form, from a mixture of Gaussians.

Korotin, Gushchin and Burnaev (2024), "Light Schrodinger bridge" (arXiv 2310.01174), sections 3.1 and 3.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.core.validation import as_real, check_finite, is_real, is_whole, require

#: Numbers held at once where a tensor of points x components x dimensions is needed.
BLOCK = 1 << 22


@dataclass(frozen=True, eq=False)
class Bridge:
    """``pi(y|x) = sum_k w_k(x) N(y; r_k + S_k x, eps S_k)`` and the diffusion that has it as the law of its two ends.

    ``w(x)`` is the softmax of ``log a_k + (x' S_k x + 2 r_k' x) / (2 eps)``. Every such plan is optimal for its own two
    marginals, cost ``|x - y|^2 / 2`` and entropy weight eps; `EntropicTransport` fits one to samples.

    Args:
        eps: entropy weight, > 0: the variance of the diffusion, in squared units of the data.
        log_a: shape (K,), an array or a tensor as all that follows; adding a number to all of them changes nothing.
        R: shape (K, D).
        S: shape (K, D), positive, for diagonal matrices; or (K, D, D), symmetric positive definite.
        centre0, centre1: shape (D,), taken off x and off y before all of the above. Default 0. Where the clouds lie
            far from zero or from each other, centres keep digits.

    Points are arrays or tensors of shape (n, D) in the data's units; answers are tensors on the bridge's device.
    The bridge back, from y to x, needs the law of x: fit the swapped pair.

    Raises:
        InvalidProblem: shapes that do not fit, S not positive definite, NaN. InvalidParameter: eps <= 0.

    Cost: n points take ``O(n K D)`` operations, ``O(n K D^2)`` with full S, in products of matrices without a tensor
    of n x K x D; ``n (K + D)`` numbers of memory, ``n (K + D^2)`` with full S.

    >>> one = Bridge(1.0, [0.0], [[2.0]], [[0.5]])
    >>> one.barycentric([[4.0]]), one.conditional_covariance([[4.0]])
    (tensor([[4.]], dtype=torch.float64), tensor([[[0.5000]]], dtype=torch.float64))
    """

    eps: float
    log_a: Tensor
    R: Tensor
    S: Tensor
    centre0: Tensor = None  # type: ignore[assignment]  # a tensor of zeros from here on
    centre1: Tensor = None  # type: ignore[assignment]
    #: Lower Cholesky factors of S, or roots of its diagonals.
    root: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        require(is_real(self.eps) and 0 < self.eps < math.inf, "Bridge needs eps > 0, finite", got=self.eps)
        R = _numbers("R", self.R, None)
        if R.ndim != 2 or not R.numel():
            raise InvalidProblem(f"Bridge: R has shape {tuple(R.shape)}; expected (components, dimensions).")
        K, D = R.shape
        log_a, S = _numbers("log_a", self.log_a, R), _numbers("S", self.S, R)
        if log_a.shape != (K,) or S.shape not in ((K, D), (K, D, D)):
            raise InvalidProblem(
                f"Bridge: log_a has shape {tuple(log_a.shape)} and S {tuple(S.shape)}; expected ({K},), and "
                f"({K}, {D}) or ({K}, {D}, {D})."
            )
        for name, value in (("log_a", log_a), ("R", R), ("S", S), ("root", _root(S))):
            object.__setattr__(self, name, value)
        for name in ("centre0", "centre1"):
            given = getattr(self, name)
            centre = torch.zeros_like(R[0]) if given is None else _numbers(name, given, R)
            if centre.shape != (D,):
                raise InvalidProblem(f"Bridge: {name} has shape {tuple(centre.shape)}; expected ({D},).")
            object.__setattr__(self, name, centre)

    @property
    def n_components(self) -> int:
        """K."""
        return int(self.R.shape[0])

    @property
    def dimensions(self) -> int:
        """D."""
        return int(self.R.shape[1])

    @property
    def is_full(self) -> bool:
        """Whether the S_k are matrices, and not diagonals."""
        return self.S.ndim == 3

    def points(self, name: str, values: ArrayLike | Tensor) -> Tensor:
        """``values`` as finite points of shape (n, D) on the bridge's device, or `InvalidProblem`."""
        found = _numbers(name, values, self.R)
        if found.ndim != 2 or found.shape[1] != self.dimensions:
            raise InvalidProblem(
                f"{name} has shape {tuple(found.shape)}; expected (points, {self.dimensions})."
            )
        farthest = torch.finfo(found.dtype).max ** 0.45  # sums of squares are numbers
        if bool((found.abs() > farthest).any()):
            raise InvalidProblem(
                f"{name} reaches {float(found.abs().max()):.3g}; expected points up to {farthest:.3g}, whose squares "
                "are numbers."
            )
        return found

    def log_normalizer(self, x: ArrayLike | Tensor) -> Tensor:
        """``log c(x)``, shape (n,): the logarithm of what the weights are divided by, of the centred x."""
        return self._exponents(self._centred(self.points("x", x), 0.0), 0.0).logsumexp(1)

    def potential(self, y: ArrayLike | Tensor) -> Tensor:
        """``log v(y) = log sum_k a_k N(y; r_k, eps S_k)``, shape (n,), of the centred y."""
        y = self._centred(self.points("y", y), 1.0)
        return log_mixture(y, self.log_a, self.R, self.S, self.root, self.eps).logsumexp(1)

    def weights(self, x: ArrayLike | Tensor, t: float = 0.0) -> Tensor:
        """Each component's share in the law of the end, given that the diffusion is at x at time t, shape (n, K)."""
        _check_time(t)
        return self._exponents(self._centred(self.points("x", x), t), t).softmax(1)

    def log_density(self, y: ArrayLike | Tensor, x: ArrayLike | Tensor) -> Tensor:
        """``log pi(y_i | x_i)``, shape (n,)."""
        x, y = self.points("x", x), self.points("y", y)
        if len(x) != len(y):
            raise InvalidProblem(f"log_density: {len(y)} y and {len(x)} x; expected as many of each.")
        product = (self._centred(x, 0.0) * self._centred(y, 1.0)).sum(1) / self.eps
        return product + self.potential(y) - self.log_normalizer(x)

    def barycentric(self, x: ArrayLike | Tensor, t: float = 0.0) -> Tensor:
        """The mean of the end, given that the diffusion is at x at time t (default: given x), shape (n, D)."""
        _check_time(t)
        x = self._centred(self.points("x", x), t)
        SG, Gr, _ = self._law(t)
        W = self._exponents(x, t).softmax(1)
        return self.centre1 + (1 - t) * (W @ Gr) + _applied(W, SG, x)

    def conditional_covariance(self, x: ArrayLike | Tensor) -> Tensor:
        """The covariance of y given x, shape (n, D, D)."""
        points, K, D = self.points("x", x), self.n_components, self.dimensions
        size = max(1, BLOCK // (K * D))
        return torch.cat([self._covariance(block) for block in torch.split(points, size)])

    def _covariance(self, x: Tensor) -> Tensor:
        mean = self.barycentric(x) - self.centre1
        x, R, S = self._centred(x, 0.0), self.R, self.S
        W = self._exponents(x, 0.0).softmax(1)
        moved = torch.einsum("kde,ne->nkd", S, x) if self.is_full else x[:, None] * S
        between = (R + moved - mean[:, None]) * W.sqrt()[:, :, None]
        K, D = R.shape
        within = (W @ S.reshape(K, -1)).view(-1, D, D) if self.is_full else torch.diag_embed(W @ S)
        return self.eps * within + between.mT @ between

    def sample(self, x: ArrayLike | Tensor, generator: torch.Generator, t: float = 0.0) -> Tensor:
        """One end for each x, drawn from its law given that the diffusion is at x at time t, shape (n, D)."""
        _check_time(t)
        x = self._centred(self.points("x", x), t)
        SG, Gr, _ = self._law(t)
        k = torch.multinomial(self._exponents(x, t).softmax(1), 1, generator=generator)[:, 0]
        z = _normal(x, generator)
        if not self.is_full:
            mean = (1 - t) * Gr[k] + SG[k] * x
            return self.centre1 + mean + (self.eps * (1 - t) * SG).sqrt()[k] * z
        root = torch.linalg.cholesky(self.eps * (1 - t) * SG)
        end = torch.empty_like(x)
        for component in range(self.n_components):  # one product a component, and no matrix a point
            at = k == component
            end[at] = (1 - t) * Gr[component] + x[at] @ SG[component] + z[at] @ root[component].T
        return self.centre1 + end

    def drift(self, x: ArrayLike | Tensor, t: float) -> Tensor:
        """``g(x, t)`` of ``dX = g dt + sqrt(eps) dW``, shape (n, D), for 0 <= t < 1."""
        points = self.points("x", x)
        return (self.barycentric(points, t) - points) / (1 - t)

    def trajectory(
        self,
        x: ArrayLike | Tensor,
        steps: int,
        generator: torch.Generator,
        how: Literal["sde", "bridge"] = "sde",
    ) -> Tensor:
        """The diffusion from each x at times 0, 1/steps, ..., 1, shape (steps + 1, n, D).

        ``"sde"`` takes Euler-Maruyama steps along the drift, and draws the last one from its law. ``"bridge"`` draws
        the ends and then Brownian bridges: exact for any number of steps.
        """
        require(is_whole(steps) and steps >= 1, "trajectory needs steps >= 1", got=steps)
        require(how in ("sde", "bridge"), "trajectory: how is sde or bridge", got=how)
        points = self.points("x", x)
        path, dt = [points], 1.0 / steps
        end = self.sample(points, generator) if how == "bridge" else None
        for i in range(steps - 1):
            now, left = path[-1], 1.0 - i * dt
            g = self.drift(now, i * dt) if end is None else (end - now) / left
            share = 1.0 if end is None else (left - dt) / left
            path.append(now + dt * g + math.sqrt(self.eps * dt * share) * _normal(now, generator))
        path.append(self.sample(path[-1], generator, (steps - 1) * dt) if end is None else end)
        return torch.stack(path)

    def interpolate(self, x: ArrayLike | Tensor, t: float, generator: torch.Generator) -> Tensor:
        """The diffusion from each x at time t in [0, 1], drawn at once from its law, shape (n, D)."""
        require(is_real(t) and 0 <= t <= 1, "interpolate needs 0 <= t <= 1", got=t)
        points = self.points("x", x)
        end = self.sample(points, generator)
        spread = math.sqrt(self.eps * t * (1 - t))
        return (1 - t) * points + t * end + spread * _normal(points, generator)

    def rvs(self, x: ArrayLike | Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``size`` pairs of the plan: x drawn with replacement from the rows given, and its end."""
        require(is_whole(size) and size >= 1, "rvs needs size >= 1", got=size)
        points = self.points("x", x)
        drawn = torch.randint(len(points), (size,), generator=generator, device=points.device)
        return points[drawn], self.sample(points[drawn], generator)

    def _centred(self, x: Tensor, t: float) -> Tensor:
        return x - (1 - t) * self.centre0 - t * self.centre1

    def _law(self, t: float) -> tuple[Tensor, Tensor, Tensor]:
        """``S G``, ``G r`` and the exponents' constants, with ``G = (t S + (1 - t) I)^-1``.

        Component k of the end's law at time t has mean ``(1 - t) G r + S G x`` and covariance ``eps (1 - t) S G``: the
        paper's A_k^-1 c_k and A_k^-1, without an inverse of S.
        """
        R, S = self.R, self.S
        if t == 0:
            return S, R, self.log_a
        if self.is_full:
            eye = torch.eye(self.dimensions, dtype=R.dtype, device=R.device)
            root = torch.linalg.cholesky(t * S + (1 - t) * eye)
            SG, Gr = torch.cholesky_solve(S, root), torch.cholesky_solve(R[:, :, None], root)[:, :, 0]
            SG, logdet = (SG + SG.mT) / 2, 2 * root.diagonal(dim1=1, dim2=2).log().sum(1)
        else:
            mixed = t * S + (1 - t)
            SG, Gr, logdet = S / mixed, R / mixed, mixed.log().sum(1)
        return SG, Gr, self.log_a - logdet / 2 - t * (R * Gr).sum(1) / (2 * self.eps)

    def _exponents(self, x: Tensor, t: float) -> Tensor:
        """What the softmax is taken of, shape (n, K), of centred x."""
        SG, Gr, constant = self._law(t)
        slope = torch.cat([SG.flatten(1) / (2 * (1 - t)), Gr], 1) / self.eps
        return torch.addmm(constant, features(x, self.is_full), slope.T)


def features(x: Tensor, is_full: bool) -> Tensor:
    """Squares (or all products) of the coordinates beside them, shape (n, D + D) or (n, D^2 + D): exponents are linear
    in these, so that no tensor of points x components x dimensions is needed.
    """
    square = (x[:, :, None] * x[:, None, :]).flatten(1) if is_full else x * x
    return torch.cat([square, x], 1)


def log_mixture(y: Tensor, log_a: Tensor, R: Tensor, S: Tensor, root: Tensor, eps: float) -> Tensor:
    """``log a_k N(y; r_k, eps S_k)``, shape (n, K), of centred y."""
    D, is_full = R.shape[1], S.ndim == 3
    if is_full:
        inverse = torch.cholesky_inverse(root)
        scaled = (inverse @ R[:, :, None])[:, :, 0]
        logdet = 2 * root.diagonal(dim1=1, dim2=2).log().sum(1)
    else:
        inverse = 1 / S
        scaled, logdet = R * inverse, S.log().sum(1)
    constant = log_a - (D * math.log(2 * math.pi * eps) + logdet + (R * scaled).sum(1) / eps) / 2
    slope = torch.cat([inverse.flatten(1) / -2, scaled], 1) / eps
    return torch.addmm(constant, features(y, is_full), slope.T)


def _applied(W: Tensor, M: Tensor, x: Tensor) -> Tensor:
    """``sum_k W_nk M_k x_n``, shape (n, D)."""
    if M.ndim == 2:
        return (W @ M) * x
    return torch.einsum("nde,ne->nd", (W @ M.flatten(1)).view(-1, *M.shape[1:]), x)


def _root(S: Tensor) -> Tensor:
    """Lower Cholesky factors, or roots of diagonals."""
    if S.ndim == 2:
        if not bool((S > 0).all()):
            raise InvalidProblem("Bridge: S has entries <= 0; expected positive diagonals.")
        return S.sqrt()
    if not torch.allclose(S, S.mT, rtol=1e-6, atol=0.0):
        raise InvalidProblem("Bridge: S is not symmetric. Pass (S + S.mT) / 2 if that is meant.")
    root, info = torch.linalg.cholesky_ex(S)
    if bool(info.any()):
        raise InvalidProblem(f"Bridge: S[{int(info.nonzero()[0, 0])}] is not positive definite.")
    return root


def _check_time(t: float) -> None:
    if not is_real(t) or not 0 <= t < 1:
        raise InvalidParameter(
            f"A bridge's law is asked for at 0 <= t < 1; got {t!r}. At 1 the end is reached."
        )


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator)


def _numbers(name: str, values: ArrayLike | Tensor, like: Tensor | None) -> Tensor:
    """Finite numbers as a tensor: on the device and of the kind of ``like``, or of their own, at least float32."""
    if isinstance(values, Tensor) and values.is_floating_point():
        if not bool(torch.isfinite(values).all()):
            check_finite(name, values.detach().cpu().double().numpy())
        wide = values if values.dtype in (torch.float32, torch.float64) else values.double()
        return wide.to(like) if like is not None else wide
    array = as_real(name, values)
    check_finite(name, array)
    found = torch.from_numpy(array if array.flags.writeable else array.copy())
    return found.to(like) if like is not None else found

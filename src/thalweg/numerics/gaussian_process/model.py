"""Gaussian-process regression: the model, its likelihood with gradient, and how its parameters are found.

Rasmussen and Williams (2006), chapters 2 and 5; Frazier (2018), "A tutorial on Bayesian optimization", section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from thalweg.core import InvalidProblem, NotFinite
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import require
from thalweg.numerics.bfgs import minimize_many
from thalweg.numerics.gaussian_process.kernels import Kernel, Matern, Prior, Scaled
from thalweg.numerics.gaussian_process.posterior import Posterior, cholesky, solve_lower

#: Log-normal prior of a learned noise variance, for standardised values, and the least variance it may have.
NOISE_PRIOR = (-7.0, 3.0)
NOISE_FLOOR = 1e-6


@dataclass(frozen=True)
class GaussianProcess:
    """A Gaussian process with a polynomial mean and Gaussian noise.

    Values should be standardised and points lie in the unit cube: the priors of the kernels are for that.

    Args:
        kernel: covariance function. The default is Matern 5/2 with a lengthscale for each coordinate.
        degree: of the mean: 0 a constant (default), 1 and 2 with linear and squared terms, -1 zero. Its coefficients
            are the generalised least-squares ones, the shortest where terms depend on one another, at no cost in
            parameters.
        learn_noise: whether the variance of the noise is a hyper-parameter, the last one. Known variances are
            passed with the data, and both add up.

    >>> X = torch.linspace(0, 1, 9, dtype=torch.float64)[:, None]
    >>> posterior = GaussianProcess(learn_noise=False).fit(X, torch.sin(6 * X[:, 0]))
    >>> mean, variance = posterior.predict(torch.tensor([[0.3]], dtype=torch.float64))
    >>> bool((mean - math.sin(1.8)).abs() < 0.01)
    True
    """

    kernel: Kernel = field(default_factory=lambda: Scaled(Matern()))
    degree: int = 0
    learn_noise: bool = True

    def __post_init__(self) -> None:
        require(self.degree in (-1, 0, 1, 2), "GaussianProcess needs degree -1, 0, 1 or 2", got=self.degree)

    def prior(self, d: int) -> Prior:
        """Mean and standard deviation of the logarithm of each hyper-parameter."""
        means, stds = self.kernel.prior(d)
        if self.learn_noise:
            return [*means, NOISE_PRIOR[0]], [*stds, NOISE_PRIOR[1]]
        return means, stds

    def kernel_theta(self, theta: Tensor) -> Tensor:
        """The kernel's part of the hyper-parameters."""
        return theta[..., :-1] if self.learn_noise else theta

    def noise_variance(self, theta: Tensor, n: int, known: Tensor | float | None = None) -> Tensor:
        """Variance of the noise of n observations, shape (*models, n)."""
        variance = (
            theta.new_zeros(())
            if known is None
            else torch.as_tensor(known, dtype=theta.dtype, device=theta.device)
        )
        if self.learn_noise:
            variance = variance + torch.exp(theta[..., -1:])
        return variance.expand(*theta.shape[:-1], n)

    def basis(self, A: Tensor) -> Tensor:
        """The terms of the mean function, shape (..., n, r)."""
        terms = [A[..., :1] * 0 + 1] if self.degree >= 0 else [A[..., :0]]
        if self.degree >= 1:
            terms.append(A)
        if self.degree >= 2:
            terms.append(A.square())
        return torch.cat(terms, -1)

    def weights(self, X: Tensor, y: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        """Coefficients of the mean, (*models, r), and ``covariance^-1 (y - mean)``, (*models, n)."""
        H = self.basis(X)
        models = factor.shape[:-2]
        white_y = solve_lower(factor, y.expand(*models, -1)[..., None])
        if H.shape[-1]:
            white = solve_lower(factor, H.expand(*models, *H.shape))
            # by singular values: torch's own least squares takes dependent columns for independent ones now and then
            trend = (torch.linalg.pinv(white) @ white_y)[..., 0]
            white_y = white_y - white @ trend[..., None]
        else:
            trend = y.new_zeros(*models, 0)
        weights = torch.linalg.solve_triangular(factor.transpose(-1, -2), white_y, upper=True)
        return trend, weights[..., 0]

    def posterior(
        self, theta: Tensor, X: Tensor, y: Tensor, noise: Tensor | float | None = None
    ) -> Posterior:
        """The process given data, at hyper-parameters ``theta``, shape (*models, p).

        Args:
            X: points, shape (n, d).
            y: values, shape (n,) or (*models, n).
            noise: known variance of each observation, shape (n,), or of all.

        Raises:
            InvalidProblem: shapes that do not fit, no data.
            NotFinite: NaN or infinity in the data.

        Cost: n^3/3 operations a model.
        """
        X, y = self._checked(theta, X, y)
        variances = self.noise_variance(theta, len(X), noise)
        covariance = self.kernel(self.kernel_theta(theta), X, X) + torch.diag_embed(variances)
        factor = cholesky(covariance)
        trend, weights = self.weights(X, y, factor)
        return Posterior(self, theta, X, y.expand(*theta.shape[:-1], -1), variances, factor, trend, weights)

    def energy(
        self, theta: Tensor, X: Tensor, y: Tensor, noise: Tensor | float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Negative log posterior density of the hyper-parameters, shape (*models,), and its gradient.

        The gradient through the linear algebra is worked out by hand, ``(K^-1 - a a')/2`` with ``a`` the weights
        (eq. 5.9); only the kernel itself is differentiated by torch.

        Cost: one Cholesky factorisation and one inverse of size n, some passes over n^2 numbers.
        """
        leaf = theta.detach().requires_grad_(True)
        with torch.enable_grad():
            K = self.kernel(self.kernel_theta(leaf), X, X)
            variances = self.noise_variance(leaf, len(X), noise)
        factor = cholesky(K.detach() + torch.diag_embed(variances.detach()))
        trend, weights = self.weights(X, y, factor)
        residual = y - (self.basis(X) @ trend[..., None])[..., 0]
        means, stds = (theta.new_tensor(v) for v in self.prior(X.shape[-1]))
        gap = (theta - means) / stds
        value = 0.5 * (residual * weights).sum(-1) + torch.log(factor.diagonal(dim1=-2, dim2=-1)).sum(-1)
        value = value + 0.5 * len(X) * math.log(2.0 * math.pi) + 0.5 * gap.square().sum(-1)
        slope = 0.5 * (torch.cholesky_inverse(factor) - weights[..., :, None] * weights[..., None, :])
        outputs, slopes = [K], [slope]
        if variances.requires_grad:
            outputs.append(variances)
            slopes.append(slope.diagonal(dim1=-2, dim2=-1))
        # As one number, since handing slopes to autograd makes torch import sympy, a second of a first suggestion.
        with torch.enable_grad():
            total = torch.stack([(o * s).sum() for o, s in zip(outputs, slopes, strict=True)]).sum()
        (gradient,) = torch.autograd.grad(total, leaf)
        return value, gradient + gap / stds

    def fit(
        self,
        X: Tensor,
        y: Tensor,
        noise: Tensor | float | None = None,
        *,
        starts: int = 4,
        warm: Tensor | None = None,
        iterations: int = 60,
        seed: int = 0,
    ) -> Posterior:
        """The posterior at the most probable hyper-parameters: the best of several starts, all climbing at once.

        Args:
            X, y, noise: the data, as for `posterior`.
            starts: the prior's mean, and draws from it.
            warm: hyper-parameters to start from as well, shape (p,); those of the data before the last few came.
            iterations: most steps of BFGS.

        Cost: some tens of `energy`, for all starts together.
        """
        means, stds = (X.new_tensor(v) for v in self.prior(X.shape[-1]))
        X, y = self._checked(means, X, y)
        generator = torch_generator(seed)
        draws = torch.randn(max(starts - 1, 0), len(means), generator=generator, dtype=X.dtype).to(X.device)
        first = [means[None]] if starts else []
        x0 = torch.cat([*first, means + 0.5 * stds * draws, *([warm[None]] if warm is not None else [])])
        low, high = self.box(means, stds)
        found = minimize_many(
            lambda theta, _: self.energy(theta, X, y, noise),
            x0,
            low,
            high,
            max_steps=iterations,
            tol=1e-3,
            flat=1e-5,
        )
        return self.posterior(found.x[found.values.argmin()], X, y, noise)

    def fit_bayes(
        self,
        X: Tensor,
        y: Tensor,
        noise: Tensor | float | None = None,
        *,
        models: int = 16,
        warmup: int = 40,
        leapfrogs: int = 8,
        seed: int = 0,
    ) -> Posterior:
        """Posteriors at draws of the hyper-parameters, shape (models, p): average over them.

        Hamiltonian Monte Carlo (Neal, 2011), one chain a model, all stepping at once, from the most probable
        parameters; the step size adapts to an acceptance of 0.8 during the warm-up.
        """
        best = self.fit(X, y, noise, seed=seed)
        means, stds = (X.new_tensor(v) for v in self.prior(X.shape[-1]))
        low, high = self.box(means, stds)
        generator = torch_generator(seed, 1)

        def normal() -> Tensor:
            return torch.randn(models, len(means), generator=generator, dtype=X.dtype).to(X.device)

        theta = (best.theta + 0.1 * stds * normal()).clamp(low, high)
        energy, slope = self.energy(theta, X, best.y, noise)
        step = 0.2
        for iteration in range(2 * warmup):
            momentum = normal()
            start = energy + 0.5 * momentum.square().sum(1)
            new, new_slope, new_energy = theta, slope, energy
            for _ in range(leapfrogs):
                momentum = momentum - 0.5 * step * stds * new_slope
                new = new + step * stds * momentum
                outside = (new < low) | (new > high)  # a wall reflects
                new, momentum = new.clamp(low, high), torch.where(outside, -momentum, momentum)
                new_energy, new_slope = self.energy(new, X, best.y, noise)
                momentum = momentum - 0.5 * step * stds * new_slope
            chance = torch.exp((start - new_energy - 0.5 * momentum.square().sum(1)).clamp_max(0.0))
            took = torch.rand(models, generator=generator, dtype=X.dtype).to(X.device) < chance
            theta = torch.where(took[:, None], new, theta)
            slope = torch.where(took[:, None], new_slope, slope)
            energy = torch.where(took, new_energy, energy)
            if iteration < warmup:
                step = float(min(max(step * math.exp(float(chance.mean()) - 0.8), 1e-3), 1.0))
        return self.posterior(theta, best.X, best.y, noise)

    def box(self, means: Tensor, stds: Tensor) -> tuple[Tensor, Tensor]:
        """Least and largest hyper-parameters that are looked at, from mean and deviation of their prior."""
        low, high = means - 4.0 * stds, means + 4.0 * stds
        if self.learn_noise:
            low[-1] = math.log(NOISE_FLOOR)
        return low, high

    def _checked(self, theta: Tensor, X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if X.ndim != 2 or not len(X):
            raise InvalidProblem(f"GaussianProcess: X has shape {tuple(X.shape)}; expected (n, d), n >= 1.")
        if y.shape[-1:] != X.shape[:1]:
            raise InvalidProblem(f"GaussianProcess: y has shape {tuple(y.shape)}; expected ({len(X)},).")
        expected = self.kernel.size(X.shape[1]) + self.learn_noise
        if theta.shape[-1] != expected:
            raise InvalidProblem(
                f"GaussianProcess: theta has {theta.shape[-1]} entries; expected {expected}."
            )
        for name, values in (("X", X), ("y", y)):
            if not bool(torch.isfinite(values).all()):
                raise NotFinite(
                    f"GaussianProcess: {name} holds NaN or infinity. Leave those observations out."
                )
        return X, y


def standardised(y: Tensor) -> tuple[Tensor, float, float]:
    """``(y - offset)/scale``, offset, scale; the scale of constant values is their size, one where they are zero.

    Values times a power of two have the same standardised values, to the bit, from 1e-300 to 1e300.

    >>> standardised(torch.tensor([1.0, 3.0]))
    (tensor([-0.7071,  0.7071]), 2.0, 1.4142135381698608)
    """
    exponent = math.frexp(float(y.abs().max()))[1] if len(y) else 0
    half = exponent // 2
    near_one = (
        y * 2.0**-half * 2.0 ** (half - exponent)
    )  # in two steps, as 2^1070 is infinite; squares are safe now
    offset = float(near_one.mean())
    spread = float(near_one.std()) if len(y) > 1 else 0.0
    scale = spread if spread > 1e-12 * abs(offset) else abs(offset) or 1.0
    return (near_one - offset) / scale, math.ldexp(offset, exponent), math.ldexp(scale, exponent)

"""Sampled neurons: hidden weights drawn once, output weights by a lasso. No cones, and no patterns to keep.

Bai, Gautam and Sojoudi (2023), section 5: the sampled convex program, SCP.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from thalweg.convex.datafits import NOTHING, LogLoss, PointwiseDatafit, SquaredError, Vector
from thalweg.convex.penalties import ElasticNetPenalty
from thalweg.convex.relu.losses import LOSSES, LogisticLoss, OutputLoss, Squares
from thalweg.convex.relu.network import TwoLayerNetwork
from thalweg.convex.relu.patterns import MOST_BYTES, as_rows
from thalweg.convex.relu.problem import SOLVED, relative_gap, targets
from thalweg.convex.relu.splitting import shrunk
from thalweg.convex.working_set import Columns, Fit, fit_penalized
from thalweg.core import InvalidProblem, Method, Problem, State, Stop, UnknownName
from thalweg.core.validation import as_real, check_finite, is_real, is_whole, require

#: Proximal gradient steps in a step of `ReLUSCP`, where there are several outputs.
GRADIENT_STEPS = 50


def sample_neurons(
    X: ArrayLike, count: int, *, seed: int | np.random.Generator = 0, most_bytes: int = MOST_BYTES
) -> Vector:
    """Hidden weights of length one in directions drawn at random, shape (count, d).

    Args:
        X: shape (n, d) or (n, patches, d): for the number of columns, and what the neurons' values would take.
        count: N >= 1. `patterns_needed` bounds it as it does patterns.
        seed: a seed or a generator.
        most_bytes: refuse neurons whose values would take more. Default 2 GiB.

    >>> sample_neurons(np.eye(2), 3).shape
    (3, 2)
    """
    rows = as_rows(X)
    require(is_whole(count) and count >= 1, "sample_neurons needs one neuron or more", got=count)
    told = 8 * count * (len(rows) + rows.shape[1])
    if told > most_bytes:
        raise InvalidProblem(
            f"Values of {count} neurons on {len(rows)} rows would take {told:.2g} bytes of {most_bytes:.2g}. Ask for "
            "fewer, or raise most_bytes."
        )
    drawn = np.random.default_rng(seed).standard_normal((count, rows.shape[1]))
    return np.asarray(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class SampledNeurons(Problem):
    """``min loss(sum_j (X u_j)_+ a_j + b) + beta sum_j |a_j|`` with hidden weights u_j held: a lasso, or a group lasso.

    The objective is the network's own after balancing, so that it may be compared with `ConvexReLU`'s; several outputs
    share neurons. It takes more neurons than `ConvexReLU` takes patterns, and is cheaper by more.

    Args:
        X, y, beta, loss, output_bias, weights: as of `ConvexReLU`. The hinge is refused by the method.
        neurons: hidden weights, shape (N, d), from `sample_neurons` or of a network; scaled to length one.

    Metrics: ``objective``; ``gap`` between it and the certified lower bound of this problem, as a share of it.

    An answer x is a vector: output weights (N, k), biases (k,), and slopes (k, n).

    Memory: 8 n N bytes.

    >>> from thalweg import solve
    >>> X = np.array([[-1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    >>> solve(SampledNeurons(X, [1.0, 0.0, 1.0], sample_neurons(X, 200), beta=0.01)).converged
    True
    """

    X: ArrayLike
    y: ArrayLike
    neurons: ArrayLike
    beta: float
    loss: str = "squares"
    output_bias: bool = False
    weights: ArrayLike | None = None

    def __post_init__(self) -> None:
        data = as_real("X", self.X)
        rows = as_rows(data)
        if self.loss not in LOSSES:
            raise UnknownName("loss", self.loss, LOSSES)
        require(
            is_real(self.beta) and 0 < self.beta < math.inf, "SampledNeurons needs beta > 0", got=self.beta
        )
        neurons = as_real("neurons", self.neurons)
        if neurons.ndim != 2 or neurons.shape[1] != rows.shape[1] or not len(neurons):
            raise InvalidProblem(
                f"neurons have shape {neurons.shape}; expected (N, {rows.shape[1]}), N >= 1."
            )
        check_finite("neurons", neurons)
        neurons = neurons / np.maximum(np.abs(neurons).max(1, keepdims=True), np.finfo(float).tiny)
        sizes = np.linalg.norm(neurons, axis=1, keepdims=True)
        object.__setattr__(
            self, "neurons", np.divide(neurons, sizes, out=np.zeros_like(neurons), where=sizes > 0)
        )
        object.__setattr__(self, "X", data)
        object.__setattr__(self, "y", targets(self.y, len(data), self.loss))
        if self.weights is not None:
            weights = as_real("weights", self.weights)
            if weights.shape != (len(data),) or not ((weights > 0) & np.isfinite(weights)).all():
                raise InvalidProblem(f"weights need {len(data)} positive numbers, one for each row.")
            object.__setattr__(self, "weights", weights)

    @cached_property
    def values(self) -> Vector:
        """Of the neurons, shape (n, N)."""
        data = np.asarray(self.X)
        found = np.maximum(data @ np.asarray(self.neurons).T, 0.0)
        return np.asarray(np.asfortranarray(found if data.ndim == 2 else found.mean(1)))

    @cached_property
    def fit(self) -> OutputLoss:
        """The loss with its targets."""
        y = np.asarray(self.y)
        return LOSSES[self.loss](y, np.ones(y.shape[1]) if self.weights is None else np.asarray(self.weights))

    def packed(self, output: Vector, bias: Vector) -> Vector:
        """Output weights (N, k) and biases (k,) as an answer, with the slopes there."""
        f = (self.values @ output + bias).T
        return np.concatenate([output.ravel(), bias, -self.fit.slope(f).ravel()])

    def parts(self, x: Vector) -> tuple[Vector, Vector, Vector]:
        """Output weights, biases and slopes of an answer."""
        k, n = self.fit.y.shape
        size = len(np.asarray(self.neurons)) * k
        if x.shape != (size + k + k * n,):
            raise InvalidProblem(f"An answer has shape ({size + k + k * n},), see `packed`; got {x.shape}.")
        return x[:size].reshape(-1, k), x[size : size + k], x[size + k :].reshape(k, n)

    def start(self) -> Vector:
        """No neurons, and the best bias."""
        k = len(self.fit.y)
        bias = self.fit.best_bias(np.zeros_like(self.fit.y)) if self.output_bias else np.zeros(k)
        return self.packed(np.zeros((len(np.asarray(self.neurons)), k)), bias)

    def network(self, x: Vector) -> TwoLayerNetwork:
        """The network of an answer, balanced, without neurons that give nothing."""
        output, bias, _ = self.parts(x)
        return TwoLayerNetwork(np.asarray(self.neurons), output, np.array(bias)).balanced()

    def recommended_stop(self) -> Stop:
        """A relative gap of 1e-3."""
        return Stop(below={"gap": SOLVED}, steps=200)

    def metrics(self, x: Vector) -> dict[str, float]:
        output, bias, slopes = self.parts(x)
        upper = self.fit.value((self.values @ output + bias).T)
        upper += self.beta * float(np.linalg.norm(output, axis=1).sum())
        theta = self.fit.feasible(slopes, self.output_bias)
        largest = float(np.linalg.norm(self.values.T @ theta.T, axis=1).max())
        lower = self.fit.dual(theta, self.beta / largest if largest > 0 else math.inf)
        return {"objective": upper, "gap": relative_gap(upper, lower)}


@dataclass(kw_only=True)
class SCPState(State):
    """Where the next gradient is taken, for several outputs."""

    ahead: Vector  # (N + 1, k) output weights and biases
    momentum: float
    lipschitz: float


@dataclass(frozen=True)
class ReLUSCP(Method[SampledNeurons, SCPState]):
    """Working sets of neurons on `SampledNeurons`: `thalweg.convex.working_set`, to a certified gap.

    Several outputs are coupled by the groups' norms, and are fitted by accelerated proximal gradients.

    Args:
        sets: working sets in a step. Default 5.

    Cost per step: a pass over the neurons' values for each working set, and sweeps over the set; with several outputs
    50 steps of ``O(n N k)``.

    Source: Bai, Gautam and Sojoudi (2023), section 5.

    >>> from thalweg import solve
    >>> X = np.random.default_rng(0).standard_normal((40, 3))
    >>> problem = SampledNeurons(X, np.abs(X[:, 0]), sample_neurons(X, 300), beta=0.1)
    >>> solve(problem, ReLUSCP()).converged
    True
    """

    sets: int = 5

    def __post_init__(self) -> None:
        require(is_whole(self.sets) and self.sets >= 1, "ReLUSCP needs sets >= 1", got=self.sets)

    def init(self, problem: SampledNeurons, seed: int) -> SCPState:
        if not problem.fit.is_smooth:
            raise InvalidProblem(
                "ReLUSCP takes smooth losses; the hinge is none. Use ConvexReLU with ReLUADMM."
            )
        x = problem.start()
        output, bias, _ = problem.parts(x)
        return SCPState(
            x=x, metrics=problem.metrics(x), ahead=np.vstack([output, bias]), momentum=1.0, lipschitz=1.0
        )

    def step(self, problem: SampledNeurons, state: SCPState) -> SCPState:
        if len(problem.fit.y) == 1 and isinstance(problem.fit, Squares | LogisticLoss):
            return self._working_sets(problem, state)
        return _accelerated(problem, state)

    def _working_sets(self, problem: SampledNeurons, state: SCPState) -> SCPState:
        loss = problem.fit
        weights = NOTHING if problem.weights is None else loss.weights
        made = SquaredError if isinstance(loss, Squares) else LogLoss
        datafit: PointwiseDatafit = made(loss.y[0], weights=weights)
        output, bias, _ = problem.parts(state.x)
        fit = fit_penalized(
            Columns(problem.values),
            datafit,
            ElasticNetPenalty(problem.beta),
            has_intercept=problem.output_bias,
            start=Fit(output[:, 0], float(bias[0])),
            tol=1e-2
            * SOLVED
            * min(1.0, state.metrics["objective"] / max(datafit.value(np.zeros(len(loss.y[0]))), 1e-300)),
            max_iter=self.sets,
        )
        bias = np.array([fit.intercept])
        if problem.output_bias:
            bias = loss.best_bias((problem.values @ fit.w)[None])
        x = problem.packed(fit.w[:, None], bias)
        return replace(state, x=x, calls=state.calls + self.sets, metrics=problem.metrics(x))


def _accelerated(problem: SampledNeurons, state: SCPState) -> SCPState:
    """Accelerated proximal gradients with restarts: Beck and Teboulle (2009); O'Donoghue and Candes (2015)."""
    loss, V, n = problem.fit, problem.values, len(np.asarray(problem.neurons))
    output, bias, _ = problem.parts(state.x)
    x, y, t, L = np.vstack([output, bias]), state.ahead, state.momentum, state.lipschitz

    def outputs(p: Vector) -> Vector:
        return np.asarray((V @ p[:n] + p[n]).T)

    for _ in range(GRADIENT_STEPS):
        f = outputs(y)
        slope, value = loss.slope(f), loss.value(f)
        g = np.vstack([V.T @ slope.T, slope.sum(1) * problem.output_bias])
        while True:
            new = y - g / L
            new[:n] = shrunk(new[:n], problem.beta / L)
            d = new - y
            model = value + float((g * d).sum()) + 0.5 * L * float((d * d).sum())
            if loss.value(outputs(new)) <= model + 1e-12 * abs(value):
                break
            L *= 2.0
        later = 0.5 * (1.0 + math.sqrt(1.0 + 4.0 * t * t))
        push = (t - 1.0) / later
        if float(((y - new) * (new - x)).sum()) > 0.0:
            later, push = 1.0, 0.0
        x, y, t = new, new + push * (new - x), later
    bias = loss.best_bias((V @ x[:n]).T) if problem.output_bias else x[n]
    packed = problem.packed(x[:n], bias)
    return replace(
        state,
        x=packed,
        ahead=y,
        momentum=t,
        lipschitz=L,
        calls=state.calls + GRADIENT_STEPS,
        metrics=problem.metrics(packed),
    )

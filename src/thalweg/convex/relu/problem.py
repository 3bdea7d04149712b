"""Training a two-layer ReLU network as a convex program: what is given, and how good an answer is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thalweg.convex.datafits import Vector
from thalweg.convex.relu import _kernels as kernels
from thalweg.convex.relu.losses import LOSSES, OutputLoss
from thalweg.convex.relu.network import TwoLayerNetwork, recovered
from thalweg.convex.relu.patterns import MOST_BYTES, as_rows, check_range, distinct
from thalweg.convex.relu.program import Program
from thalweg.core import InvalidProblem, Problem, Stop, UnknownName
from thalweg.core.validation import as_real, check_finite, is_real, require

#: Relative gap and violation of the cones at which a program counts as solved.
SOLVED = 1e-3
#: Penalties in the program's units lie within these.
LEAST, MOST = 1e-150, 1e150


class Answer(NamedTuple):
    """What a packed answer holds."""

    blocks: Vector  # (2, P, k, d): neurons with positive and with negative output
    bias: Vector  # (k,)
    slopes: Vector  # (k, n): minus the loss's slope, which certifies the answer


@dataclass(frozen=True, eq=False)
class ConvexReLU(Problem):
    """The convex form of ``min loss(f) + beta/2 (|W|^2 + |a|^2)`` over networks ``f = sum_j a_j (X w_j)_+``.

    ``min loss(sum_i D_i X (v_i - w_i)) + beta sum_i (|v_i| + |w_i|)`` subject to ``E_i X v_i >= 0, E_i X w_i >= 0``,
    with ``D_i = diag(pattern_i)``, ``E_i = 2 D_i - I``. With all patterns (`all_patterns`) its optimum is the network's
    global one; with some of them it is the best among networks whose neurons have these patterns.

    Args:
        X: shape (n, d); a hidden bias is a column of ones that the caller appends, and is penalised. Of shape
            (n, patches, d) a neuron's value is its mean over patches: a convolution with global average pooling.
        y: targets. ``squares``: numbers, shape (n,) or (n, k). ``logistic``, ``hinge``: -1 and 1, shape (n,) or (n,
            k), a column for each class against the rest. ``softmax``: classes 0, 1, ..., shape (n,).
        patterns: truth values, shape (P, n patches), from `all_patterns`, `sample_patterns` or `patterns_of`. Repeated
            ones are dropped.
        beta: weight decay beside the *sum* of the losses, > 0: n times that beside their mean.
        loss: a name of `LOSSES`: ``squares`` is ``sum (f - y)^2/2``, ``logistic`` ``sum log(1 + exp(-y f))``.
        output_bias: whether outputs have a bias, which is not penalised. Default False.
        weights: of the samples, > 0, shape (n,): so many copies of each.
        x0: blocks where iterations start, shape (2, P, k, d). Default: zero.
        most_bytes: refuse programs whose methods would take more. Default 2 GiB.

    Several outputs: each neuron feeds one of them, its group norm is that of a pattern and an output.

    Metrics: ``objective``, the recovered network's own, which no cone has to hold for; ``gap``, how far a certified
    lower bound is below it, as a share of it; ``violation``, the largest violation of a cone as a share of the largest
    pre-activation. The objective may be below the program's optimum: a slightly infeasible neuron uses another pattern.

    An answer x is a vector: blocks, biases, and slopes of the loss that certify it; `answer` and `network` take it
        apart.

    Memory: patterns P n bytes; methods ``48 P k n + 8 n^2`` bytes.

    Source: Pilanci and Ergen (2020), theorem 1; Bai, Gautam and Sojoudi (2023), section 2.

    >>> from thalweg import solve
    >>> from thalweg.convex.relu.patterns import all_patterns
    >>> X = np.array([[-1.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    >>> problem = ConvexReLU(X, [1.0, 0.0, 1.0], all_patterns(X), beta=0.01)
    >>> result = solve(problem)
    >>> result.converged, problem.network(result.x).outputs(X).round(1).ravel()
    (True, array([1., 0., 1.]))
    """

    objective: ClassVar[str | None] = "objective"

    X: ArrayLike
    y: ArrayLike
    patterns: NDArray[np.bool_]
    beta: float
    loss: str = "squares"
    output_bias: bool = False
    weights: ArrayLike | None = None
    most_bytes: int = MOST_BYTES
    x0: ArrayLike | None = None

    def __post_init__(self) -> None:
        data = as_real("X", self.X)
        rows = as_rows(data)
        if self.loss not in LOSSES:
            raise UnknownName("loss", self.loss, LOSSES)
        require(is_real(self.beta) and 0 < self.beta < math.inf, "ConvexReLU needs beta > 0", got=self.beta)
        object.__setattr__(self, "X", data)
        vars(self)["targets"] = targets(self.y, len(data), self.loss)
        given = np.asarray(self.patterns)
        if given.ndim != 2 or given.dtype != bool or given.shape[1] != len(rows) or not len(given):
            raise InvalidProblem(
                f"ConvexReLU: patterns are {given.dtype} of shape {given.shape}; expected truth values of shape (P, "
                f"{len(rows)}), P >= 1, as sample_patterns gives them."
            )
        object.__setattr__(self, "patterns", distinct(given))
        if self.weights is not None:
            weights = as_real("weights", self.weights)
            if weights.shape != (len(data),) or not ((weights > 0) & np.isfinite(weights)).all():
                raise InvalidProblem(f"weights need {len(data)} positive numbers, one for each row.")
            object.__setattr__(self, "weights", weights)
        if self.x0 is not None:
            x0 = as_real("x0", self.x0)
            expected = (2, len(self.patterns), len(self.targets), rows.shape[1])
            if x0.shape != expected:
                raise InvalidProblem(f"x0 has shape {x0.shape}; expected {expected}, blocks.")
            check_finite("x0", x0)
            object.__setattr__(self, "x0", x0)
        told = memory_of(len(self.patterns), len(data), len(rows), self.targets.shape[0])
        if told > self.most_bytes:
            raise InvalidProblem(
                f"{len(self.patterns)} patterns of {len(rows)} rows with {self.targets.shape[0]} outputs would take "
                f"{told:.2g} bytes of {self.most_bytes:.2g}. Take fewer patterns or rows, or raise most_bytes."
            )

    @cached_property
    def targets(self) -> Vector:
        """y as shape (k, n)."""
        return targets(self.y, len(np.asarray(self.X)), self.loss)

    @cached_property
    def program(self) -> Program:
        """The program in units of its own."""
        data = np.asarray(self.X)
        n = len(data)
        weights = np.ones(n) if self.weights is None else np.asarray(self.weights)
        x_power = _power(data, weights)
        y_power = _power(self.targets.T, weights) if self.loss == "squares" else 0
        loss = self.make_loss(np.ldexp(self.targets, -y_power), weights)
        rows = np.ascontiguousarray(np.ldexp(data, -x_power).reshape(-1, data.shape[-1]))
        patches = len(rows) // n
        with np.errstate(over="ignore", under="ignore"):
            beta = float(np.ldexp(self.beta, -x_power - y_power))
        return Program(
            rows,
            self.patterns,
            loss,
            min(max(beta, LEAST), MOST),
            patches,
            self.output_bias,
            x_power,
            y_power,
            np.repeat(weights, patches),
        )

    def make_loss(self, y: Vector, weights: Vector) -> OutputLoss:
        """The loss with its targets."""
        return LOSSES[self.loss](y, weights)

    def start(self) -> Vector:
        """Blocks where iterations start, (2, P, k, d)."""
        return np.zeros(self.program.shape) if self.x0 is None else np.asarray(self.x0)

    def packed(self, blocks: Vector, bias: Vector | None = None, slopes: Vector | None = None) -> Vector:
        """Blocks (2, P, k, d), biases (k,) and slopes (k, n) as one vector; by default the best bias and its slopes."""
        program = self.program
        inner = np.ldexp(np.asarray(blocks, dtype=np.float64), program.x_power - program.y_power)
        if inner.shape != program.shape:
            raise InvalidProblem(f"blocks have shape {inner.shape}; expected {program.shape}.")
        if bias is None or slopes is None:
            f = program.gated(program.products(inner))
            b = program.bias_of(f) if bias is None else np.ldexp(np.asarray(bias), -program.y_power)
            if slopes is None:
                slopes = np.ldexp(-program.loss.slope(f + b[:, None]), program.y_power)
            bias = np.ldexp(b, program.y_power)
        return np.concatenate([np.ravel(blocks), np.ravel(bias), np.ravel(slopes)])

    def answer(self, x: Vector) -> Answer:
        """A packed answer's parts."""
        program = self.program
        k, n = program.loss.y.shape
        size = math.prod(program.shape)
        if x.shape != (size + k + k * n,):
            raise InvalidProblem(f"An answer has shape ({size + k + k * n},), see `packed`; got {x.shape}.")
        return Answer(x[:size].reshape(program.shape), x[size : size + k], x[size + k :].reshape(k, n))

    def network(self, x: Vector) -> TwoLayerNetwork:
        """The recovered network: a balanced neuron for each block that is not zero."""
        blocks, bias, _ = self.answer(x)
        return recovered(blocks, bias)

    def objective_of(self, network: TwoLayerNetwork) -> float:
        """``loss + beta/2 (|W|^2 + |a|^2)`` of any network, whatever its patterns."""
        return (
            self.make_loss(self.targets, self.program.loss.weights).value(
                network.outputs(np.asarray(self.X)).T
            )
            + self.beta * network.penalty
        )

    def lower_bound(self, x: Vector, *, shared: bool = False) -> float:
        """What no network with these patterns goes below, certified by an answer's slopes.

        Args:
            shared: bound also networks whose neurons feed several outputs, not one each.
        """
        program = self.program
        slopes = np.ldexp(self.answer(x).slopes, -program.y_power)
        return float(np.ldexp(program.lower_bound(slopes, shared=shared), 2 * program.y_power))

    def recommended_stop(self) -> Stop:
        """A relative gap of 1e-3, after 3000 iterations of the default method at most."""
        return Stop(below={"gap": SOLVED, "violation": SOLVED}, steps=150)

    def metrics(self, x: Vector) -> dict[str, float]:
        program = self.program
        found = self.answer(x)
        blocks = np.ldexp(found.blocks, program.x_power - program.y_power)
        H = program.products(blocks)
        bias = np.ldexp(found.bias, -program.y_power)
        upper = program.loss.value(program.rectified(H) + bias[:, None])
        upper += program.beta * float(np.linalg.norm(blocks, axis=-1).sum())
        lower = program.lower_bound(np.ldexp(found.slopes, -program.y_power))
        worst, largest = kernels.worst_violation(H, program.D)
        return {
            "objective": float(np.ldexp(upper, 2 * program.y_power)),
            "gap": relative_gap(upper, lower),
            "violation": worst / largest if largest > 0 else 0.0,
        }


def relative_gap(upper: float, lower: float) -> float:
    """``|upper - lower|/upper``, zero where upper is."""
    return abs(upper - lower) / upper if upper > 0 else 0.0


def memory_of(patterns: int, samples: int, rows: int, outputs: int) -> int:
    """Bytes that a program and the methods for it keep."""
    return patterns * rows * (1 + 48 * outputs) + 8 * samples * samples


def targets(y: ArrayLike, samples: int, loss: str) -> Vector:
    """y as shape (k, samples), checked against what the loss takes."""
    given = as_real("y", y)
    check_finite("y", given)
    check_range("y", given)
    if given.ndim not in (1, 2) or len(given) != samples or given.size == 0:
        raise InvalidProblem(f"y has shape {given.shape}; expected ({samples},) or ({samples}, k).")
    if loss == "softmax":
        whole = given.ndim == 1 and bool((given == np.floor(given)).all() and given.min() >= 0)
        if not whole:
            raise InvalidProblem(
                f"softmax needs classes 0, 1, ..., shape ({samples},); got shape {given.shape}."
            )
        return np.eye(max(int(given.max()) + 1, 2))[given.astype(np.int64)].T.copy()
    if loss != "squares" and not np.isin(given, (-1.0, 1.0)).all():
        raise InvalidProblem(
            f"{loss} needs labels -1 and 1; y holds {', '.join(f'{v:g}' for v in np.unique(given)[:4])}."
        )
    return np.ascontiguousarray(given.reshape(samples, -1).T)


def _power(values: Vector, weights: Vector) -> int:
    """The power of two of the root of the mean square, samples counted by their weights; 0 for zeros."""
    largest = float(np.abs(values).max())
    if largest == 0:
        return 0
    power = math.frexp(largest)[1]
    squares = np.square(np.ldexp(values, -power)).reshape(len(weights), -1).mean(1)
    return power + math.frexp(math.sqrt(float(np.average(squares, weights=weights))))[1]

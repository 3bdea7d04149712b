"""A trained network made better, with a bound of what is left: patterns of its own neurons, refined round by round."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

from thalweg.convex.datafits import Vector
from thalweg.convex.relu.network import TwoLayerNetwork
from thalweg.convex.relu.neurons import ReLUSCP, SampledNeurons
from thalweg.convex.relu.patterns import activations, all_patterns, distinct, patterns_of
from thalweg.convex.relu.problem import ConvexReLU
from thalweg.convex.relu.splitting import ReLUADMM
from thalweg.core import InvalidParameter, InvalidProblem, Stop, solve
from thalweg.core.validation import as_real, check_finite, is_whole, require

if TYPE_CHECKING:
    from torch import nn

#: Iterations of the power-like ascent for new neurons, starts of it, and patterns kept of a round.
ASCENT, STARTS, BEST = 100, 200, 25


@dataclass(frozen=True)
class NetworkCertificate:
    """What is known of a network's regularised objective.

    Args:
        upper: the objective itself.
        lower: no network whose neurons have the patterns in hand goes below.
        complete: whether those were all patterns: ``lower`` then holds for every network, of any width.
    """

    upper: float
    lower: float
    complete: bool

    @property
    def gap(self) -> float:
        """``(upper - lower)/upper``; below zero where neurons of other patterns got below the bound."""
        return (self.upper - self.lower) / self.upper if self.upper > 0 else 0.0

    @property
    def is_global(self) -> bool:
        """Whether the network is a global minimum, to a gap of 1e-3."""
        return self.complete and self.gap <= 1e-3


@dataclass(frozen=True, eq=False)
class Polished:
    """What `polish` returns.

    Args:
        network: as arrays; with ``hidden_bias``, hidden biases are its last column.
        before, after: the objective of the network given, and of this one.
        certificate: of this one.
        hidden_bias: whether the first layer has a bias.
    """

    network: TwoLayerNetwork
    before: float
    after: float
    certificate: NetworkCertificate
    hidden_bias: bool

    def to_module(self) -> nn.Sequential:
        """``Sequential(Linear, ReLU, Linear)`` in float64."""
        return self.network.to_module(hidden_bias=self.hidden_bias)


def polish(
    network: nn.Module,
    X: ArrayLike,
    y: ArrayLike,
    *,
    beta: float,
    loss: str = "squares",
    patterns: Literal["network", "all"] = "network",
    rounds: int = 0,
    seed: int = 0,
    stop: Stop | None = None,
) -> Polished:
    """A network no worse than a trained one on the regularised objective, with its certificate.

    The objective is ``loss + beta/2 (sum of squares of all weights and of the hidden biases)``, the loss summed over
    the
    rows: with ``weight_decay`` beside a mean, beta is n times it (and for `MSELoss`, whose squares are not halved, n/2
    times). The output bias is not penalised, is set to its best, and is left out where the network has none.

    Args:
        network: see `read_module` for what is read.
        X: shape (n, d).
        y: as `ConvexReLU` takes it; labels of ``logistic`` may also be 0 and 1.
        beta: weight decay, > 0.
        loss: ``squares``, ``logistic``, ``hinge``, ``softmax``.
        patterns: ``"network"``: those of its neurons; ``"all"``: all there are, on small data. Then the certificate is
            global.
        rounds: of `refine_patterns`, which looks for better patterns. Default 0.
        seed: of the ascents in those rounds.
        stop: for the convex program. Default: a gap of 1e-4, 6000 iterations.

    With several outputs whose neurons are shared the convex program bounds the objective from below, and output weights
    are fitted by a group lasso on the neurons there are.

    Raises:
        InvalidProblem: not a network of this kind; X and y that do not fit it.

    >>> import numpy as np
    >>> from thalweg.convex import polish
    >>> import torch
    >>> X = np.random.default_rng(0).standard_normal((40, 2))
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))
    >>> found = polish(net, X, np.abs(X[:, 0]), beta=0.1)
    >>> found.after <= found.before
    True
    """
    from thalweg.convex.relu.modules import read_module

    if patterns not in ("network", "all"):
        raise InvalidParameter(f'polish: patterns is "network" or "all"; got {patterns!r}.')
    require(is_whole(rounds) and rounds >= 0, "polish needs rounds >= 0", got=rounds)
    read = read_module(network)
    data = as_real("X", X)
    inputs = read.network.hidden.shape[1] - read.hidden_bias
    if data.ndim != 2 or data.shape[1] != inputs or not len(data):
        raise InvalidProblem(f"X has shape {data.shape}; the network takes (n, {inputs}).")
    check_finite("X", data)
    rows = read.rows(data)
    labels = as_real("y", y)
    if loss in ("logistic", "hinge") and np.isin(labels, (0.0, 1.0)).all():
        labels = 2.0 * labels - 1.0
    found = all_patterns(rows) if patterns == "all" else patterns_of(rows, read.network.hidden)
    problem = ConvexReLU(rows, labels, found, beta, loss, read.output_bias)
    if len(problem.targets) != len(read.network.bias):
        raise InvalidProblem(
            f"The network has {len(read.network.bias)} outputs, and y asks for {len(problem.targets)}."
        )
    given = read.network
    before = problem.objective_of(given)
    best, certificate = improved(problem, given, complete=patterns == "all", stop=stop)
    for k in range(rounds):
        problem = _refined(problem, best, np.random.default_rng((seed, k)))
        best, certificate = improved(problem, best, complete=patterns == "all", stop=stop)
    return Polished(best, before, certificate.upper, certificate, read.hidden_bias)


def improved(
    problem: ConvexReLU, network: TwoLayerNetwork, *, complete: bool, stop: Stop | None = None
) -> tuple[TwoLayerNetwork, NetworkCertificate]:
    """The better of a network and what the convex program makes of it, and what is known of it."""
    several = len(problem.targets) > 1
    candidates = [network.balanced(), network]
    start = None if several else blocks_of(network, problem)
    warm = replace(problem, x0=start)
    rule = Stop(below={"gap": 1e-4, "violation": 1e-4}, steps=300) if stop is None else stop
    result = solve(warm, ReLUADMM(), stop=rule, progress=False)
    candidates.append(problem.network(result.x))
    alive = [known for known in candidates[1:] if known.width and problem.loss != "hinge"]
    candidates += [_with_best_outputs(problem, known) for known in alive]
    candidates = [_with_best_bias(problem, known) for known in candidates] + candidates
    values = [problem.objective_of(known) for known in candidates]
    best = int(np.nanargmin(values))
    lower = problem.lower_bound(result.x, shared=several)
    return candidates[best], NetworkCertificate(values[best], lower, complete)


def refine_patterns(
    problem: ConvexReLU, *, rounds: int = 5, seed: int = 0, stop: Stop | None = None
) -> tuple[ConvexReLU, Vector]:
    """Better patterns, round by round: solve, look for neurons whose product with the residual exceeds beta, repeat.

    Where patterns were sampled this lowers the optimum far more than sampling more of them does.

    Args:
        problem: one output.
        rounds: default 5; each adds 25 patterns at most, and drops those without a neuron.
        seed: of the starts of the ascents.
        stop: for each convex program. Default: the problem's own rule.

    Returns:
        the problem with its last patterns, and its answer.

    Cost: a convex program a round, and 100 products with X for 200 neurons.

    Source of the ascent: a projected power iteration on ``|xi'(X u)_+|``; Frank and Wolfe's oracle for neurons, which
    Bach (2017), "Breaking the curse of dimensionality with convex neural networks", section 2.5, shows to be hard.
    """
    require(is_whole(rounds) and rounds >= 0, "refine_patterns needs rounds >= 0", got=rounds)
    if len(problem.targets) != 1:
        raise InvalidProblem(f"refine_patterns takes one output; the problem has {len(problem.targets)}.")
    result = solve(problem, ReLUADMM(), stop=stop, progress=False)
    for k in range(rounds):
        network = problem.network(result.x)
        problem = _refined(problem, network, np.random.default_rng((seed, k)))
        problem = replace(problem, x0=blocks_of(network, problem))
        result = solve(problem, ReLUADMM(), stop=stop, progress=False)
    return problem, result.x


def _refined(problem: ConvexReLU, network: TwoLayerNetwork, rng: np.random.Generator) -> ConvexReLU:
    """The problem with patterns of the network's neurons and the best that the ascent finds."""
    program = problem.program
    f = network.outputs(np.asarray(problem.X)).T
    xi = np.ldexp(-problem.make_loss(problem.targets, program.loss.weights).slope(f), -program.y_power)
    found = [activations(program.X, network.hidden)] if network.width else []
    for theta in xi:
        starts = rng.standard_normal((STARTS, program.X.shape[1]))
        if network.width:
            starts = np.vstack([starts, network.hidden])
        neurons, values = ascend(program.X, np.repeat(theta, program.patches) / program.patches, starts)
        for sign in (0, 1):
            rising = np.argsort(-values[sign])
            rising = rising[values[sign][rising] > program.beta]
            if len(rising):
                fresh = distinct(activations(program.X, neurons[sign][rising]))
                found.append(fresh[: max(1, BEST // (2 * len(xi)))])
    return replace(problem, patterns=distinct(np.vstack(found)) if found else problem.patterns, x0=None)


def ascend(X: Vector, xi: Vector, starts: Vector) -> tuple[Vector, Vector]:
    """Local maxima of ``s xi'(X u)_+`` over unit u, s = 1 and -1: neurons (2, m, d) and their values (2, m).

    ``u <- normalise(u/2 + g/(2 |g|))``, g the gradient; the best point on the way is kept.
    """
    neurons = np.stack([starts, starts]) / np.linalg.norm(starts, axis=1, keepdims=True)
    best, values = neurons.copy(), np.full(neurons.shape[:2], -np.inf)
    signed = np.stack([xi, -xi])[:, None]
    for _ in range(ASCENT):
        H = neurons @ X.T
        now = (signed * np.maximum(H, 0.0)).sum(-1)
        better = now > values
        values[better], best[better] = now[better], neurons[better]
        g = (signed * (H > 0)) @ X
        sizes = np.linalg.norm(g, axis=-1, keepdims=True)
        neurons = 0.5 * neurons + 0.5 * np.divide(g, sizes, out=neurons.copy(), where=sizes > 0)
        lengths = np.linalg.norm(neurons, axis=-1, keepdims=True)
        neurons = np.divide(neurons, lengths, out=best.copy(), where=lengths > 1e-12)
    return best, values


def blocks_of(network: TwoLayerNetwork, problem: ConvexReLU) -> Vector:
    """A feasible start of the convex program: each neuron in the block of its pattern, summed; one output."""
    program = problem.program
    blocks = np.zeros(program.shape)
    where = {key.tobytes(): i for i, key in enumerate(np.packbits(problem.patterns, axis=1))}
    keys = np.packbits(activations(program.X, network.hidden), axis=1)
    for key, hidden, output in zip(keys, network.hidden, network.output[:, 0], strict=True):
        i = where.get(key.tobytes())
        if i is not None:
            blocks[0 if output > 0 else 1, i, 0] += abs(output) * hidden
    return blocks


def _with_best_bias(problem: ConvexReLU, network: TwoLayerNetwork) -> TwoLayerNetwork:
    if not problem.output_bias:
        return network
    f = network.outputs(np.asarray(problem.X)).T
    moved = problem.make_loss(problem.targets, problem.program.loss.weights).best_bias(f)
    return replace(network, bias=network.bias + moved)


def _with_best_outputs(problem: ConvexReLU, network: TwoLayerNetwork) -> TwoLayerNetwork:
    """The network with output weights by a group lasso, its hidden directions held."""
    fixed = SampledNeurons(
        problem.X, problem.y, network.hidden, problem.beta, problem.loss, problem.output_bias, problem.weights
    )
    return fixed.network(solve(fixed, ReLUSCP(), progress=False).x)

"""Games and other saddle points as monotone inclusions."""

from __future__ import annotations

import math

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import is_real, is_whole, require
from thalweg.equilibrium._tensors import as_tensor, doubly_centred, in_units
from thalweg.equilibrium.operators import Bilinear
from thalweg.equilibrium.problem import MonotoneInclusion
from thalweg.numerics.projections import l2_ball, simplex


def matrix_game(A: ArrayLike | Tensor, regularisation: float = 0.0) -> MonotoneInclusion:
    """``min_x max_y x' A y`` over mixed strategies: u is x, shape (rows,), and y, shape (columns,), in one vector.

    Args:
        A: what the row player pays, shape (rows, columns); a tensor, an array or lists.
        regularisation: adds ``(r/2)(|x|^2 - |y|^2)``: a game with one equilibrium.

    Answers are judged by ``gap`` too, ``max_y x'Ay - min_x x'Ay``, zero at equilibria, and ``value``, x'Ay, both in the
    payoffs' own units. The ``residual`` is that of the game in which the largest payoff is between 1/2 and 1: it is
    the same for payoffs in cents and in millions. A constant that all payoffs share changes no equilibrium, and is
    taken out first where it is larger than their spread. What a row, or a column, pays on average is a linear term:
    the components hold the payoffs without it. F and its residual stay the same on strategies, while A's norm may fall
    a hundredfold, and with it the steps that every method needs.

    Raises:
        InvalidProblem: no matrix of numbers, a regularisation below zero.
        NotFinite: NaN or infinity, with the first index.

    >>> matrix_game([[1.0, -1.0], [-1.0, 1.0]]).metrics(torch.full((4,), 0.5))
    {'residual': 0.0, 'gap': 0.0, 'value': 0.0}
    """
    fits = is_real(regularisation) and 0 <= regularisation < math.inf
    require(fits, "matrix_game needs regularisation >= 0", got=regularisation, error=InvalidProblem)
    scaled, shift, unit = in_units(as_tensor("The payoff matrix", A, "rows", "columns"))
    B, a, b = doubly_centred(scaled)
    game = Bilinear(B, torch.cat([a, -b]), regularisation / unit)
    m, n = B.shape

    def resolvent(v: Tensor, step: float) -> Tensor:
        return torch.cat([simplex(v[:m]), simplex(v[m:])])

    def judge(u: Tensor) -> dict[str, float]:
        x, y = u[:m], u[m:]
        of_columns, of_rows = x @ B + b, B @ y + a
        gap = float(a @ x + of_columns.max() - b @ y - of_rows.min())
        return {"gap": unit * gap, "value": unit * float(a @ x + of_columns @ y) + shift}

    x0 = torch.cat([torch.full((m,), 1.0 / m), torch.full((n,), 1.0 / n)]).to(B)
    return MonotoneInclusion(game, x0, resolvent, judge=judge)


def policeman_and_burglar(houses: int, seed: int = 0) -> Tensor:
    """Nemirovski's game: ``w_j (1 - exp(-0.8 |i - j|))``, what a burglar takes from house j with the policeman at i.

    Rows are the policeman's posts, who pays what is stolen.
    """
    require(
        is_whole(houses) and houses >= 2,
        "policeman_and_burglar needs two houses",
        got=houses,
        error=InvalidProblem,
    )
    wealth = torch.randn(houses, generator=torch_generator(seed, 0xB0), dtype=torch.float64).abs()
    at = torch.arange(houses, dtype=torch.float64)
    return wealth * (1.0 - torch.exp(-0.8 * (at[:, None] - at).abs()))


def nemirovski(n: int, alpha: float = 1.0) -> Tensor:
    """``((i + j - 1)/(2n - 1))^alpha``, one of Nemirovski's test matrices, shape (n, n).

    With alpha = 1 it is a sum of a row's and a column's share: a game without interaction, solved by two pure
    strategies. With alpha = 2 the interaction has rank one.
    """
    require(is_whole(n) and n >= 2, "nemirovski needs n >= 2", got=n, error=InvalidProblem)
    at = torch.arange(1, n + 1, dtype=torch.float64)
    return ((at[:, None] + at - 1.0) / (2.0 * n - 1.0)) ** alpha


def random_game(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Payoffs uniform in [-1, 1]."""
    require(min(rows, columns) >= 1, "random_game needs rows and columns", error=InvalidProblem)
    return 2.0 * torch.rand(rows, columns, generator=torch_generator(seed, 0xB1), dtype=torch.float64) - 1.0


def robust_regression(
    X: ArrayLike | Tensor,
    y: ArrayLike | Tensor,
    *,
    tail: float = 0.3,
    ridge: float = 1e-2,
    loss: str = "squares",
) -> MonotoneInclusion:
    """Regression whose worst ``tail`` share of examples counts: ``min_w max_p sum_i p_i loss_i(w) + (ridge/2)|w|^2``.

    p is a distribution with ``p_i <= 1/(tail n)``: the loss is the mean of the worst examples (conditional value at
    risk). u is w, shape (d,), and ``n p``, shape (n,); component i holds example i.

    Args:
        X, y: shapes (n, d) and (n,).
        tail: in (0, 1]; 1 is the ordinary mean.
        ridge: of the coefficients.
        loss: ``"squares"``, halved, or ``"logistic"`` with y in {-1, 1}.
    """
    features, targets = _examples(X, y)
    n, d = features.shape
    require(0 < tail <= 1, "robust_regression needs 0 < tail <= 1", got=tail, error=InvalidProblem)
    _check_weight("robust_regression", "ridge", ridge)
    require(loss in ("squares", "logistic"), "robust_regression knows 'squares' and 'logistic'", got=loss)
    if loss == "logistic":
        _check_labels("robust_regression with the logistic loss", targets)

    def losses(w: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Values and their derivatives in the prediction."""
        predicted = features[rows] @ w
        if loss == "squares":
            gap = predicted - targets[rows]
            return 0.5 * gap.square(), gap
        margin = targets[rows] * predicted
        return torch.nn.functional.softplus(-margin), -targets[rows] * torch.sigmoid(-margin)

    class Examples:
        count = n

        def weighted(self, u: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
            values, slopes = losses(u[:d], rows)
            of_w = (weights * u[d + rows] * slopes) @ features[rows] + ridge * weights.sum() * u[:d]
            of_p = u.new_zeros(n).index_add(0, rows, weights * values)
            return torch.cat([of_w, -of_p])

        def full(self, u: Tensor) -> Tensor:
            rows = torch.arange(n, device=u.device)
            return self.weighted(u, rows, torch.full((n,), 1.0 / n).to(u))

    def resolvent(v: Tensor, step: float) -> Tensor:
        return torch.cat([v[:d], _capped(v[d:], float(n), 1.0 / tail)])

    def judge(u: Tensor) -> dict[str, float]:
        worst = losses(u[:d], torch.arange(n))[0].sort(descending=True).values[: max(math.ceil(tail * n), 1)]
        return {"worst loss": float(worst.mean())}

    return MonotoneInclusion(
        Examples(), torch.cat([torch.zeros(d), torch.ones(n)]).to(features), resolvent, judge=judge
    )


def _examples(X: ArrayLike | Tensor, y: ArrayLike | Tensor) -> tuple[Tensor, Tensor]:
    """Features, shape (n, d), and targets, shape (n,), of one type."""
    features = as_tensor("X", X, "n", "d")
    targets = as_tensor("y", y, "n").to(features)
    if len(features) != len(targets):
        raise InvalidProblem(
            f"X has {len(features)} rows and y {len(targets)} entries; expected one target for each row."
        )
    return features, targets


def _check_weight(who: str, name: str, value: float) -> None:
    fits = is_real(value) and 0 <= value < math.inf
    require(fits, f"{who} needs a finite {name} >= 0", got=value, error=InvalidProblem)


def _check_labels(who: str, labels: Tensor) -> None:
    """Refuse labels that are not -1 and 1: of 0 and 1, the zeros would count for nothing."""
    other = labels[(labels != 1) & (labels != -1)]
    if len(other):
        raise InvalidProblem(f"{who} needs labels -1 and 1; {float(other[0]):g} is one of y's.")


def adversarial_classification(
    X: ArrayLike | Tensor, y: ArrayLike | Tensor, *, radius: float = 0.1, ridge: float = 1e-2
) -> MonotoneInclusion:
    """A linear classifier whose every example an adversary may move by ``radius``: the robust hinge loss as a game.

    ``min_w mean_i max(0, 1 - y_i x_i'w + radius |w|) + (ridge/2) |w|^2``, the hinge by a weight p_i in [0, 1] and the
    adversary's moves by their weighted mean q: ``max_{p, q} mean_i p_i (1 - y_i x_i'w) + q'w`` with
    ``|q| <= radius mean(p)``, which is bilinear.

    Args:
        X, y: shapes (n, d) and (n,), y in {-1, 1}.
        radius: of the moves, Euclidean, >= 0.
        ridge: of the coefficients.

    u is w, shape (d,), p, shape (n,), and q, shape (d,); component i holds example i. Answers are judged by ``robust
    loss``, the objective at w, and ``certified``, the share of examples that no move can misclassify.
    """
    features, labels = _examples(X, y)
    n, d = features.shape
    _check_labels("adversarial_classification", labels)
    _check_weight("adversarial_classification", "radius", radius)
    _check_weight("adversarial_classification", "ridge", ridge)

    class Examples:
        count = n

        def weighted(self, u: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
            found = self.difference(u, rows, weights)
            found[d : d + n].index_add_(0, rows, -weights)
            return found

        def difference(self, u: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
            w, p, q = u[:d], u[d : d + n], u[d + n :]
            signed, total = labels[rows, None] * features[rows], weights.sum()
            of_w = -(weights * p[rows]) @ signed + total * (q + ridge * w)
            of_p = u.new_zeros(n).index_add(0, rows, weights * (signed @ w))
            return torch.cat([of_w, of_p, -total * w])

        def full(self, u: Tensor) -> Tensor:
            rows = torch.arange(n, device=u.device)
            return self.weighted(u, rows, torch.full((n,), 1.0 / n).to(u))

    def resolvent(v: Tensor, step: float) -> Tensor:
        return torch.cat([v[:d], *_weights_and_moves(v[d : d + n], v[d + n :], radius)])

    def judge(u: Tensor) -> dict[str, float]:
        w = u[:d]
        margins = labels * (features @ w) - radius * torch.linalg.vector_norm(w)
        loss = (1.0 - margins).clamp_min(0.0).mean() + 0.5 * ridge * w.square().sum()
        return {"robust loss": float(loss), "certified": float((margins > 0).double().mean())}

    x0 = torch.cat([torch.zeros(d), torch.full((n,), 0.5), torch.zeros(d)]).to(features)
    importance = (
        features.square().sum(1) + 1.0
    ).sqrt() + ridge  # bounds of the examples' own Lipschitz constants
    return MonotoneInclusion(Examples(), x0, resolvent, importance=importance, judge=judge)


def _weights_and_moves(p: Tensor, q: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """The nearest p in [0, 1] and q with ``|q| <= radius mean(p)``: both on a line in the multiplier, by bisection."""
    length, share = float(torch.linalg.vector_norm(q)), radius / len(p)

    def at(mu: float) -> tuple[Tensor, float]:
        return (p + mu * share).clamp(0.0, 1.0), max(length - mu, 0.0)

    low, high = 0.0, length
    inside, left = at(0.0)
    if left <= radius * float(inside.mean()):
        return inside, q
    while high - low > 1e-15 * length:
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        inside, left = at(middle)
        low, high = (middle, high) if left > radius * float(inside.mean()) else (low, middle)
    inside, left = at(high)
    return inside, q * (left / length)


def linear_gan(
    conditions: ArrayLike | Tensor,
    outputs: ArrayLike | Tensor,
    *,
    regularisation: float = 0.0,
    radius: float = 10.0,
) -> MonotoneInclusion:
    """A conditional generative toy: ``min_W max_C (1/n) sum_i z_i' C (x_i - W z_i) - (r/2) |C|^2``, |C| <= radius.

    The generator W makes an output of a condition z_i; the critic C, linear in both, tells made from real outputs. At
    the equilibrium the made ones have the real ones' moments with the conditions: W is least squares of x on z. The
    components, one for each example, are alike: their stable rank does not grow with n. Examples are drawn by their
    squared lengths.

    Args:
        conditions, outputs: z, shape (n, k), and x, shape (n, p).
        regularisation: r, of the critic.
        radius: of the ball the critic is kept in.

    u is W, shape (p, k), then C, shape (k, p), in one vector. Answers are judged by ``moments``, the length of the mean
    of ``z (x - W z)'``.

    >>> z = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    >>> linear_gan(z, 3.0 * z).metrics(torch.tensor([3.0, 0.0], dtype=torch.float64))
    {'residual': 0.0, 'moments': 0.0}
    """
    z = as_tensor("conditions", conditions, "n", "k")
    x = as_tensor("outputs", outputs, "n", "p").to(z)
    if len(z) != len(x):
        raise InvalidProblem(
            "linear_gan needs conditions of shape (n, k) and outputs of shape (n, p); got "
            f"{tuple(z.shape)}, {tuple(x.shape)}."
        )
    _check_weight("linear_gan", "regularisation", regularisation)
    fits = is_real(radius) and 0 < radius < math.inf
    require(fits, "linear_gan needs a finite radius > 0", got=radius, error=InvalidProblem)
    (n, k), p = z.shape, x.shape[1]
    moments, cross = z.T @ z / n, z.T @ x / n

    def moved(u: Tensor, squares: Tensor, products: Tensor | float, total: Tensor | float) -> Tensor:
        """F from weighted sums: ``z z'``, ``z x'``, and of the weights."""
        W, C = u[: p * k].view(p, k), u[p * k :].view(k, p)
        of_W = -(C.T @ squares)
        of_C = squares @ W.T - products + total * regularisation * C
        return torch.cat([of_W.reshape(-1), of_C.reshape(-1)])

    class Examples:
        count = n

        def weighted(self, u: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
            Z = z[rows]
            weighed = weights[:, None] * Z
            return moved(u, weighed.T @ Z, weighed.T @ x[rows], weights.sum())

        def difference(self, d: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
            Z = z[rows]
            return moved(d, (weights[:, None] * Z).T @ Z, 0.0, weights.sum())

        def full(self, u: Tensor) -> Tensor:
            return moved(u, moments, cross, 1.0)

    def resolvent(v: Tensor, step: float) -> Tensor:
        return torch.cat([v[: p * k], l2_ball(v[p * k :], radius)])

    def judge(u: Tensor) -> dict[str, float]:
        left = cross - moments @ u[: p * k].view(p, k).T
        return {"moments": float(torch.linalg.matrix_norm(left))}

    x0 = torch.zeros(2 * p * k).to(x)
    norms = z.square().sum(1)  # an example's own Lipschitz constant, but for r
    importance = norms + regularisation + 1e-3 * norms.mean() + 1e-30
    return MonotoneInclusion(Examples(), x0, resolvent, importance=importance, judge=judge)


def _capped(v: Tensor, total: float, most: float) -> Tensor:
    """The nearest point with ``0 <= p <= most, sum p = total``: ``clamp(v - mu, 0, most)`` with the mu that sums right.

    The sum is piecewise linear in mu; it is known at all its breaks by sorting, and interpolated. O(n log n).
    """
    breaks = torch.cat([v, v - most]).sort().values
    sums = _above(v, breaks) - _above(v - most, breaks)  # falls from most n to zero
    right = int((sums >= total).sum().clamp(1, len(breaks) - 1))
    left = right - 1
    drop = float(sums[left] - sums[right])
    share = (float(sums[left]) - total) / drop if drop > 0.0 else 0.0
    return (v - (breaks[left] + share * (breaks[right] - breaks[left]))).clamp(0.0, most)


def _above(v: Tensor, levels: Tensor) -> Tensor:
    """``sum_i max(v_i - level, 0)`` for each level."""
    ordered = v.sort().values
    tails = torch.cat([ordered.flip(0).cumsum(0).flip(0), ordered.new_zeros(1)])
    first = torch.searchsorted(ordered, levels, right=True)
    return tails[first] - levels * (len(v) - first)

"""Tables of actions on which methods are told apart: spheres, signs, real features, needles, and the worst misfit.

Dong and Yang (2023) for what they show; Lattimore, Szepesvari and Weisz (2020), "Learning with good feature
representations in bandits and in RL with a generative model", for needles.
"""

from __future__ import annotations

import itertools
import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidParameter, UnknownName
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, is_whole, require
from thalweg.online.actions.problem import ActionTable, Features, Vector

Misfit = Literal["uniform", "signs", "adversarial"]


def sphere(n: int, d: int, seed: int = 0) -> Features:
    """Actions drawn from the unit sphere, shape (n, d).

    >>> sphere(3, 2).shape
    (3, 2)
    """
    _check_counts("sphere", n=n, d=d)
    rows = generator(seed, 1).standard_normal((n, d))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def signs(n: int, d: int, seed: int = 0) -> Features:
    """Actions of random signs, shape (n, d), no two alike: features that few queries tell apart, for `SparseDesign`.

    >>> np.unique(np.abs(signs(3, 4))).tolist()
    [1.0]
    """
    _check_counts("signs", n=n, d=d)
    require(d > 60 or n <= 2**d, f"There are {2 ** min(d, 60)} different actions of {d} signs", got=n)
    rng, rows = generator(seed, 2), np.zeros((0, d))
    while len(rows) < n:
        more = rng.choice([-1.0, 1.0], (n, d))
        rows = np.vstack([rows, more])
        rows = rows[np.sort(np.unique(rows, axis=0, return_index=True)[1])]
    return np.ascontiguousarray(rows[:n])


def sparse_parameter(d: int, sparsity: int, seed: int = 0, *, alike: bool = False) -> Vector:
    """A theta with that many nonzero entries, shape (d,).

    Args:
        alike: entries are all +-1/sparsity, so that ``|theta|_1 = 1``; else a direction drawn at random, and norm one.

    >>> int(np.count_nonzero(sparse_parameter(10, 3)))
    3
    """
    _check_counts("sparse_parameter", d=d)
    require(
        is_whole(sparsity) and 1 <= sparsity <= d, "sparse_parameter needs 1 <= sparsity <= d", got=sparsity
    )
    rng, theta = generator(seed, 3), np.zeros(d)
    places = rng.choice(d, sparsity, replace=False)
    values = rng.choice([-1.0, 1.0], sparsity) if alike else rng.standard_normal(sparsity)
    theta[places] = values / (sparsity if alike else np.linalg.norm(values))
    return theta


def nearly_linear(
    features: Features,
    theta: Vector,
    eps: float,
    misfit: Misfit = "uniform",
    *,
    seed: int = 0,
    noise: float = 0.0,
) -> ActionTable:
    """A table with rewards ``<phi(a), theta> + nu(a)``, ``|nu| <= eps``.

    Args:
        features: shape (n, d); theta: shape (d,).
        eps: the misspecification.
        misfit: nu is "uniform" in +-eps, or one of its ends, "signs"; "adversarial" is `worst_for_least_squares`.
        noise: of the table.

    >>> table = nearly_linear(sphere(50, 4), sparse_parameter(4, 1), eps=0.1)
    >>> bool(np.abs(table.rewards - table.features @ sparse_parameter(4, 1)).max() <= 0.1)
    True
    """
    require(is_real(eps) and 0 <= eps < math.inf, "nearly_linear needs a finite eps >= 0", got=eps)
    linear, rng = features @ theta, generator(seed, 4)
    if misfit == "uniform":
        nu = rng.uniform(-eps, eps, len(features))
    elif misfit == "signs":
        nu = eps * rng.choice([-1.0, 1.0], len(features))
    elif misfit == "adversarial":
        nu = worst_for_least_squares(features, linear, eps)
    else:
        raise UnknownName("misfit", misfit, ("uniform", "signs", "adversarial"))
    return ActionTable(features, linear + nu, noise=noise)


def worst_for_least_squares(
    features: Features, linear: Vector, eps: float, weights: Vector | None = None
) -> Vector:
    """The nu with ``|nu| <= eps`` that makes least squares prefer a bad action, shape (n,).

    ``eps sign(K[a0])`` with K the hat matrix and a0 the worst action whose estimate it can raise to that of the best;
    where it can raise none so far, the one it raises most.

    Args:
        linear: rewards without misfit, shape (n,).
        weights: of the actions in the least squares, shape (n,), a design; alike by default.
    """
    w = np.full(len(features), 1.0 / len(features)) if weights is None else weights
    moments = features.T @ (w[:, None] * features)
    hat = (features @ np.linalg.pinv(moments, hermitian=True)) @ (w[:, None] * features).T
    raised = linear + eps * np.abs(hat).sum(1)
    able = np.flatnonzero(raised >= linear.max())
    worst = able[np.argmin(linear[able])] if len(able) else int(np.argmax(raised))
    return np.asarray(eps * np.where(hat[worst] >= 0, 1.0, -1.0))


def reed_muller(m: int) -> NDArray[np.int64]:
    """Words of the second-order Reed-Muller code as signs, one of each pair +-: shape (2^(m (m + 1) / 2), 2^m).

    Two of them have an inner product of at most 2^(m-1), half their length: a packing of 64 directions in R^8, 1024 in
    R^16, 32 768 in R^32 with coherence 1/2.

    >>> words = reed_muller(3)
    >>> words.shape, int(np.abs(words @ words.T - 8 * np.eye(64, dtype=int)).max())
    ((64, 8), 4)
    """
    require(
        is_whole(m) and 2 <= m <= 5, "reed_muller needs 2 <= m <= 5; at 6 there are two million words", got=m
    )
    points = np.array(list(itertools.product((0, 1), repeat=m)))
    pairs = [points[:, i] * points[:, j] for i, j in itertools.combinations(range(m), 2)]
    basis = np.array([*points.T, *pairs])  # without the constant, whose words are the others' opposites
    coefficients = np.array(list(itertools.product((0, 1), repeat=len(basis))))
    return np.asarray(1 - 2 * ((coefficients @ basis) % 2), dtype=np.int64)


def sign_packing(s: int, coherence: float, tries: int = 2000, seed: int = 0) -> NDArray[np.int64]:
    """Random words of s signs, each kept if its inner product with all kept is at most ``coherence`` s, shape (n, s).

    Their number grows as exp(s coherence^2 / 2), up to ``tries``.

    >>> words = sign_packing(30, 0.4)
    >>> bool(np.abs(words @ words.T - 30 * np.eye(len(words))).max() <= 12)
    True
    """
    _check_counts("sign_packing", s=s, tries=tries)
    require(is_real(coherence) and 0 < coherence < 1, "sign_packing needs 0 < coherence < 1", got=coherence)
    kept: NDArray[np.int64] = np.zeros((0, s), dtype=np.int64)
    for word in generator(seed, 5).choice(np.array([-1, 1]), (tries, s)):
        if not len(kept) or np.abs(kept @ word).max() <= coherence * s:
            kept = np.vstack([kept, word])
    return kept


def needle(
    words: NDArray[np.int64], eps: float, place: int | None = None, d: int | None = None, seed: int = 0
) -> tuple[ActionTable, int]:
    """Rewards that are zero at all actions but one: within eps of linear, and nothing tells where the one is.

    Its reward is ``c eps``, 1/c the coherence of the words. Whoever asks for less than that error has to try actions
    one by one, (n + 1) / 2 of them on average, whatever the method.

    Args:
        words: a packing of signs, shape (n, s): `reed_muller`, `sign_packing`.
        eps: the misspecification.
        place: of the needle; drawn by default.
        d: of the features, s by default; the words stand in s coordinates drawn at random, the others are zero.

    Returns:
        The table, and the needle's number.

    >>> table, place = needle(reed_muller(3), eps=0.1, seed=1)
    >>> float(table.rewards.max()), int(np.count_nonzero(table.rewards)), int(table.rewards.argmax()) == place
    (0.2, 1, True)
    """
    n, s = words.shape
    wide = s if d is None else d
    require(is_whole(wide) and wide >= s, f"needle needs d >= s = {s}", got=d)
    require(is_real(eps) and 0 < eps < math.inf, "needle needs a finite eps > 0", got=eps)
    rng = generator(seed, 6)
    at = int(rng.integers(n)) if place is None else place
    require(0 <= at < n, f"needle needs a place in 0 .. {n - 1}", got=place)
    largest = _largest_product(words)
    if not 0 < largest < s:
        raise InvalidParameter(f"needle needs words whose products lie between 0 and s = {s}; got {largest}.")
    features = np.zeros((n, wide))
    features[:, np.sort(rng.choice(wide, s, replace=False))] = words / math.sqrt(s)
    rewards = np.zeros(n)
    rewards[at] = eps * s / largest
    return ActionTable(features, rewards), at


def real_actions(
    name: Literal["breast_cancer", "digits"], sparsity: int, eps: float, *, seed: int = 0
) -> tuple[ActionTable, Vector]:
    """The rows of a packaged table as actions: rewards by its most telling features, and a misfit that is real.

    Features are standardised, and rows scaled by one number so that the longest has norm one. Orthogonal matching
    pursuit picks ``sparsity`` of them for the target (malignant or not; a digit below five or not); theta is their fit,
    scaled to norm one, and what they leave of the target, scaled to eps, is nu.

    Returns:
        The table, and theta, shape (d,).

    >>> table, theta = real_actions("breast_cancer", 2, 0.1)
    >>> table.features.shape, int(np.count_nonzero(theta))
    ((569, 30), 2)
    """
    from sklearn.linear_model import orthogonal_mp

    from thalweg.datasets import load

    if name not in ("breast_cancer", "digits"):
        raise UnknownName("table of actions", name, ("breast_cancer", "digits"))
    data = load(name)
    X = np.asarray(data.X, dtype=np.float64).reshape(len(data.X), -1)
    X = X[:, X.std(0) > 0]
    X = (X - X.mean(0)) / X.std(0)
    X /= np.linalg.norm(X, axis=1).max()
    target = np.asarray(data.numbers() if name == "breast_cancer" else data.numbers() < 5, dtype=np.float64)
    target = target - target.mean()
    require(
        is_whole(sparsity) and 1 <= sparsity <= X.shape[1],
        f"real_actions needs 1 <= sparsity <= {X.shape[1]}",
        got=sparsity,
    )
    fit = np.asarray(orthogonal_mp(X, target, n_nonzero_coefs=sparsity))
    left = target - X @ fit
    theta = fit / np.linalg.norm(fit)
    order = generator(seed, 7).permutation(len(X))
    nu = eps * left / np.abs(left).max()
    return ActionTable(X[order], (X @ theta + nu)[order]), theta


def _largest_product(words: NDArray[np.int64]) -> int:
    """The largest modulus of an inner product of two words, exactly: sums of signs are whole in float32."""
    rows, largest = words.astype(np.float32), 0
    for i in range(0, len(rows), 256):
        products = np.abs(rows[i : i + 256] @ rows.T)
        products[np.arange(len(products)), np.arange(i, i + len(products))] = 0.0
        largest = max(largest, int(products.max()))
    return largest


def _check_counts(what: str, **counts: int) -> None:
    for name, count in counts.items():
        require(is_whole(count) and count >= 1, f"{what} needs a whole {name} >= 1", got=count)

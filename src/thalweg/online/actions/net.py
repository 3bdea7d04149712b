"""A net of sparse vectors: lattice points on every support, and what each promises.

Whatever the parameter theta with |theta|_0 <= s and |theta|_2 <= radius, a point of the net differs from it by at most
``eta`` at every action.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidParameter
from thalweg.core.validation import is_real, is_whole, require
from thalweg.online.actions._net_kernels import candidate_value, count_ball, keep_consistent, net_promises
from thalweg.online.actions.problem import Features, Vector

#: Bytes of candidates' promises that one block of supports fills.
BLOCK = 1 << 24


@dataclass(frozen=True)
class NetSize:
    """A net that is described and not made: its lattice and how many candidates it has.

    Args:
        d, sparsity: of the parameter.
        spacing: of the lattice.
        reach: largest norm of a point.

    >>> NetSize(16, 1, 0.2, 1.1).count  # 11 points on each of 16 axes
    176
    """

    d: int
    sparsity: int
    spacing: float
    reach: float

    @classmethod
    def of(cls, features: Features, sparsity: int, eta: float, radius: float = 1.0) -> NetSize:
        """The net that covers the s-sparse vectors of a ball within ``eta`` at all these actions.

        A lattice of spacing h leaves each coordinate off by at most h/2, and so an action by at most h/2 times the
        largest sum of s of its features' moduli; h makes this ``eta``. Where rows have norm one that is at least the
        usual 2 eta / sqrt(s), and for rows of any other size it is right as it stands.

        Raises:
            InvalidParameter: a sparsity outside 0 .. d, an eta or a radius that is not positive.
        """
        d = features.shape[1]
        require(
            is_whole(sparsity) and 0 <= sparsity <= d,
            f"sparsity needs a whole number from 0 to d = {d}",
            got=sparsity,
        )
        require(is_real(eta) and 0 < eta < math.inf, "A net needs a radius eta > 0", got=eta)
        require(is_real(radius) and 0 < radius < math.inf, "radius, of theta, needs a number > 0", got=radius)
        largest = float(np.sort(np.abs(features), axis=1)[:, d - sparsity :].sum(1).max())
        # Twice the radius is as coarse as nothing at all; rows of zeros would ask for that.
        spacing = min(2.0 * eta / largest, 2.0 * radius) if largest > 0 else 2.0 * radius
        return cls(d, sparsity, spacing, radius + 0.5 * spacing * math.sqrt(sparsity))

    @property
    def supports(self) -> int:
        """How many."""
        return math.comb(self.d, self.sparsity)

    @cached_property
    def points(self) -> int:
        """Lattice points on a support."""
        return _in_ball((self.reach / self.spacing) ** 2 * (1 + 1e-12), self.sparsity)

    @property
    def count(self) -> int:
        """Candidates in all: those on supports that share a point are counted on each."""
        return self.supports * self.points

    def require_within(self, limit: int) -> None:
        """Refuse a net with more candidates than ``limit``, before it is made."""
        if self.count > limit:
            raise InvalidParameter(
                f"The net has {self.supports} supports with {self.points} points on each: {self.count} candidates; "
                f"the limit is {limit}. Use LazyElimination, which needs no net, a larger eta, or a larger limit."
            )


def _in_ball(bound: float, s: int) -> int:
    """Points of Z^s whose squares sum to at most ``bound``; by the ball's volume where they are more than 10^12."""
    volume = math.pi ** (s / 2) / math.gamma(s / 2 + 1) * bound ** (s / 2)
    return int(volume) if volume > 1e12 else int(count_ball(bound, s))


class Net:
    """The candidates of a `NetSize`, in the order of their promises, and those that answers leave.

    Args:
        features: shape (n, d).
        size: from `NetSize.of`.

    Cost: 2 n operations in float32 for each candidate, once (all coordinates but the last are added up once for a row
    of the lattice); 12 bytes a candidate kept, 24 while they are sorted. An answer costs s operations for each
    candidate left.

    >>> features = np.array([[0.6, 0.8], [1.0, 0.0]])
    >>> net = Net(features, NetSize.of(features, sparsity=1, eta=0.5))
    >>> net.top()  # promise, action: the axis of the second feature is best at 1, with action 0
    (1.0, 1)
    """

    def __init__(self, features: Features, size: NetSize) -> None:
        self.features, self.size = features, size
        s = size.sparsity
        self.supports = all_supports(size.d, s)
        self.grid = lattice(size)
        self.alive, self.rounding = self._sorted()

    def _sorted(self) -> tuple[NDArray[np.int64], float]:
        """Candidates by promise, the largest first, and how far the promises behind that order may be off."""
        promises = self._promises()
        # Of equal promises the first: the order is that of the candidates.
        order = np.argsort(-promises, kind="stable")
        largest = float(np.abs(promises).max(initial=0.0))
        return order, (self.size.sparsity + 2) * float(np.finfo(np.float32).eps) * largest

    def _promises(self) -> NDArray[np.float32]:
        found = np.zeros((len(self.supports), len(self.grid)), dtype=np.float32)
        if self.size.sparsity:
            columns = np.ascontiguousarray(self.features.T, dtype=np.float32)
            grid, step = self.grid.astype(np.float32), max(1, BLOCK // (4 * len(self.grid)))
            for c in range(0, len(found), step):  # so that Ctrl-C comes between
                net_promises(self.supports[c : c + step], grid, columns, found[c : c + step])
        return found.ravel()

    @property
    def count(self) -> int:
        """Candidates that the answers have left."""
        return len(self.alive)

    def top(self) -> tuple[float, int]:
        """The largest promise, and its action; none of the others is larger by more than ``rounding``."""
        support, point = self.candidate(int(self.alive[0]))
        action = int(np.argmax(self.features[:, support] @ point))
        return float(candidate_value(support, point, self.features[action])), action

    def candidate(self, number: int) -> tuple[NDArray[np.int64], Vector]:
        """The support of a candidate and its coordinates on it."""
        c, g = divmod(number, len(self.grid))
        return self.supports[c], self.grid[g]

    def vector(self, number: int) -> Vector:
        """A candidate as a vector, shape (d,)."""
        support, point = self.candidate(number)
        theta = np.zeros(self.size.d)
        theta[support] = point
        return theta

    def keep(self, action: int, reward: float, tolerance: float) -> None:
        """Remove the candidates that are off by more than ``tolerance`` at an action."""
        kept = keep_consistent(self.alive, self.supports, self.grid, self.features[action], reward, tolerance)
        self.alive = self.alive[:kept]

    def drop_top(self) -> None:
        """Remove the candidate with the largest promise."""
        self.alive = self.alive[1:]


def all_supports(d: int, sparsity: int) -> NDArray[np.int64]:
    """Every choice of ``sparsity`` places among d, in order, shape (C(d, s), s).

    >>> all_supports(3, 2).tolist()
    [[0, 1], [0, 2], [1, 2]]
    """
    count = math.comb(d, sparsity)
    places = itertools.chain.from_iterable(itertools.combinations(range(d), sparsity))
    return np.fromiter(places, dtype=np.int64, count=count * sparsity).reshape(count, sparsity)


def lattice(size: NetSize) -> Vector:
    """The points on one support, shape (points, s), the last coordinate running fastest."""
    s, bound = size.sparsity, (size.reach / size.spacing) ** 2 * (1 + 1e-12)
    points: NDArray[np.int64] = np.zeros((1, 0), dtype=np.int64)
    for _ in range(s):
        most = np.array([math.isqrt(int(bound - square)) for square in np.square(points).sum(1)])
        repeated = np.repeat(points, 2 * most + 1, axis=0)
        last = np.concatenate([np.arange(-m, m + 1) for m in most])
        points = np.column_stack([repeated, last])
    return size.spacing * points.astype(np.float64)

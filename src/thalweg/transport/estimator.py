"""The light Schrodinger bridge as a scikit-learn estimator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin, _fit_context
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from thalweg.core import Figure, InvalidProblem, Series
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import is_whole, require
from thalweg.datasets.networks import load_tensors, save_tensors
from thalweg.transport.annealing import annealed
from thalweg.transport.bridge import Bridge
from thalweg.transport.light_bridge import LightSB
from thalweg.transport.pairs import energy_distance
from thalweg.transport.problem import Covariance, EntropicTransport, clouds_of_one_space, standard_unit

Array = NDArray[np.float64]
#: Share of the samples by which ``n_components="auto"`` is chosen, and the least fall of the loss that pays a doubling.
HELD_OUT, WORTH = 0.1, 0.005
#: Most samples of each cloud between which `eps_path` measures an energy distance.
COMPARED = 2000


class LightBridge(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Carry one cloud of points to another that nothing pairs with it, by a map, a noise and a diffusion.

    Use it for two snapshots of one population (cells, prices, latent codes): `transform` gives the mean of where a
    point goes, `sample` draws from where it may go, `trajectory` the ways. It joins distributions, and knows nothing of
    what really happened to a point. The way back is another fit, with the clouds swapped.

    Args:
        eps: entropy weight, > 0, in squared units of the data: the variance of the noise on the way. Default 0.1 of
            the product of the clouds' spreads (``"auto"``). See `eps_path`.
        n_components: Gaussians of the potential, at most the samples of x1. Default 20. ``"auto"``: 5, 10, ..., 160
            while the loss of a tenth of the samples, held out, falls by more than 0.005.
        covariance: ``"diag"``, the default, or ``"full"``.
        steps, batch_size, step_size: see `LightSB`; default 600, 512, and by eps.
        stages: larger eps that are fitted first, see `annealed`. Default 1, none.
        device: where to compute. Default the processor.
        random_state: a whole number, default 0.

    `fit` takes two arrays, shapes (n0, D) and (n1, D); all else takes points of the first cloud and gives NumPy's
    arrays. In a pipeline, steps before this one see x0 alone: scale both clouds beforehand.

    Attributes:
        bridge_: the fitted `Bridge`.
        eps_: the eps in use.
        n_components_: the number in use.
        loss_: the loss of all samples.
        imbalance_: see `EntropicTransport`; near 0 for a good fit.
        n_iter_: steps done.

    >>> import numpy as np
    >>> from thalweg.transport import LightBridge
    >>> rng = np.random.default_rng(0)
    >>> before, after = rng.standard_normal((500, 2)), 5.0 + rng.standard_normal((400, 2))
    >>> model = LightBridge(eps=0.2, n_components=3).fit(before, after)
    >>> bool(np.abs(model.transform(before).mean(0) - 5.0).max() < 0.2), model.trajectory(before[:7], steps=4).shape
    (True, (5, 7, 2))
    """

    bridge_: Bridge
    eps_: float
    _answer: Tensor
    _centres: tuple[Array, Array]
    _lengths: tuple[float, float]
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "eps": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "n_components": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "covariance": [StrOptions({"diag", "full"})],
        "steps": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "step_size": [None, Interval(Real, 0, None, closed="neither")],
        "stages": [Interval(Integral, 1, None, closed="left")],
        "device": [str],
        "random_state": [Interval(Integral, 0, None, closed="left")],
    }

    def __init__(
        self,
        eps: float | Literal["auto"] = "auto",
        *,
        n_components: int | Literal["auto"] = 20,
        covariance: Covariance = "diag",
        steps: int = 600,
        batch_size: int = 512,
        step_size: float | None = None,
        stages: int = 1,
        device: str = "cpu",
        random_state: int = 0,
    ) -> None:
        self.eps = eps
        self.n_components = n_components
        self.covariance = covariance
        self.steps = steps
        self.batch_size = batch_size
        self.step_size = step_size
        self.stages = stages
        self.device = device
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        x0: ArrayLike,
        x1: ArrayLike,
        *,
        weights0: ArrayLike | None = None,
        weights1: ArrayLike | None = None,
    ) -> Self:
        """Fit to two clouds; ``weights0`` and ``weights1``, >= 0, count as so many copies of each sample.

        Raises:
            InvalidProblem, NotFinite, InvalidParameter: see `EntropicTransport`.
        """
        x0 = validate_data(self, x0, dtype=np.float64)
        x1 = np.asarray(x1) if not hasattr(x1, "detach") else x1
        weights = {"weights0": weights0, "weights1": weights1}
        count = int(np.shape(x1)[0]) if np.ndim(x1) else 0
        if self.n_components == "auto":
            K = self._chosen(x0, x1, count, weights)
        else:
            K = int(self.n_components)
        problem = self._problem(x0, x1, K, **weights)
        self._keep(problem, self._solved(problem))
        self.n_iter_ = int(self.steps)
        return self

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, x0: ArrayLike, x1: ArrayLike) -> Self:
        """One step of Adam on all samples given, at the full step size; the first call fits.

        Centres, spreads and eps stay those of the first call.
        """
        if not hasattr(self, "bridge_"):
            return self.fit(x0, x1)
        x0 = validate_data(self, x0, dtype=np.float64, reset=False)
        if not hasattr(self, "_answer"):
            raise InvalidProblem("partial_fit: a loaded bridge cannot be fitted further; fit it again.")
        problem = EntropicTransport(
            x0, x1, self.eps_, 1, self.covariance, device=self.device, unit=(self._centres, self._lengths)
        )
        method = LightSB(10**9, max(int(np.shape(x0)[0]), int(np.shape(x1)[0])), self.step_size)
        if not hasattr(self, "_state"):
            self._state = method.resumed(problem, self._answer, int(self.random_state))
        self._state = method.step(problem, self._state)
        self._keep(problem, self._state.x, forget=False)
        self.n_iter_ += 1
        return self

    def transform(self, x0: ArrayLike) -> Array:
        """The mean of where each point goes, shape (n, D)."""
        bridge, x = self.bridge_of(x0)
        return _array(bridge.barycentric(x))

    def sample(self, x0: ArrayLike, n: int = 1, random_state: int = 0) -> Array:
        """``n`` ends of each point, shape (n, points, D)."""
        require(is_whole(n) and n >= 1, "LightBridge.sample needs n >= 1", got=n)
        bridge, x = self.bridge_of(x0)
        drawn = self._generator(random_state)
        return np.stack([_array(bridge.sample(x, drawn)) for _ in range(n)])

    def trajectory(
        self, x0: ArrayLike, steps: int = 50, how: Literal["sde", "bridge"] = "sde", random_state: int = 0
    ) -> Array:
        """The diffusion from each point, shape (steps + 1, points, D); see `Bridge.trajectory`."""
        bridge, x = self.bridge_of(x0)
        return _array(bridge.trajectory(x, steps, self._generator(random_state), how))

    def interpolate(self, x0: ArrayLike, t: float, random_state: int = 0) -> Array:
        """Where each point is at time t, drawn from its law, shape (points, D)."""
        bridge, x = self.bridge_of(x0)
        return _array(bridge.interpolate(x, t, self._generator(random_state)))

    def log_density(self, x0: ArrayLike, x1: ArrayLike) -> Array:
        """``log pi(x1_i | x0_i)``, shape (n,)."""
        bridge, x = self.bridge_of(x0)
        return _array(bridge.log_density(x1, x))

    def bridge_of(self, x0: ArrayLike) -> tuple[Bridge, Tensor]:
        """The fitted bridge, and points checked for it."""
        check_is_fitted(self, "bridge_")
        return self.bridge_, self.bridge_.points("x0", validate_data(self, x0, dtype=np.float64, reset=False))

    def save(self, path: str | Path) -> None:
        """Keep the fitted bridge in a file of safetensors, written whole or not at all."""
        check_is_fitted(self, "bridge_")
        b = self.bridge_
        tensors = {name: getattr(b, name) for name in ("log_a", "R", "S", "centre0", "centre1")}
        kept = {k: v for k, v in self.get_params().items() if k != "device"}
        words = {"parameters": json.dumps(kept), "eps": repr(float(b.eps)), "kind": "thalweg.LightBridge"}
        save_tensors(path, tensors, words)

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu") -> LightBridge:
        """Inverse of `save`.

        Raises:
            UnreadableFile: the file is absent, damaged, or holds something else.
        """

        def build(words: dict[str, str], tensors: dict[str, Tensor]) -> LightBridge:
            if words.get("kind") != "thalweg.LightBridge":
                raise ValueError("it holds something else")
            made = cls(**json.loads(words["parameters"]), device=device)
            made.bridge_ = Bridge(float(words["eps"]), **tensors)
            return made

        model = load_tensors(path, build, "no file that LightBridge.save wrote", device)
        model.eps_, model.n_components_ = model.bridge_.eps, model.bridge_.n_components
        model.n_features_in_ = model.bridge_.dimensions
        return model

    def _problem(self, x0: ArrayLike, x1: ArrayLike, K: int, **options: Any) -> EntropicTransport:  # noqa: ANN401
        eps = default_eps(x0, x1) if self.eps == "auto" else self.eps
        build = {"n_components": K, "covariance": self.covariance, "device": self.device, **options}
        return EntropicTransport(x0, x1, float(eps), **build)

    def _solved(self, problem: EntropicTransport) -> Tensor:
        method = LightSB(int(self.steps), int(self.batch_size), self.step_size)
        found: Tensor = annealed(problem, method, stages=int(self.stages), seed=int(self.random_state)).x
        return found

    def _chosen(self, x0: ArrayLike, x1: ArrayLike, count: int, weights: dict[str, Any]) -> int:
        """The number of components after which doubling it does not pay."""
        best, chosen, K = np.inf, 1, 5
        while min(160, max(1, count - int(HELD_OUT * count))) >= K:
            problem = self._problem(x0, x1, K, held_out=HELD_OUT, seed=int(self.random_state), **weights)
            loss = problem.metrics(self._solved(problem))["held_out"]
            if not loss < best - WORTH:
                break
            best, chosen, K = loss, K, 2 * K
        return chosen

    def _keep(self, problem: EntropicTransport, x: Tensor, forget: bool = True) -> None:
        if forget and hasattr(self, "_state"):
            del self._state
        self._answer, self._centres, self._lengths = x, problem.centres, problem.lengths
        self.bridge_ = problem.bridge(x)
        judged = problem.metrics(x)
        self.loss_, self.imbalance_ = judged["loss"], judged["imbalance"]
        self.eps_, self.n_components_ = problem.eps, len(x)

    def _generator(self, seed: int) -> torch.Generator:
        whole = is_whole(seed) and seed >= 0
        require(whole, "LightBridge needs random_state >= 0, a whole number", got=seed)
        return torch_generator(seed, 0x19, device=str(self.bridge_.R.device))


def default_eps(x0: ArrayLike, x1: ArrayLike) -> float:
    """A tenth of the product of the clouds' spreads, in whatever unit they are."""
    return 0.1 * _spreads(*clouds_of_one_space(x0, x1))


def _spreads(x0: Array, x1: Array) -> float:
    """The product of two clouds' spreads."""
    first, second = standard_unit((x0, x1), [np.full(len(x), 1 / len(x)) for x in (x0, x1)])[1]
    return first * second


def eps_path(
    x0: ArrayLike,
    x1: ArrayLike,
    values: Sequence[float] = (0.01, 0.03, 0.1, 0.3, 1.0),
    **options: Any,  # noqa: ANN401
) -> pd.DataFrame:
    """What eps does: a row for each, with the cost of the transport, its noise, and how well the target is met.

    ``values`` are shares of the product of the clouds' spreads; ``options`` are those of `LightBridge`. Columns:
    ``eps``; ``cost``, the mean of ``|x - y|^2 / 2``; ``noise``, the mean total variance of y given x; ``target``, the
    `energy_distance` of drawn ends to x1 (about 0 where met). Take the largest eps whose noise you can bear: small ones
    need more components.

    >>> rng = np.random.default_rng(0)
    >>> table = eps_path(*rng.standard_normal((2, 300, 1)), values=(0.1, 1.0), n_components=2, steps=100)
    >>> list(table.columns), bool(table.noise[0] < table.noise[1])
    (['eps', 'cost', 'noise', 'target'], True)
    """
    if not len(values):
        raise InvalidProblem("eps_path: no values; expected one or more.")
    first, second = clouds_of_one_space(x0, x1)
    unit, rows = _spreads(first, second), []
    for share in values:
        model = LightBridge(share * unit, **options).fit(first, second)
        end = model.sample(first)[0]
        covariance = model.bridge_.conditional_covariance(first)
        step = max(1, len(end) // COMPARED), max(1, len(second) // COMPARED)
        rows.append(
            {
                "eps": model.eps_,
                "cost": float(((end - first) ** 2).sum(1).mean()) / 2,
                "noise": float(covariance.diagonal(dim1=1, dim2=2).sum(1).mean()),
                "target": energy_distance(end[:: step[0]], second[:: step[1]]),
            }
        )
    return pd.DataFrame(rows)


def eps_figure(table: pd.DataFrame) -> Figure:
    """`eps_path` as a picture: cost, noise and distance to the target over eps.

    >>> table = pd.DataFrame({"eps": [0.1, 1.0], "cost": [2.0, 2.5], "noise": [0.1, 0.9], "target": [0.01, 0.001]})
    >>> [series.name for series in eps_figure(table).series]
    ['cost of the transport', 'noise: variance of the end given the start', 'distance of drawn ends to the target']
    """
    names = {
        "cost": "cost of the transport",
        "noise": "noise: variance of the end given the start",
        "target": "distance of drawn ends to the target",
    }
    at = [float(v) for v in table["eps"]]
    series = [
        Series(name, at, [max(float(v), 0.0) for v in table[column]], dots=False)
        for column, name in names.items()
    ]
    caption = "Take the largest eps whose noise you can bear; a target that is not met needs more components."
    return Figure(
        "What eps does", caption, "eps", "in squared units; the distance in units", series, log_x=True
    )


def _array(values: Tensor) -> Array:
    return values.cpu().double().numpy()

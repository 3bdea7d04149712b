"""What may be chosen: named parameters, with choices that matter only beside others.

Points are dictionaries for the user and vectors of the unit cube for the methods; a category with more than two
values takes one coordinate for each.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from scipy.stats import qmc
from torch import Tensor

from thalweg.blackbox.parameters import Categorical, Integer, Parameter, Point, Real
from thalweg.core import InvalidParameter, InvalidProblem, UnknownName
from thalweg.core.validation import require
from thalweg.datasets import load_toml


@dataclass(frozen=True)
class Space:
    """Named parameters, and cheap constraints that are known beforehand.

    Args:
        parameters: `Real`, `Integer` or `Categorical`, by name.
        allowed: takes a point, tells whether it may be evaluated; for constraints that cost nothing to check.

    Raises:
        InvalidProblem: no parameters, a condition on one that comes later or is no category.

    >>> space = Space({"C": Real(1e-2, 1e2, log=True), "kernel": Categorical(["rbf", "poly"]),
    ...                "degree": Integer(2, 5, when={"kernel": "poly"})})
    >>> space.dimension
    3
    >>> space.decode(space.encode({"C": 1.0, "kernel": "rbf"}))
    {'C': 1.0, 'kernel': 'rbf'}
    """

    parameters: Mapping[str, Parameter]
    allowed: Callable[[Point], bool] | None = None
    dimension: int = field(init=False)

    def __post_init__(self) -> None:
        if not isinstance(self.parameters, Mapping):
            raise InvalidProblem(
                f"Space needs parameters by name, such as {{'x': Real(0.0, 1.0)}}; got {self.parameters!r}."
            )
        if not self.parameters:
            raise InvalidProblem("Space needs at least one parameter.")
        seen: set[str] = set()
        for name, parameter in self.parameters.items():
            if not isinstance(parameter, Parameter):
                raise InvalidProblem(
                    f"Space: {name!r} is {parameter!r}; expected a Real, an Integer or a Categorical."
                )
            self._check_conditions(name, seen)
            seen.add(name)
        object.__setattr__(self, "dimension", sum(p.width for p in self.parameters.values()))

    def _check_conditions(self, name: str, before: set[str]) -> None:
        when = self.parameters[name].when or {}
        if not isinstance(when, Mapping):
            raise InvalidProblem(f"Space: {name!r} has when={when!r}; write when={{other: value}}.")
        for other, wanted in when.items():
            category = self.parameters.get(other)
            if other not in before or not isinstance(category, Categorical):
                raise InvalidProblem(
                    f"Space: {name!r} depends on {other!r}, which must be a category that stands before it."
                )
            for value in wanted if isinstance(wanted, tuple | list) else (wanted,):
                if value not in category.choices:
                    raise UnknownName(f"choice of {other!r}", str(value), map(str, category.choices))

    @classmethod
    def from_toml(cls, path: str | Path) -> Space:
        """A space from a file with a table for each parameter.

        ``[rate]``, ``type = "real"``, ``low = 1e-4``, ``high = 1.0``, ``log = true``; ``type = "integer"``; and
        ``type = "categorical"``, ``choices = ["a", "b"]``. ``when = {kernel = "rbf"}`` makes one conditional.
        """
        kinds = {"real": Real, "integer": Integer, "categorical": Categorical}
        tables = load_toml(path)
        parameters = {}
        for name, table in tables.items():
            options = dict(table) if isinstance(table, dict) else {}
            kind = options.pop("type", None)
            if kind not in kinds:
                raise InvalidProblem(
                    f"{path}: [{name}] needs type = one of {', '.join(kinds)}; got {kind!r}."
                )
            known = inspect.signature(kinds[kind]).parameters
            unknown = next((option for option in options if option not in known), None)
            if unknown is not None:
                near = UnknownName(f"setting of a {kind} parameter", unknown, known)
                raise InvalidProblem(f"{path}: [{name}]: {near}")
            missing = [n for n, p in known.items() if p.default is p.empty and n not in options]
            if missing:
                raise InvalidProblem(f"{path}: [{name}] needs {', '.join(missing)}.")
            try:
                parameters[name] = kinds[kind](**options)
            except InvalidParameter as error:
                raise InvalidProblem(f"{path}: [{name}]: {error}") from None
        return cls(parameters)

    @property
    def slices(self) -> Iterator[tuple[str, Parameter, slice]]:
        """Name, parameter and coordinates of each."""
        at = 0
        for name, parameter in self.parameters.items():
            yield name, parameter, slice(at, at + parameter.width)
            at += parameter.width

    @property
    def continuous(self) -> bool:
        """Whether every point of the cube stands for itself."""
        return all(isinstance(p, Real) and not p.when for p in self.parameters.values())

    def active(self, name: str, point: Point) -> bool:
        """Whether a parameter matters beside the others."""
        for other, wanted in (self.parameters[name].when or {}).items():
            values = wanted if isinstance(wanted, tuple | list) else (wanted,)
            if not self.active(other, point) or point.get(other) not in values:
                return False
        return True

    def encode(self, point: Point) -> list[float]:
        """The coordinates of a point; parameters that do not matter lie in the middle.

        Raises:
            InvalidParameter: a value out of range, or one missing.
            UnknownName: a name or a choice that is none of the space.
        """
        for name in point:
            if name not in self.parameters:
                raise UnknownName("parameter", name, self.parameters)
        u: list[float] = []
        for name, parameter in self.parameters.items():
            if not self.active(name, point):
                u += [0.5] * parameter.width
                continue
            if name not in point:
                raise InvalidParameter(f"The point has no {name!r}: {point}.")
            try:
                u += parameter.encode(point[name])
            except InvalidParameter as error:
                raise InvalidParameter(f"{name}: {error}") from None
        return u

    def decode(self, u: Sequence[float] | Tensor) -> Point:
        """The point that some coordinates stand for, without the parameters that do not matter."""
        values = u.tolist() if isinstance(u, Tensor) else list(u)
        point: Point = {}
        for name, parameter, at in self.slices:
            if self.active(name, point):
                point[name] = parameter.decode(values[at])
        return point

    def snap(self, U: Tensor) -> Tensor:
        """Coordinates, shape (n, dimension), moved to those that `encode` gives."""
        if self.continuous:
            return U
        if any(p.when for p in self.parameters.values()):
            return U.new_tensor([self.encode(self.decode(u)) for u in U])
        return torch.cat([parameter.snap(U[..., at]) for _, parameter, at in self.slices], -1)

    def neighbours(self, u: Tensor) -> Tensor:
        """All points that differ from ``u`` by one step of one discrete parameter, shape (k, dimension)."""
        found = []
        for _, parameter, at in self.slices:
            for part in parameter.neighbours(u[at]):
                other = u.clone()
                other[at] = part
                found.append(other)
        return self.snap(torch.stack(found)) if found else u.new_zeros(0, len(u))

    def design(self, count: int, seed: int, kind: str = "sobol") -> Tensor:
        """``count`` allowed points spread over the space, shape (count, dimension): ``"sobol"`` or ``"lhs"``.

        Raises:
            InvalidProblem: hardly any point is allowed.
        """
        require(kind in ("sobol", "lhs"), "design: kind is 'sobol' or 'lhs'", got=kind)
        engine = qmc.Sobol if kind == "sobol" else qmc.LatinHypercube
        sampler = engine(self.dimension, rng=np.random.default_rng(seed))
        kept: list[Tensor] = []
        have = 0
        for _ in range(50):
            wanted = max(count, 16)
            drawn = sampler.random(1 << (wanted - 1).bit_length() if kind == "sobol" else wanted)
            U = self.snap(torch.from_numpy(drawn))
            U = U[self.permitted(U)]
            kept.append(U)
            have += len(U)
            if have >= count:
                return torch.cat(kept)[:count]
        raise InvalidProblem(
            f"Space: only {have} of some thousand points are allowed. Draw its bounds tighter."
        )

    def permitted(self, U: Tensor) -> Tensor:
        """Which rows of U the known constraints allow, shape (n,), bool."""
        if self.allowed is None:
            return torch.ones(len(U), dtype=torch.bool)
        return torch.tensor([bool(self.allowed(self.decode(u))) for u in U], dtype=torch.bool)

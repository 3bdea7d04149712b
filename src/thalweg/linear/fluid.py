"""Smoke rising past obstacles: a small fluid simulation whose pressure solves are the sequence of systems.

Stam (1999), "Stable fluids"; Bridson (2015), "Fluid simulation for computer graphics", chapters 3 to 6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from thalweg.core import InvalidProblem
from thalweg.core.validation import is_real, require, require_counts, require_positive
from thalweg.linear.obstacles import Mask, box_of_fluid, ellipsoid
from thalweg.linear.poisson import AIR, SOLID, PoissonGrid
from thalweg.linear.problem import LinearSystem
from thalweg.linear.sequence import LinearSystemSequence

Field = NDArray[Any]


@dataclass
class _Flow:
    """What is known between two pressure solves; velocities sit on the faces of cells, one more than cells an axis."""

    t: int
    velocity: list[Field]
    density: Field
    grid: PoissonGrid


@dataclass(frozen=True, eq=False)
class SmokePlume(LinearSystemSequence):
    """Pressure systems ``A_t p_t = -div u`` of hot smoke that rises through a box with an open top.

    Each round advects velocity and smoke (semi-Lagrangian, linear interpolation), adds buoyancy, and asks for the
    pressure that makes the velocity free of divergence. Rounds must be taken in order: system t needs the pressure of
    round t - 1.

    Args:
        shape: of the grid, up along the first axis; 2-D or 3-D.
        rounds: time steps.
        obstacle: ``obstacle(t)`` is a boolean array, True in solid cells; it may move. None for an empty box.
        dt: length of a time step in cell sizes per unit velocity; default 1.
        buoyancy: upward acceleration of full smoke; default 0.1.

    >>> plume = SmokePlume((16, 16), rounds=2)
    >>> system = plume.system(0, None)
    >>> pressure = np.linalg.solve(system.A.to_csr().toarray(), system.b)
    >>> later = plume.system(1, pressure)
    >>> float(plume.density.max()) > 0.5
    True
    """

    shape: tuple[int, ...] = (64, 64)
    rounds: int = 100
    obstacle: Callable[[int], Mask] | None = None
    dt: float = 1.0
    buoyancy: float = 0.1
    _kept: dict[str, _Flow] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        require(len(self.shape) in (2, 3), "SmokePlume needs a 2-D or 3-D shape", got=self.shape)
        require_counts(self, "rounds")
        require_positive(self, "dt")
        finite = is_real(self.buoyancy) and math.isfinite(self.buoyancy)
        require(finite, "SmokePlume needs a finite buoyancy", got=self.buoyancy)

    @property
    def density(self) -> Field:
        """Smoke in each cell after the last system asked for, between 0 and 1."""
        return self._kept["flow"].density

    def system_cells(self) -> NDArray[np.int8]:
        """FLUID, SOLID or AIR of each cell in the last system asked for."""
        return self._kept["flow"].grid.cells

    @property
    def velocity(self) -> list[Field]:
        """Velocity on the faces of each axis, before the last system's pressure acts."""
        return self._kept["flow"].velocity

    def system(self, t: int, previous: Field | None) -> LinearSystem:
        """The pressure system of round t.

        Raises:
            InvalidProblem: not the round after the last one asked for; start again at 0.
        """
        if t == 0:
            velocity = [np.zeros(self._faces(axis)) for axis in range(len(self.shape))]
            density = np.zeros(self.shape)
        else:
            flow = self._kept.get("flow")
            if flow is None or flow.t != t - 1 or previous is None:
                raise InvalidProblem(
                    f"SmokePlume: system {t} needs the pressure of round {t - 1}, asked for just before. Take the "
                    "rounds in order, from 0."
                )
            velocity = projected(flow.velocity, previous, flow.grid)
            density = self._advected(flow.density, velocity, np.indices(self.shape) + 0.5, 0.5)
            velocity = [self._advected(u, velocity, *self._places(axis)) for axis, u in enumerate(velocity)]
        grid = PoissonGrid(self._cells(t))
        density[self._source()] = 1.0
        density[grid.cells != 0] = 0.0
        velocity[0][1:-1] += self.dt * self.buoyancy * 0.5 * (density[1:] + density[:-1])
        walled(velocity, grid)
        self._kept["flow"] = _Flow(t, velocity, density, grid)
        return LinearSystem(grid, np.where(grid.fluid, -divergence(velocity), 0.0).ravel())

    def _cells(self, t: int) -> NDArray[np.int8]:
        cells = box_of_fluid(self.shape)
        if self.obstacle is not None:
            solid = np.asarray(self.obstacle(t), bool)
            require(
                solid.shape == tuple(self.shape),
                f"SmokePlume: the obstacle of round {t} has shape {solid.shape}; expected {self.shape}",
                error=InvalidProblem,
            )
            cells[solid & (cells != AIR)] = SOLID
        return cells

    def _source(self) -> Mask:
        middle = [0.08] + [side / (2.0 * max(self.shape)) for side in self.shape[1:]]
        return ellipsoid(self.shape, middle, 0.07)

    def _faces(self, axis: int) -> tuple[int, ...]:
        return tuple(side + (a == axis) for a, side in enumerate(self.shape))

    def _places(self, axis: int) -> tuple[Field, Field]:
        """Where the faces of one axis are, and what to take off to get their array indices."""
        off = np.array([0.0 if a == axis else 0.5 for a in range(len(self.shape))])
        column = off[:, *(None,) * len(self.shape)]
        return np.indices(self._faces(axis)) + column, column

    def _advected(self, values: Field, velocity: list[Field], places: Field, off: Field | float) -> Field:
        """``values`` at where the flow has come from."""
        came = np.array(places, dtype=float)
        for axis, u in enumerate(velocity):
            _, own = self._places(axis)
            came[axis] -= self.dt * map_coordinates(u, places - own, order=1, mode="nearest")
        moved: Field = map_coordinates(values, came - off, order=1, mode="nearest")
        return moved


def divergence(velocity: list[Field]) -> Field:
    """Outflow of each cell."""
    total: Field = sum(np.diff(u, axis=axis) for axis, u in enumerate(velocity))  # type: ignore[assignment]
    return total


def walled(velocity: list[Field], grid: PoissonGrid) -> None:
    """Set the velocity through solid walls to zero, in place."""
    solid = np.pad(grid.cells == SOLID, 1, constant_values=True)
    inner = slice(1, -1)
    for axis, u in enumerate(velocity):
        window = tuple(slice(None) if a == axis else inner for a in range(solid.ndim))
        beside = np.moveaxis(solid[window], axis, 0)
        np.moveaxis(u, axis, 0)[beside[1:] | beside[:-1]] = 0.0


def projected(velocity: list[Field], pressure: Field, grid: PoissonGrid) -> list[Field]:
    """The velocity less the pressure's gradient: free of divergence in every fluid cell.

    Faces between two cells without fluid keep their velocity.
    """
    p = np.pad(np.where(grid.fluid, pressure.reshape(grid.cells.shape), 0.0), 1)
    fluid = np.pad(grid.fluid, 1)
    found = []
    for axis, u in enumerate(velocity):
        window = tuple(slice(None) if a == axis else slice(1, -1) for a in range(p.ndim))
        slope = np.diff(p[window], axis=axis)
        wet = np.moveaxis(fluid[window], axis, 0)
        touched = np.moveaxis(wet[1:] | wet[:-1], 0, axis)
        found.append(u - np.where(touched, slope, 0.0))
    walled(found, grid)
    return found

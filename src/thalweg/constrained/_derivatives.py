"""Derivatives of f and c: by torch's automatic differentiation, or by SymPy from formulas."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from thalweg.constrained._arrays import Matrix, Vector, dense
from thalweg.core import InvalidProblem

if TYPE_CHECKING:
    from torch import Tensor

#: A function of a float64 vector, written in torch.
TensorFunction: TypeAlias = "Callable[[Tensor], Tensor]"

UNCONSTRAINED = "There are no constraints. For none, use scipy.optimize.minimize."


class Callbacks(NamedTuple):
    """The five functions of `EqualityConstrained`, in its order."""

    value: Callable[[Vector], float]
    gradient: Callable[[Vector], Vector]
    constraints: Callable[[Vector], Vector]
    jacobian: Callable[[Vector], Matrix]
    hessian: Callable[[Vector, Vector], Matrix]


def torch_callbacks(f: TensorFunction, c: TensorFunction | None) -> Callbacks:
    """By automatic differentiation."""
    if c is None:
        raise InvalidProblem(UNCONSTRAINED)
    import torch
    from torch.func import grad, hessian, jacrev

    def lagrangian(x: Tensor, multipliers: Tensor) -> Tensor:
        return f(x) + multipliers @ c(x)

    def arrays(function: Callable[..., Tensor]) -> Callable[..., Vector]:
        def called(*vectors: Vector) -> Vector:
            try:
                out = function(*(torch.tensor(v, dtype=torch.float64) for v in vectors)).detach()
            except (RuntimeError, TypeError, AttributeError) as error:
                reason = " ".join(str(error).split()).partition(". ")[0]
                raise InvalidProblem(
                    "f and c are differentiated by torch: write them with torch's functions of a float64 vector; f "
                    f"gives a number, c a vector. torch says: {reason}."
                ) from error
            return np.asarray(out.numpy(), dtype=np.float64)

        return called

    of_f = arrays(f)

    def value(x: Vector) -> float:
        out = of_f(x)
        if out.ndim:
            raise InvalidProblem(f"value gives shape {out.shape}; expected ().")
        return float(out)

    return Callbacks(
        value,
        arrays(grad(f)),
        arrays(c),
        arrays(jacrev(c)),
        arrays(hessian(lagrangian)),
    )


def stacked(c: TensorFunction | None, g: TensorFunction) -> TensorFunction:
    """c and g in one vector."""
    import torch

    return g if c is None else lambda x: torch.cat([c(x), g(x)])


def with_slacks(
    inner: Callbacks, x: Vector, at_most_zero: Callable[[Vector], Vector]
) -> tuple[Callbacks, Vector]:
    """``g_i(x) + s_i^2`` for the last constraints, and a start with slacks that fit, at least 0.1."""
    n, p = x.size, np.asarray(at_most_zero(x)).size

    def constraints(z: Vector) -> Vector:
        c = np.array(inner.constraints(z[:n]), dtype=np.float64)
        c[-p:] += z[n:] ** 2
        return c

    def jacobian(z: Vector) -> Vector:
        G = dense(inner.jacobian(z[:n]))
        slacks = np.zeros((len(G), p))
        slacks[-p:] = np.diag(2.0 * z[n:])
        return np.hstack([G, slacks])

    def hessian(z: Vector, multipliers: Vector) -> Vector:
        out = np.diag(np.r_[np.zeros(n), 2.0 * multipliers[-p:]])
        out[:n, :n] = dense(inner.hessian(z[:n], multipliers))
        return out

    extended = Callbacks(
        lambda z: inner.value(z[:n]),
        lambda z: np.r_[inner.gradient(z[:n]), np.zeros(p)],
        constraints,
        jacobian,
        hessian,
    )
    return extended, np.r_[x, np.sqrt(np.maximum(-np.asarray(at_most_zero(x)), 0.01))]


@lru_cache(maxsize=256)
def formula_callbacks(minimize: str, subject_to: tuple[str, ...], n: int) -> Callbacks:
    """By SymPy, compiled once for the same text."""
    if not subject_to:
        raise InvalidProblem(UNCONSTRAINED)
    import sympy

    from thalweg.constrained._formulas import read_formula

    x = sympy.symbols([f"x{i + 1}" for i in range(n)], real=True)
    lam = sympy.symbols([f"lambda{i + 1}" for i in range(len(subject_to))], real=True)
    f, c = read_formula(minimize, x), sympy.Matrix([read_formula(text, x) for text in subject_to])
    unknowns = sympy.Matrix(x)
    gradient = sympy.Matrix([f]).jacobian(unknowns)
    lagrangian = f + (sympy.Matrix(lam).T * c)[0]

    def compiled(
        formula: sympy.Basic, shape: tuple[int, ...], *arguments: list[sympy.Symbol]
    ) -> Callable[..., Vector]:
        function = sympy.lambdify(arguments, list(sympy.Matrix([formula])), modules="numpy", cse=True)

        def called(*vectors: Vector) -> Vector:
            with np.errstate(all="ignore"):  # what is not finite is judged by the caller
                return np.array(function(*vectors), dtype=np.float64).reshape(shape)

        return called

    m, value = len(subject_to), compiled(f, (), x)
    return Callbacks(
        lambda z: float(value(z)),
        compiled(gradient, (n,), x),
        compiled(c, (m,), x),
        compiled(c.jacobian(unknowns), (m, n), x),
        compiled(sympy.hessian(lagrangian, x), (n, n), x, lam),
    )

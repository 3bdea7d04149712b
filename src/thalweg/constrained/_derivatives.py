"""Derivatives of f and c: by torch's automatic differentiation, or by SymPy from formulas."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thalweg.core import InvalidProblem

Vector = NDArray[np.float64]


def torch_callbacks(f: Callable[[Any], Any], c: Callable[[Any], Any] | None) -> dict[str, Any]:
    """The five callbacks of `EqualityConstrained`."""
    if c is None:
        raise InvalidProblem("There are no constraints. For none, use scipy.optimize.minimize.")
    import torch
    from torch.func import grad, hessian, jacrev

    def lagrangian(x: Any, multipliers: Any) -> Any:
        return f(x) + multipliers @ c(x)

    def numbers(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*vectors: Vector) -> Any:
            out = function(*(torch.tensor(v, dtype=torch.float64) for v in vectors)).detach()
            return float(out) if out.ndim == 0 else out.numpy()

        return called

    functions = (f, grad(f), c, jacrev(c), hessian(lagrangian))
    names = ("value", "gradient", "constraints", "jacobian", "hessian")
    return {name: numbers(function) for name, function in zip(names, functions, strict=True)}


def stacked(c: Callable[[Any], Any] | None, g: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """c and g in one vector."""
    import torch

    return g if c is None else lambda x: torch.cat([c(x), g(x)])


def with_slacks(
    callbacks: dict[str, Any], x: Vector, inequalities: dict[str, Any]
) -> tuple[dict[str, Any], Vector]:
    """``g_i(x) + s_i^2`` for the last constraints, and a start with slacks that fit, at least 0.1."""
    n, p = x.size, np.asarray(inequalities["constraints"](x)).size
    inner = callbacks

    def constraints(z: Vector) -> Vector:
        c = np.array(inner["constraints"](z[:n]), dtype=np.float64)
        c[-p:] += z[n:] ** 2
        return c

    def jacobian(z: Vector) -> Vector:
        G = inner["jacobian"](z[:n])
        slacks = np.zeros((len(G), p))
        slacks[-p:] = np.diag(2.0 * z[n:])
        return np.hstack([G, slacks])

    def hessian(z: Vector, multipliers: Vector) -> Vector:
        out = np.diag(np.r_[np.zeros(n), 2.0 * multipliers[-p:]])
        out[:n, :n] = inner["hessian"](z[:n], multipliers)
        return out

    extended = {
        "value": lambda z: inner["value"](z[:n]),
        "gradient": lambda z: np.r_[inner["gradient"](z[:n]), np.zeros(p)],
        "constraints": constraints,
        "jacobian": jacobian,
        "hessian": hessian,
    }
    slacks = np.sqrt(np.maximum(-np.asarray(inequalities["constraints"](x)), 0.01))
    return extended, np.r_[x, slacks]


@lru_cache(maxsize=256)
def formula_callbacks(minimize: str, subject_to: tuple[str, ...], n: int) -> dict[str, Any]:
    """The five callbacks of `EqualityConstrained`, compiled once for the same text."""
    import sympy

    x = sympy.symbols([f"x{i + 1}" for i in range(n)], real=True)
    lam = sympy.symbols([f"lambda{i + 1}" for i in range(len(subject_to))], real=True)
    names = {str(s): s for s in x}

    def read(text: str) -> Any:
        try:
            formula = sympy.sympify(text, locals=names)
        except (sympy.SympifyError, TypeError, SyntaxError) as error:
            raise InvalidProblem(f"The formula {text!r} cannot be read: {error}") from error
        strange = sorted(str(s) for s in getattr(formula, "free_symbols", ()) if s not in x)
        if strange:
            raise InvalidProblem(
                f"The formula {text!r} names {', '.join(strange)}; the unknowns are x1 to x{n}."
            )
        return formula

    f, c = read(minimize), sympy.Matrix([read(text) for text in subject_to])
    unknowns = sympy.Matrix(x)
    gradient = sympy.Matrix([f]).jacobian(unknowns)
    lagrangian = f + (sympy.Matrix(lam).T * c)[0]

    def compiled(formula: Any, shape: tuple[int, ...], *arguments: Any) -> Callable[..., Any]:
        function = sympy.lambdify(arguments, list(sympy.Matrix([formula])), modules="numpy", cse=True)

        def called(*vectors: Vector) -> Any:
            with np.errstate(all="ignore"):  # what is not finite is judged by the caller
                return np.array(function(*vectors), dtype=np.float64).reshape(shape)

        return called

    m = len(subject_to)
    return {
        "value": compiled(f, (), x),
        "gradient": compiled(gradient, (n,), x),
        "constraints": compiled(c, (m,), x),
        "jacobian": compiled(c.jacobian(unknowns), (m, n), x),
        "hessian": compiled(sympy.hessian(lagrangian, x), (n, n), x, lam),
    }

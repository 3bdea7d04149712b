"""Mathematics shared by the areas: linear operators, Krylov solvers, Chebyshev polynomials."""

from thalweg.numerics.chebyshev import chebyshev_features, lipschitz_coefficient_bounds
from thalweg.numerics.krylov import KrylovSolution, cg, gmres, lsqr, minres
from thalweg.numerics.operators import FivePointStencil, adjoint_mismatch, as_csr, as_operator
from thalweg.numerics.sketched_lstsq import sketched_factor, sketched_lstsq

__all__ = [
    "FivePointStencil",
    "KrylovSolution",
    "adjoint_mismatch",
    "as_csr",
    "as_operator",
    "cg",
    "chebyshev_features",
    "gmres",
    "lipschitz_coefficient_bounds",
    "lsqr",
    "minres",
    "sketched_factor",
    "sketched_lstsq",
]

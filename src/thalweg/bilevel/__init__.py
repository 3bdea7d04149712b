"""An optimization inside another: derivatives of solutions with respect to what the problem was made of."""

from thalweg.bilevel._root import NotARoot, SolveInaccurate
from thalweg.bilevel.bisection import bisection
from thalweg.bilevel.blocks import BlockDescent
from thalweg.bilevel.borep import BOREP, EpochSGD
from thalweg.bilevel.cvxpy_layer import cvxpy_layer
from thalweg.bilevel.descent import AID, BOME, ITD, TTSA, StocBiO
from thalweg.bilevel.diagnostics import LowerErrorMonitor, SmoothnessMonitor
from thalweg.bilevel.error_bound import ErrorBound, ErrorBoundFails, ErrorBoundMonitor, error_bound
from thalweg.bilevel.hypergradient import (
    ConjugateGradient,
    Direct,
    FixedPoint,
    HyperGradient,
    NegativeCurvature,
    Neumann,
    explicit_hypergradient,
    hypergradient,
)
from thalweg.bilevel.implicit import (
    Precision,
    custom_fixed_point,
    custom_root,
    precision,
    root_jvp,
    root_vjp,
)
from thalweg.bilevel.inner import (
    Anderson,
    Composite,
    MirrorDescent,
    Newton,
    ProximalGradient,
    differentiable,
)
from thalweg.bilevel.penalty import (
    Certificate,
    MomentumPenalty,
    Penalty,
    PenaltyValue,
    certificate,
    penalty_value,
)
from thalweg.bilevel.problem import Bilevel, Decay, Minibatches, Pair
from thalweg.bilevel.recommended import METHODS
from thalweg.bilevel.scipy_solvers import scipy_minimize, scipy_root
from thalweg.bilevel.single_loop import MASOBA, MRBO, SABA
from thalweg.bilevel.sklearn_solvers import sklearn_fit

__all__ = [
    "METHODS",
    "AID",
    "BOME",
    "BOREP",
    "ITD",
    "MASOBA",
    "MRBO",
    "SABA",
    "TTSA",
    "Anderson",
    "Bilevel",
    "BlockDescent",
    "Certificate",
    "Composite",
    "ConjugateGradient",
    "Decay",
    "Direct",
    "EpochSGD",
    "ErrorBound",
    "ErrorBoundFails",
    "ErrorBoundMonitor",
    "FixedPoint",
    "HyperGradient",
    "LowerErrorMonitor",
    "Minibatches",
    "MirrorDescent",
    "MomentumPenalty",
    "NegativeCurvature",
    "Neumann",
    "Newton",
    "NotARoot",
    "Pair",
    "Penalty",
    "PenaltyValue",
    "Precision",
    "ProximalGradient",
    "SmoothnessMonitor",
    "SolveInaccurate",
    "StocBiO",
    "bisection",
    "certificate",
    "custom_fixed_point",
    "custom_root",
    "cvxpy_layer",
    "differentiable",
    "error_bound",
    "explicit_hypergradient",
    "hypergradient",
    "penalty_value",
    "precision",
    "root_jvp",
    "root_vjp",
    "scipy_minimize",
    "scipy_root",
    "sklearn_fit",
]

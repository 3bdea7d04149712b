"""An optimization inside another: derivatives of solutions with respect to what the problem was made of."""

from thalweg.bilevel._call import NotARoot, SolveInaccurate
from thalweg.bilevel.anderson import Anderson
from thalweg.bilevel.batches import Minibatches
from thalweg.bilevel.bisection import bisection
from thalweg.bilevel.blocks import BlockDescent
from thalweg.bilevel.borep import BOREP, EpochSGD
from thalweg.bilevel.composite import Composite
from thalweg.bilevel.cvxpy_layer import cvxpy_layer
from thalweg.bilevel.descent import AID, BOME, ITD, TTSA, StocBiO
from thalweg.bilevel.diagnostics import LowerErrorMonitor, SmoothnessMonitor
from thalweg.bilevel.differentiable import differentiable
from thalweg.bilevel.hypergradient import (
    CGInverse,
    DirectInverse,
    FixedPointInverse,
    HyperGradient,
    NegativeCurvature,
    NeumannInverse,
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
from thalweg.bilevel.lower_error_bound import (
    LowerErrorBound,
    LowerErrorBoundFails,
    LowerErrorBoundMonitor,
    lower_error_bound,
)
from thalweg.bilevel.mirror_descent import MirrorDescent
from thalweg.bilevel.newton import Newton
from thalweg.bilevel.penalty import MomentumPenalty, Penalty
from thalweg.bilevel.penalty_value import (
    PenaltyCertificate,
    PenaltyValue,
    penalty_certificate,
    penalty_value,
)
from thalweg.bilevel.problem import Bilevel, Pair
from thalweg.bilevel.proximal_gradient import ProximalGradient
from thalweg.bilevel.rates import Decay
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
    "PenaltyCertificate",
    "Composite",
    "CGInverse",
    "Decay",
    "DirectInverse",
    "EpochSGD",
    "LowerErrorBound",
    "LowerErrorBoundFails",
    "LowerErrorBoundMonitor",
    "FixedPointInverse",
    "HyperGradient",
    "LowerErrorMonitor",
    "Minibatches",
    "MirrorDescent",
    "MomentumPenalty",
    "NegativeCurvature",
    "NeumannInverse",
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
    "penalty_certificate",
    "custom_fixed_point",
    "custom_root",
    "cvxpy_layer",
    "differentiable",
    "lower_error_bound",
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

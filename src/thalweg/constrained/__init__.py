"""Minimise f(x) with c(x) = 0."""

from thalweg.constrained.augmented_lagrangian import AugmentedLagrangian
from thalweg.constrained.certificate import OptimalityCertificate, certify
from thalweg.constrained.collection import COLLECTION, Formulas, named_problem
from thalweg.constrained.control import PoissonControl
from thalweg.constrained.inexact_sqp import InexactSQP
from thalweg.constrained.logistic import constrained_logistic
from thalweg.constrained.newton_sqp import NewtonSQP
from thalweg.constrained.problem import EqualityConstrained, RankDeficient
from thalweg.constrained.recommended import METHODS
from thalweg.constrained.sketched_newton import SketchedNewton

__all__ = [
    "METHODS",
    "COLLECTION",
    "AugmentedLagrangian",
    "EqualityConstrained",
    "Formulas",
    "InexactSQP",
    "NewtonSQP",
    "OptimalityCertificate",
    "PoissonControl",
    "RankDeficient",
    "SketchedNewton",
    "certify",
    "constrained_logistic",
    "named_problem",
]

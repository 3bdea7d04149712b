"""Minimise f(x) with c(x) = 0."""

from thalweg.constrained.baselines import AugmentedLagrangian, InexactSQP, NewtonSQP
from thalweg.constrained.certificate import Certificate, certify
from thalweg.constrained.collection import COLLECTION, Formulas, named_problem
from thalweg.constrained.control import PoissonControl
from thalweg.constrained.logistic import constrained_logistic
from thalweg.constrained.problem import EqualityConstrained, RankDeficient
from thalweg.constrained.recommended import METHODS
from thalweg.constrained.sketched_newton import SketchedNewton

__all__ = [
    "METHODS",
    "COLLECTION",
    "AugmentedLagrangian",
    "Certificate",
    "EqualityConstrained",
    "Formulas",
    "InexactSQP",
    "NewtonSQP",
    "PoissonControl",
    "RankDeficient",
    "SketchedNewton",
    "certify",
    "constrained_logistic",
    "named_problem",
]

"""An expensive function, or only a table of its past values."""

from thalweg.blackbox.bayesian import BayesianOptimization
from thalweg.blackbox.choice import ACQUISITIONS
from thalweg.blackbox.evaluation import EvaluationFailed
from thalweg.blackbox.extensions import Environment, Fidelity
from thalweg.blackbox.parameters import Categorical, Integer, Parameter, Real
from thalweg.blackbox.problem import BlackBox
from thalweg.blackbox.recommended import METHODS
from thalweg.blackbox.samplers import OptunaSampling, SpaceFilling
from thalweg.blackbox.space import Space
from thalweg.blackbox.study import Study
from thalweg.blackbox.trial import Recommendation, Trial

__all__ = [
    "METHODS",
    "ACQUISITIONS",
    "BayesianOptimization",
    "BlackBox",
    "Categorical",
    "Environment",
    "EvaluationFailed",
    "Fidelity",
    "Integer",
    "OptunaSampling",
    "Parameter",
    "Real",
    "Recommendation",
    "Space",
    "SpaceFilling",
    "Study",
    "Trial",
]

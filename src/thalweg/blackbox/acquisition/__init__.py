"""The worth of evaluating a point next. All are for maximisation of standardised values in the unit cube."""

from thalweg.blackbox.acquisition.base import Acquisition
from thalweg.blackbox.acquisition.constrained import Constrained, log_feasibility
from thalweg.blackbox.acquisition.entropy import (
    EntropySearch,
    MaxValueEntropy,
    Optima,
    PredictiveEntropy,
    sample_optima,
)
from thalweg.blackbox.acquisition.failing import Survival, least_chance, survival
from thalweg.blackbox.acquisition.improvement import (
    EI,
    PI,
    UCB,
    LogEI,
    NoisyEI,
    PosteriorMean,
    log_improvement,
    noisy_ei,
    pending_ei,
)
from thalweg.blackbox.acquisition.knowledge_gradient import (
    ContinuousKG,
    KnowledgeGradient,
    OneShotKG,
    expected_maximum,
)
from thalweg.blackbox.acquisition.lookahead import TwoStepEI
from thalweg.blackbox.acquisition.parallel import QEI, Penalised, QLogEI, lipschitz_constant

__all__ = [
    "EI",
    "PI",
    "QEI",
    "UCB",
    "Acquisition",
    "Constrained",
    "ContinuousKG",
    "EntropySearch",
    "KnowledgeGradient",
    "LogEI",
    "MaxValueEntropy",
    "NoisyEI",
    "OneShotKG",
    "Optima",
    "Penalised",
    "PosteriorMean",
    "PredictiveEntropy",
    "QLogEI",
    "Survival",
    "TwoStepEI",
    "expected_maximum",
    "least_chance",
    "lipschitz_constant",
    "log_feasibility",
    "log_improvement",
    "noisy_ei",
    "pending_ei",
    "sample_optima",
    "survival",
]

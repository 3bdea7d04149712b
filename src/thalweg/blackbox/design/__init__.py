"""Sequences with scores in a table: better ones proposed without any further experiment."""

from thalweg.blackbox.design.adaptive import AdaptiveEta, AdaptiveGamma
from thalweg.blackbox.design.bidirectional import BidirectionalDesign, ProxyAscent
from thalweg.blackbox.design.checkpoint import PretrainedEncoder
from thalweg.blackbox.design.conservative import ConservativeAscent
from thalweg.blackbox.design.encoders import Encoder, InfiniteNetwork, KMers, LetterPairs, OneHot
from thalweg.blackbox.design.estimator import SequenceDesign, proposal_figures, sweep_figure, target_sweep
from thalweg.blackbox.design.masked import MaskedLetters
from thalweg.blackbox.design.problem import SequenceTable
from thalweg.blackbox.design.proposals import Proposals, Visited, collect_proposals
from thalweg.blackbox.design.searches import (
    BestRows,
    EvolvedLetters,
    ImprovementDesign,
    LetterPolicy,
    RandomMutation,
)
from thalweg.blackbox.design.space import SequenceSpace
from thalweg.blackbox.design.tasks import LetterLandscape, planted_landscape, six6, splice_sites

__all__ = [
    "AdaptiveEta",
    "AdaptiveGamma",
    "BestRows",
    "BidirectionalDesign",
    "ConservativeAscent",
    "Encoder",
    "EvolvedLetters",
    "ImprovementDesign",
    "InfiniteNetwork",
    "KMers",
    "LetterLandscape",
    "LetterPairs",
    "LetterPolicy",
    "MaskedLetters",
    "OneHot",
    "PretrainedEncoder",
    "Proposals",
    "ProxyAscent",
    "RandomMutation",
    "SequenceDesign",
    "SequenceSpace",
    "SequenceTable",
    "Visited",
    "collect_proposals",
    "planted_landscape",
    "proposal_figures",
    "six6",
    "splice_sites",
    "sweep_figure",
    "target_sweep",
]

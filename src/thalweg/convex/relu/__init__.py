"""Two-layer ReLU networks by convex optimization: global on small data, a certificate and polish for trained ones."""

from thalweg.convex.relu.estimators import ConvexReLUClassifier, ConvexReLURegressor
from thalweg.convex.relu.images import image_patches
from thalweg.convex.relu.network import TwoLayerNetwork
from thalweg.convex.relu.neurons import ReLUSCP, SampledNeurons, sample_neurons
from thalweg.convex.relu.patterns import (
    all_patterns,
    count_patterns,
    patterns_needed,
    patterns_of,
    sample_patterns,
)
from thalweg.convex.relu.polishing import NetworkCertificate, Polished, polish, refine_patterns
from thalweg.convex.relu.problem import ConvexReLU
from thalweg.convex.relu.robust import RobustADMM, RobustConvexReLU, pattern_margins
from thalweg.convex.relu.splitting import ReLUADMM, ReLULinearizedADMM, ReLURBCD

__all__ = [
    "NetworkCertificate",
    "ConvexReLU",
    "ConvexReLUClassifier",
    "ConvexReLURegressor",
    "Polished",
    "ReLUADMM",
    "ReLULinearizedADMM",
    "ReLURBCD",
    "ReLUSCP",
    "RobustADMM",
    "RobustConvexReLU",
    "SampledNeurons",
    "TwoLayerNetwork",
    "all_patterns",
    "count_patterns",
    "pattern_margins",
    "image_patches",
    "patterns_needed",
    "patterns_of",
    "polish",
    "refine_patterns",
    "sample_neurons",
    "sample_patterns",
]

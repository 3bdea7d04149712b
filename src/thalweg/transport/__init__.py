"""One distribution to carry to another: entropic optimal transport and Schrodinger bridges from samples."""

from thalweg.transport.bridge import Bridge
from thalweg.transport.estimator import LightBridge, eps_path
from thalweg.transport.light_bridge import LightSB
from thalweg.transport.pairs import (
    bw2,
    bw2_uvp,
    conditional_bw2_uvp,
    energy_distance,
    eot_pair,
    exact_bridge,
    sliced_w2,
)
from thalweg.transport.problem import EntropicTransport
from thalweg.transport.recommended import METHODS

__all__ = [
    "METHODS",
    "Bridge",
    "EntropicTransport",
    "LightBridge",
    "LightSB",
    "bw2",
    "bw2_uvp",
    "conditional_bw2_uvp",
    "energy_distance",
    "eot_pair",
    "eps_path",
    "exact_bridge",
    "sliced_w2",
]

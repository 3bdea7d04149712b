"""The methods of transport by name, and which of them suits a problem."""

from __future__ import annotations

from thalweg.core import Method, recommended
from thalweg.transport.bridge_matching import BridgeMatching
from thalweg.transport.full_batch import FullBatch
from thalweg.transport.light_bridge import LightSB
from thalweg.transport.problem import EntropicTransport

#: The area's methods, by the names that tables and the command use.
METHODS: dict[str, type[Method]] = {
    "light-sb": LightSB,
    "full-batch": FullBatch,
    "bridge-matching": BridgeMatching,
}


@recommended.register
def for_entropic_transport(problem: EntropicTransport) -> LightSB:
    """Mini-batches of 512; 600 steps up to 100 components, 1 000 above."""
    return LightSB(steps=600 if problem.n_components <= 100 else 1000)

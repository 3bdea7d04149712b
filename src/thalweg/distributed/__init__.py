"""Many workers, some of them slow."""

from thalweg.distributed import coding, federated, zeroth_order
from thalweg.distributed.recommended import METHODS

__all__ = ["METHODS", "coding", "federated", "zeroth_order"]

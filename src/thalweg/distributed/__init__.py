"""Many workers, some of them slow."""

from thalweg.distributed import coding, federated, zeroth_order

__all__ = ["coding", "federated", "zeroth_order"]

"""Many workers, some of them slow."""

from thalweg.distributed import coding, federated

__all__ = ["coding", "federated"]

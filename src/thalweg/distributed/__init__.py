"""Many workers, some of them slow."""

from thalweg.distributed import coding

__all__ = ["coding"]

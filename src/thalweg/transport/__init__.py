"""One distribution to carry to another: entropic optimal transport and Schrodinger bridges from samples."""

from thalweg.transport.bridge import Bridge

__all__ = ["Bridge"]

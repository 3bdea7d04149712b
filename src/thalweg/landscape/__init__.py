"""Why training works: questions about the loss and its minima, with answers that are measured."""

from thalweg.landscape import double_descent

__all__ = ["double_descent"]

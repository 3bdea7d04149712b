"""Disjoint sets as a forest, in Numba: a node's parent leads to the one that stands for its set."""

from __future__ import annotations

from numba import njit


@njit(cache=True)
def root(parent, node):
    """The node that stands for the set of ``node``; the way there is halved."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node

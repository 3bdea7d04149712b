"""Shared by all tests."""

from __future__ import annotations

import socket

import numpy as np
import pytest
from hypothesis import settings

# Compilation of Numba kernels can fall into any example; time is not what these tests are about.
settings.register_profile("thalweg", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("thalweg")


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""Numba's parallel loops leave other threads and torch alone."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from thalweg import Stop, solve
from thalweg.linear import SOR, LinearSystem
from thalweg.numerics import FivePointStencil
from thalweg.numerics.parallel import one_blas_thread

FIRST_LOOPS = """
import torch
from thalweg.training import GradientNormRecorder, Lion
torch.set_num_threads(1)
p = torch.nn.Parameter(torch.ones(10))
optimizer = Lion([p], lr=1e-3)
recorder = GradientNormRecorder(optimizer)
p.grad = torch.ones(10)
optimizer.step()
assert recorder.norms("l1").tolist() == [10.0]
print(torch.get_num_threads())
"""


def test_torchs_number_of_threads_is_left_as_it_was():
    """In a process of its own: only the first loop of a process changes it."""
    done = subprocess.run([sys.executable, "-c", FIRST_LOOPS], capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("1", "")


def test_eight_threads_sweep_large_systems_at_once():
    system = LinearSystem(FivePointStencil(320, 320).to_csr(), np.ones(102_400))

    def swept(omega):
        return solve(system, SOR(omega), stop=Stop(steps=12), progress=False).x

    omegas = np.linspace(1.0, 1.9, 8)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(swept, omegas))
    for omega, x in zip(omegas, together, strict=True):
        np.testing.assert_array_equal(x, swept(omega))


def test_the_librarys_threads_come_back_when_the_last_block_that_held_them_ends():
    def threads():
        return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}

    with threadpool_limits(2, user_api="blas"):
        before = threads()
        first, second = one_blas_thread(), one_blas_thread()
        first.__enter__()
        second.__enter__()
        assert threads() == {1}
        first.__exit__(None, None, None)  # not in the order in which they began
        assert threads() == {1}
        second.__exit__(None, None, None)
        assert threads() == before

"""Shared by all tests."""

from __future__ import annotations

import gc
import os
import re
import signal
import socket
from pathlib import Path

# On some processors MKL's last bits depend on where arrays lie in memory; tests of equal bits need them not to.
os.environ.setdefault("MKL_CBWR", "COMPATIBLE")
# Tests run side by side: threads of their own would only wait for one another, up to thirty times as long.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray lets its workers run behind everything else: beside busy tests they would hardly run.
os.environ.setdefault("RAY_worker_niceness", "0")

import numpy as np
import pytest
import torch
from hypothesis import settings

from running import COPIES
from thalweg.core.ray_engine import prepare_ray

# Ten thousand tests are not looked through again and again for garbage: neither while they are collected nor later.
gc.disable()

# Compilation of Numba kernels can fall into any example; time is not what these tests are about.
settings.register_profile("thalweg", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("thalweg")

# A run that a shell starts in the background ignores Ctrl-C, and so would the processes that tests start.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: Tests that start engines with processes of their own: first, and one after the other, or they starve each other.
#: Those on Flower end the Ray that others share, and come behind them.
ENGINES = re.compile(r"flower|postgres|sqlite|killed|(?<![a-z])rays?(?![a-z])", re.IGNORECASE)
#: Files of long tests that share nothing but kernels: last, when these are compiled, each where there is room.
SPREAD = {"test_studies.py", "test_examples.py"}


def pytest_collection_modifyitems(items):
    def order(item):
        engine = ENGINES.search(item.nodeid)
        return not engine, bool(engine) and "flower" in item.nodeid, item.path.name in SPREAD

    items.sort(key=order)


def pytest_collection_finish():
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests run in one process: its fixtures are made, and its kernels compiled, once."""
    from xdist.scheduler import LoadScopeScheduling

    class Grouped(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            return "engines" if ENGINES.search(nodeid) else nodeid if Path(file).name in SPREAD else file

    config.option.loadscopereorder = False
    return Grouped(config, log)


@pytest.fixture(autouse=True)
def torch_alike():
    """Each test sees the same numbers from torch's global stream and one thread, whatever ran before."""
    torch.default_generator.manual_seed(0)  # torch.manual_seed writes down who has called: milliseconds
    torch.set_num_threads(1)  # Numba's threads raise it, once a process


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def ray_module():
    prepare_ray()
    ray = pytest.importorskip("ray")
    yield ray
    ray.shutdown()


@pytest.fixture
def ray_engine(ray_module):
    """A Ray of this machine; the one that runs already, where there is one."""
    if not ray_module.is_initialized():
        ray_module.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    assert ray_module.nodes()[0]["NodeManagerAddress"] == "127.0.0.1"
    return ray_module


@pytest.fixture
def two_workers():
    """Run ``worker(rank, port, queue)`` in two processes; what they put into the queue, sorted."""

    def run(worker):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        queue = COPIES.Queue()
        workers = [COPIES.Process(target=worker, args=(rank, port, queue)) for rank in range(2)]
        for process in workers:
            process.start()
        found = sorted(queue.get(timeout=120) for _ in workers)
        for process in workers:
            process.join(timeout=60)
        return found

    return run

"""Workers of a killed process end, what stands in their queue included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from thalweg.core.processes import beside, end_with, is_alive

POOL = """
import os, sys, time
from joblib import Parallel, delayed
from thalweg.core.processes import beside

def work(folder, i):
    open(os.path.join(folder, f"{i}-{os.getpid()}"), "w").close()
    time.sleep(600)

if __name__ == "__main__":
    Parallel(n_jobs=2)(delayed(beside)(os.getpid(), work, sys.argv[1], i) for i in range(4))
"""


def test_work_is_done_with_its_arguments():
    assert beside(os.getpid(), divmod, 7, 2) == (3, 1)
    assert beside(os.getpid(), sorted, [2, 1], reverse=True) == [2, 1]


def test_a_process_is_alive_until_it_ends():
    assert is_alive(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert not is_alive(child.pid)


@pytest.mark.parametrize("which", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "ended"])
def test_workers_of_a_killed_pool_end_and_leave_their_queue(tmp_path, which):
    script, folder = tmp_path / "pool.py", tmp_path / "told"
    script.write_text(POOL)
    folder.mkdir()
    pool = subprocess.Popen([sys.executable, script, folder])
    until = time.monotonic() + 120
    while len(list(folder.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    workers = {int(path.name.partition("-")[2]) for path in folder.iterdir()}
    assert len(workers) == 2
    pool.send_signal(which)
    pool.wait()
    until = time.monotonic() + 60
    while any(map(is_alive, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_alive, workers))
    assert len(list(folder.iterdir())) == 2  # nobody took what stood in the queue


def test_a_stranger_is_no_parent():
    """A worker that asks after another process than its parent ends at once, as if that were gone."""
    code = "from thalweg.core.processes import end_with; end_with(1); print('still here')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    end_with(os.getpid())  # the process itself goes on

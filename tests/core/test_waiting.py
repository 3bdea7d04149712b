"""Steps that wait for something: a run's limits hold inside them."""

from __future__ import annotations

import math
import signal
import threading
import time
from dataclasses import dataclass

import pytest

from thalweg import Status, Stop, solve
from thalweg.core import Method, Problem, State
from thalweg.core.waiting import GivenUp, check_wait, run_ends


class Number(Problem):
    objective = "size"

    def metrics(self, x):
        return {"size": abs(x)}


@dataclass(frozen=True)
class Waits(Method[Number, State]):
    """Halves its number, and from step ``deaf`` on waits for what never comes."""

    deaf: int = 2
    inner: bool = False

    def init(self, problem, seed):
        return State(x=1.0, metrics={"size": 1.0})

    def step(self, problem, state):
        if self.inner and state.x < 0.5**self.deaf * 1.5:
            solve(Number(), Waits(deaf=0))
        while not self.inner and state.x < 0.5**self.deaf * 1.5:
            check_wait()
            time.sleep(0.01)
        return State(x=state.x / 2, metrics={"size": state.x / 2})


@pytest.mark.parametrize("inner", [False, True])
def test_a_time_limit_ends_a_wait_with_the_answer_so_far(inner):
    result = solve(Number(), Waits(inner=inner), stop=Stop(steps=50, seconds=0.2))
    assert result.status is Status.EXHAUSTED
    assert 0.25 >= result.x > 0 if inner else result.x == 0.25
    assert "seconds used" in result.message
    assert math.isfinite(result.seconds)


def test_ctrl_c_ends_a_wait_with_the_answer_so_far():
    timer = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
    timer.start()
    result = solve(Number(), Waits(), stop=Stop(steps=50))
    timer.join()
    assert (result.status, result.x) == (Status.INTERRUPTED, 0.25)


def test_outside_a_run_a_wait_is_not_given_up():
    check_wait()
    with pytest.raises(GivenUp), run_ends(lambda: True):
        check_wait()
    check_wait()

"""The search: a target is found, resumed runs have the same bits, caches change nothing, bad proxies are told."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from thalweg import Checkpoint, Stop, solve
from thalweg.core import CheckpointMismatch, InvalidParameter, InvalidProblem, UnreadableFile
from thalweg.discovery import (
    ADAMW,
    LION,
    SCHEDULE,
    DigitsMLP,
    DigitsSchedule,
    LossCache,
    Mutations,
    NetworkProxy,
    ProgramSearch,
    RandomPrograms,
    RegularizedEvolution,
    Rule,
    check,
    funnel,
    parse,
    search,
    write_optimizer,
)

TINY = DigitsMLP(steps=12, seeds=(0,), width=8)


def words(rule):
    """Fewer of three statements missing is better."""
    wanted = ("sign", "tanh", "interp")
    used = {s.function for s in rule.program.statements}
    return 1.0 + sum(name not in used for name in wanted)


class TestEvolution:
    @pytest.mark.parametrize("seed", [0, 1])
    def test_statements_that_a_fitness_counts_are_found(self, seed):
        start = parse("def train(w, g, m, v, lr):\n    update = g * lr\n    return update, m, v")
        method = RegularizedEvolution(population=20, tournament=4, join=False, early_stop=False)
        found = solve(
            ProgramSearch(words, start), method, stop=Stop(steps=600, below={"loss": 1.0}), seed=seed
        )
        assert found.converged

    def test_a_resumed_run_has_the_same_bits(self, tmp_path):
        task, method = ProgramSearch(TINY), RegularizedEvolution(population=12, children=4, restart_after=30)
        whole = solve(task, method, stop=Stop(steps=20), seed=3)
        solve(task, method, stop=Stop(steps=7), seed=3, callbacks=[Checkpoint(tmp_path / "run", every=7)])
        resumed = solve(task, method, stop=Stop(steps=20), seed=3, resume=tmp_path / "run")
        assert resumed.x == whole.x
        assert resumed.history.metrics == whole.history.metrics

    def test_workers_and_a_file_of_losses_change_nothing(self, tmp_path):
        task = ProgramSearch(TINY)
        plain, shared = (
            RegularizedEvolution(population=12, children=4, **options)
            for options in ({}, {"workers": 2, "cache": tmp_path / "losses.sqlite"})
        )
        first, second = (solve(task, method, stop=Stop(steps=10), seed=1) for method in (plain, shared))
        assert first.x == second.x
        assert first.history.metrics == second.history.metrics

    def test_a_second_search_runs_nothing_that_the_file_holds(self, tmp_path):
        task = ProgramSearch(TINY)
        method = RegularizedEvolution(population=12, children=4, join=False, cache=tmp_path / "losses.sqlite")
        first, second = (solve(task, method, stop=Stop(steps=10), seed=1) for _ in range(2))
        assert first.calls > 0
        assert second.calls == 0
        assert (second.x, second.metrics) == (first.x, first.metrics)
        assert len(LossCache(tmp_path / "losses.sqlite")) >= first.calls

    def test_the_answer_is_a_valid_program_with_the_loss_it_claims(self):
        task = ProgramSearch(TINY)
        found = solve(task, RegularizedEvolution(population=12), stop=Stop(steps=15))
        assert check(parse(found.x)) is None
        assert found.history["loss"][-1] == found.metrics["loss"]
        assert (np.diff(found.history["loss"]) <= 0).all()

    def test_shares_add_up(self):
        found = solve(ProgramSearch(TINY), RegularizedEvolution(population=12), stop=Stop(steps=15))
        last = found.history.metrics[-1]
        saved = 1.0 - last["evaluated"] / last["generated"]
        assert last["saved"] == pytest.approx(saved)

    def test_random_programs_are_a_method_like_any(self):
        found = solve(ProgramSearch(TINY), RandomPrograms(statements=4, children=4), stop=Stop(steps=3))
        assert found.metrics["loss"] <= ProgramSearch(TINY).metrics(ADAMW.source)["loss"]

    @pytest.mark.parametrize("early_stop", [True, False])
    def test_early_stop_cuts_runs_above_the_median(self, early_stop):
        task = ProgramSearch(TINY)
        method = RegularizedEvolution(population=30, tournament=1, join=False, early_stop=early_stop)
        state = method.init(task, 0)
        for _ in range(20):
            state = method.step(task, state)
        assert (state.counts["stopped"] > 5) == early_stop
        shorter = [len(v) for v in state.known.values() if len(v) < 3 and v[-1] < math.inf]
        assert bool(shorter) == early_stop

    def test_a_run_ends_at_the_first_loss_above_its_bound(self):
        task = ProgramSearch(TINY)
        assert [len(task.losses(ADAMW, b)) for b in ([0.0, 0.0], [math.inf, 0.0], [])] == [1, 2, 3]

    def test_programs_that_behave_alike_run_once(self):
        task = ProgramSearch(TINY)
        apart, joined = (
            solve(task, RegularizedEvolution(population=30, join=j, early_stop=False), stop=Stop(steps=25))
            for j in (False, True)
        )
        assert joined.calls < apart.calls

    def test_a_plateau_begins_again_from_the_best(self):
        task = ProgramSearch(TINY)
        method = RegularizedEvolution(population=10, children=5, restart_after=5)
        state = method.init(task, 0)
        while not state.counts["restarts"]:
            state = method.step(task, state)
        assert set(state.population) == {state.x}
        assert set(state.losses) == {state.best}

    def test_a_schedule_is_searched_by_the_same_engine(self):
        start = parse("def schedule(t):\n    factor = t * 0.0 + 1.0\n    return factor", SCHEDULE)
        found = search(
            DigitsSchedule(steps=15, seeds=(0,)), start=start, evaluations=30, population=10, tournament=3
        )
        assert found.program.signature is SCHEDULE
        assert found.result.metrics["loss"] <= found.task.metrics(start.source)["loss"]


class TestProxies:
    @pytest.mark.parametrize("task", ["cnn", "characters", "tabular"])
    def test_networks_learn_by_a_program(self, task):
        proxy = NetworkProxy(task, steps=12, width=8)
        losses = list(proxy(Rule(parse(ADAMW.source.replace("0.001", "0.01")))))
        assert len(losses) == 3
        assert losses == list(proxy(Rule(parse(ADAMW.source.replace("0.001", "0.01")))))
        assert losses[-1] < losses[0]

    def test_the_digits_gradient_is_that_of_differences(self):
        from thalweg.discovery.proxies import _digits, _Stacked

        X, y = _digits(False)
        weights = _Stacked(5, (0,))
        weights.flat += 0.01
        gradient = weights.gradient(X[None, :20], y[None, :20])
        for k in (3, 200, 322, 330, 379):
            weights.flat[k] += 1e-6
            above = weights.loss(X[:20], y[:20])
            weights.flat[k] -= 2e-6
            below = weights.loss(X[:20], y[:20])
            weights.flat[k] += 1e-6
            assert (above - below) / 2e-6 == pytest.approx(gradient[k], rel=1e-4, abs=1e-7)

    def test_joined_weights_give_what_single_tensors_give(self):
        plain = Rule(LION)

        class Apart(Rule):
            is_elementwise = False

        assert list(TINY(plain)) == list(TINY(Apart(LION)))

    def test_a_proxy_is_one_function(self):
        def quadratic(rule):
            w, m, v = np.array([3.0, -2.0]), np.zeros(2), np.zeros(2)
            for step in range(20):
                update, m, v = rule(w, w, m, v, 1.0 - step / 20)
                w = np.clip(w - update, -1e6, 1e6)
            return float(w @ w)

        found = search(quadratic, evaluations=40, population=10)
        assert found.result.metrics["loss"] < found.task.metrics(ADAMW.source)["loss"]

    def test_a_loss_may_be_a_tensor_of_one_number(self):
        assert ProgramSearch(lambda rule: torch.tensor(2.0)).losses(ADAMW) == [2.0]
        with pytest.raises(InvalidProblem, match="expected a number"):
            ProgramSearch(lambda rule: torch.ones(2)).losses(ADAMW)

    def test_a_proxy_that_is_not_deterministic_is_told(self):
        draw = np.random.default_rng(0)
        with pytest.raises(InvalidProblem, match="not deterministic"):
            search(lambda rule: draw.random(), evaluations=5)

    def test_a_proxy_that_gives_no_number_is_told(self):
        with pytest.raises(InvalidProblem, match="expected a number"):
            search(lambda rule: "good", evaluations=5)

    def test_nan_of_the_start_is_told(self):
        with pytest.raises(InvalidProblem, match="not finite"):
            search(lambda rule: math.nan, evaluations=5)

    def test_nan_and_overflow_of_a_candidate_are_the_worst(self):
        task = ProgramSearch(TINY)
        huge = parse("def train(w, g, m, v, lr):\n    update = exp(1000.0) * g\n    return update, m, v")
        assert task.losses(huge) == [math.inf]

    def test_a_candidate_that_takes_too_long_is_the_worst(self):
        def slow(rule):
            for _ in range(3):
                time.sleep(0.02 if len(rule.program) == len(LION) else 0.0)
                rule(*[np.ones(2)] * 4, 1.0)
            return 1.0

        task = ProgramSearch(slow, seconds=0.03)
        assert task.losses(ADAMW) == [1.0]
        assert task.losses(LION) == [math.inf]


class TestBadInput:
    def test_what_is_no_proxy_no_program_and_no_name_is_refused(self, tmp_path):
        with pytest.raises(InvalidParameter, match=r"an object such as DigitsMLP\(\)"):
            ProgramSearch(DigitsMLP)
        with pytest.raises(InvalidParameter, match=r"parse\(text\)"):
            ProgramSearch(TINY, "def train(w, g, m, v, lr): pass")
        with pytest.raises(InvalidProblem, match="from a text; got NoneType"):
            parse(None)
        with pytest.raises(InvalidParameter, match="a name that Python takes"):
            write_optimizer(ADAMW, tmp_path / "found.py", "class")

    def test_a_population_under_the_tournament_is_refused(self):
        with pytest.raises(InvalidParameter, match="1 <= tournament <= population"):
            RegularizedEvolution(population=3, tournament=4)

    def test_a_start_whose_update_ignores_the_gradient_is_refused(self):
        start = parse("def train(w, g, m, v, lr):\n    update = w * lr\n    return update, m, v")
        with pytest.raises(InvalidProblem, match="does not depend on 'g'"):
            ProgramSearch(TINY, start)

    def test_another_function_set_does_not_resume(self, tmp_path):
        path = tmp_path / "run"
        search(TINY, evaluations=5, population=10, checkpoint=path)
        with pytest.raises(CheckpointMismatch, match="another method"):
            search(TINY, evaluations=9, population=10, mutations=Mutations(functions=("sign",)), resume=path)

    def test_a_file_that_is_no_cache_is_refused(self, tmp_path):
        path = tmp_path / "losses.sqlite"
        path.write_text("this is no database, but it is long enough to look like something else " * 20)
        with pytest.raises(UnreadableFile, match="cannot be used as a cache"):
            search(TINY, evaluations=5, population=10, cache=path)


def test_a_funnel_keeps_who_beats_the_baseline_on_every_task():
    fast, slow = (parse(ADAMW.source.replace("0.001", r)) for r in ("0.01", "0.0001"))
    tasks = [ProgramSearch(DigitsMLP(steps=n, seeds=(0,), width=8)) for n in (12, 24)]
    found = funnel([slow, fast], tasks, ADAMW)
    assert found.programs == [fast]
    assert np.isnan(found.losses[0, 1])
    assert found.losses[1, 1] < found.baseline[1]


def test_the_archive_has_a_program_for_each_time_slice():
    method = RegularizedEvolution(population=10, children=5, per_slice=20)
    task = ProgramSearch(TINY)
    state = method.init(task, 0)
    for _ in range(12):
        state = method.step(task, state)
    assert [number for number, _, _ in state.archive] == [0, 20, 40, 60]


def test_dead_statements_are_not_run():
    seen = []

    def proxy(rule):
        seen.append(len(rule.program))
        return 1.0

    padded = parse(LION.source.replace("    return", "    x = exp(g)\n    y = norm(x)\n    return"))
    ProgramSearch(proxy).losses(padded)
    assert seen == [len(LION)]


def test_processes_of_a_search_stand_beside_those_of_joblib():
    """Both in turns: neither finds the other's pool in a state it does not know."""
    from joblib import Parallel, delayed

    task, options = ProgramSearch(DigitsMLP(steps=10, seeds=(0,))), {"population": 10}
    alone = solve(task, RegularizedEvolution(**options), stop=Stop(steps=3), seed=2)
    assert Parallel(n_jobs=2)(delayed(abs)(-k) for k in range(4)) == [0, 1, 2, 3]
    shared = solve(task, RegularizedEvolution(**options, workers=2), stop=Stop(steps=3), seed=2)
    assert Parallel(n_jobs=2)(delayed(abs)(-k) for k in range(4)) == [0, 1, 2, 3]
    assert (shared.x, shared.calls) == (alone.x, alone.calls)


@dataclass(frozen=True)
class AtHome:
    """A proxy that works in one process alone."""

    pid: int

    def __call__(self, rule):
        if os.getpid() != self.pid:
            raise RuntimeError("elsewhere")
        return float(np.sum(np.abs(rule(*[np.full(3, 0.1)] * 4, 1.0)[0])))


@dataclass(frozen=True)
class Fatal:
    """A proxy that ends any other process than its own."""

    pid: int

    def __call__(self, rule):
        if os.getpid() != self.pid:
            os._exit(1)
        return float(np.sum(np.abs(rule(*[np.full(3, 0.1)] * 4, 1.0)[0])))


def test_a_worker_that_ends_itself_is_told():
    task = ProgramSearch(Fatal(os.getpid()))
    with pytest.raises(InvalidProblem, match="worker's process ended"):
        solve(task, RegularizedEvolution(population=10, workers=2), stop=Stop(steps=10))


def test_an_error_in_another_process_is_told_and_the_next_search_runs():
    bad, good = ProgramSearch(AtHome(os.getpid())), ProgramSearch(DigitsMLP(steps=10, seeds=(0,)))
    with pytest.raises(RuntimeError, match="elsewhere"):
        solve(bad, RegularizedEvolution(population=10, workers=2), stop=Stop(steps=10))
    solve(good, RegularizedEvolution(population=10, workers=2), stop=Stop(steps=2))

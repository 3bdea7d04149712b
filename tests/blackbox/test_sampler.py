"""The Optuna sampler, in Optuna's own storages, with several workers."""

from __future__ import annotations

import glob
import itertools
import math
import os
import pickle
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import optuna
import pytest

from running import COPIES
from thalweg.blackbox.sampler import ThalwegSampler
from thalweg.core import InvalidProblem

optuna.logging.set_verbosity(optuna.logging.ERROR)


def work(url, seed, killed=None):
    """Five trials of the study at ``url``; killed in the midst of trial ``killed``."""

    def objective(trial):
        x = trial.suggest_float("x", -2, 2)
        if trial.number == killed:
            os.kill(os.getpid(), signal.SIGKILL)
        return (x - 0.7) ** 2 + trial.suggest_int("n", 0, 4)

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(study_name="s", storage=url, sampler=ThalwegSampler(seed=seed))
    study.optimize(objective, n_trials=5)


def worker(*arguments):
    process = COPIES.Process(target=work, args=arguments)
    process.start()
    return process


def ended(process):
    process.join(timeout=300)
    return process.exitcode


def bowl(trial):
    return (trial.suggest_float("x", -2, 2) - 0.7) ** 2


def test_it_finds_the_bottom_in_memory():
    study = optuna.create_study(sampler=ThalwegSampler(noise="none"))
    study.optimize(bowl, n_trials=15)
    assert study.best_value < 1e-2


def test_all_kinds_of_parameters_and_maximising():
    def f(trial):
        kind = trial.suggest_categorical("kind", ["a", "b", "c"])
        rate = trial.suggest_float("rate", 1e-4, 1.0, log=True)
        size = trial.suggest_int("size", 0, 100, step=10)
        grid = trial.suggest_float("grid", 0.0, 1.0, step=0.25)
        extra = trial.suggest_float("extra", 0, 1) if kind == "b" else 0.5  # conditional: sampled at random
        assert size % 10 == 0
        assert grid * 4 == round(grid * 4)
        return (
            (kind == "b") - abs(size - 70) / 100 - abs(grid - 0.5) - (rate - 0.1) ** 2 - abs(extra - 0.5) / 10
        )

    study = optuna.create_study(direction="maximize", sampler=ThalwegSampler(seed=1))
    study.optimize(f, n_trials=30)
    assert study.best_params["kind"] == "b"
    assert study.best_value > 0.7


def test_failed_pruned_and_running_trials_are_taken_in_stride():
    def f(trial):
        x = trial.suggest_float("x", -2, 2)
        if trial.number % 5 == 1:
            raise RuntimeError
        if trial.number % 5 == 2:
            raise optuna.TrialPruned
        return x**2

    study = optuna.create_study(sampler=ThalwegSampler())
    study.optimize(f, n_trials=20, catch=RuntimeError)
    asked = [study.ask({"x": optuna.distributions.FloatDistribution(-2, 2)}).params["x"] for _ in range(3)]
    assert len({round(x, 6) for x in asked}) == 3
    assert study.best_value < 0.05


@pytest.mark.parametrize("reports", [True, False])
def test_a_pruned_point_counts_as_visited(reports):
    def f(trial):
        x, y = trial.suggest_float("x", -1, 1), trial.suggest_float("y", -1, 1)
        if x + y > 0.8:
            if reports:
                trial.report(0.0, step=1)
            raise optuna.TrialPruned
        return -(x + y)

    study = optuna.create_study(sampler=ThalwegSampler(noise="none"))
    study.optimize(f, n_trials=18)
    points = [tuple(t.params.values()) for t in study.trials]
    assert min(math.dist(p, q) for p, q in itertools.combinations(points, 2)) > 1e-4
    assert study.best_value < -0.6
    pruned = sum(t.state == optuna.trial.TrialState.PRUNED for t in study.trials)
    assert 0 < pruned < 16


def test_a_point_pruned_for_being_there_twice_is_no_failure():
    def f(trial):
        x = trial.suggest_categorical("x", [0.0, 0.5, 1.0])
        if any(t.params == trial.params and t.state.is_finished() for t in trial.study.trials):
            raise optuna.TrialPruned
        return (x - 0.5) ** 2

    study = optuna.create_study(sampler=ThalwegSampler(noise="none", startup=2))
    study.optimize(f, n_trials=8)
    assert study.best_params == {"x": 0.5}
    assert {t.params["x"] for t in study.trials} == {0.0, 0.5, 1.0}


def test_choices_that_are_nan_or_none_are_choices():
    choices = [1, 2.5, math.nan, None]

    def f(trial):
        return float(trial.suggest_categorical("k", choices) is not None) + trial.suggest_float("x", 0, 1)

    study = optuna.create_study(sampler=ThalwegSampler(noise="none", startup=4))
    study.optimize(f, n_trials=10)
    assert study.best_trial.params["k"] is None
    assert study.best_value < 0.2


def test_values_of_any_size_and_infinite_ones_do_not_stop_it():
    study = optuna.create_study(sampler=ThalwegSampler(noise="none"))
    study.optimize(lambda t: 1e-200 * bowl(t) if t.suggest_float("x", -2, 2) > -1 else math.inf, n_trials=15)
    assert study.best_value < 1e-202


def test_eight_threads_share_one_sampler():
    study = optuna.create_study(sampler=ThalwegSampler(startup=3))
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        study.optimize(lambda t: bowl(t) + t.suggest_float("y", 0, 1), n_trials=20, n_jobs=8)
    finally:
        sys.setswitchinterval(before)
    assert all(t.state == optuna.trial.TrialState.COMPLETE for t in study.trials)
    assert len({tuple(t.params.values()) for t in study.trials}) >= 18  # two may ask in the same moment


def test_a_pickled_sampler_goes_on_alike():
    study = optuna.create_study(sampler=ThalwegSampler(noise="none"))
    study.optimize(bowl, n_trials=6)
    again = pickle.loads(pickle.dumps(study.sampler))
    asked = []
    for sampler in (study.sampler, again):
        study.sampler = sampler
        space = {"x": optuna.distributions.FloatDistribution(-2, 2)}
        asked.append(sampler.sample_relative(study, study.trials[-1], space))
    assert asked[0] == asked[1]


def test_constraints_are_kept():
    def f(trial):
        x = trial.suggest_float("x", -2, 2)
        trial.set_user_attr("c", 0.5 - x)
        return x**2

    study = optuna.create_study(
        sampler=ThalwegSampler(constraints_func=lambda t: [t.user_attrs["c"]], noise="none")
    )
    study.optimize(f, n_trials=20)
    feasible = [t.value for t in study.trials if t.user_attrs["c"] <= 0]
    assert min(feasible) == pytest.approx(0.25, abs=0.02)
    assert len(feasible) >= 6  # the bound is where the minimum is


def test_several_objectives_are_refused():
    study = optuna.create_study(directions=["minimize"] * 2, sampler=ThalwegSampler(startup=1))
    with pytest.raises(InvalidProblem, match="one objective"):
        study.optimize(lambda t: (t.suggest_float("x", 0, 1), 1.0), n_trials=3)


def four_workers(url):
    # what is compiled is compiled once, and not by each worker
    optuna.create_study(sampler=ThalwegSampler(startup=2)).optimize(bowl, n_trials=4)
    optuna.create_study(study_name="s", storage=url)
    assert [ended(process) for process in [worker(url, i) for i in range(4)]] == [0] * 4
    trials = optuna.load_study(study_name="s", storage=url).trials
    # none lost, none doubled
    assert [t.number for t in trials] == list(range(20))
    assert all(t.state == optuna.trial.TrialState.COMPLETE for t in trials)
    assert len({(t.params["x"], t.params["n"]) for t in trials}) >= 18  # two may ask in the same moment
    assert min(t.value for t in trials) < 0.5


def test_four_workers_share_a_sqlite_file(tmp_path):
    four_workers(f"sqlite:///{tmp_path / 'study.db'}")


def test_a_worker_killed_in_mid_trial_loses_that_trial_only(tmp_path):
    url = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(study_name="s", storage=url)
    assert ended(worker(url, 0, 3)) == -signal.SIGKILL
    assert ended(worker(url, 1)) == 0
    states = [t.state.name for t in optuna.load_study(study_name="s", storage=url).trials]
    assert states == ["COMPLETE"] * 3 + ["RUNNING"] + ["COMPLETE"] * 5


PROGRAMS = sorted(glob.glob("/usr/lib/postgresql/*/bin"))


@pytest.fixture
def postgres(tmp_path_factory):
    """A PostgreSQL server of our own on loopback, from Debian's package; ended by its own program."""
    if not PROGRAMS or shutil.which("runuser") is None or os.geteuid() != 0:
        pytest.skip(
            "no PostgreSQL of Debian's here, or not root; `apt-get install postgresql` lets this test run"
        )
    folder = tmp_path_factory.mktemp("postgres")
    user = pwd.getpwnam("postgres")
    os.chown(folder, user.pw_uid, user.pw_gid)
    for parent in folder.parents:  # pytest's folders are for their owner only
        if Path(tempfile.gettempdir()) in parent.parents:
            parent.chmod(0o755)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(program, *arguments):
        command = ["runuser", "-u", "postgres", "--", f"{PROGRAMS[-1]}/{program}", *arguments]
        subprocess.run(command, check=True, capture_output=True, timeout=120, cwd="/")

    run("initdb", "-D", f"{folder}/data", "-A", "trust", "-U", "thalweg")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    run("pg_ctl", "-D", f"{folder}/data", "-w", "-l", f"{folder}/log", "-o", options, "start")
    yield f"postgresql+psycopg2://thalweg@127.0.0.1:{port}/postgres"
    run("pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "stop")


def test_four_workers_share_a_postgresql_server(postgres):
    four_workers(postgres)

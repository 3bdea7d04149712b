"""Searches without a model reach what is known to be best, and leave alone what did not run."""

from __future__ import annotations

import math

import pytest
import torch

from thalweg.core import InvalidParameter, InvalidProblem, NotFinite
from thalweg.workflow import Bounds, Choices, ExecutionError, Module, bundle, node
from thalweg.workflow.optimizers import (
    BayesSearch,
    ChoiceBandit,
    CodeEdits,
    PatternSearch,
    TraceDescent,
    trace_gradient,
)
from thalweg.workflow.traffic import Crossing


def searched(search, program, runs):
    for _ in range(runs):
        output = program()
        search.zero_feedback()
        search.backward(output, float(output.data))
        search.step()
    return search


def rosenbrock(x, y):
    return (1 - x) ** 2 + 100 * (y - x**2) ** 2


@bundle()
def bell(x, *, width):
    return math.exp(-((x / width) ** 2))


class TestPatternSearch:
    @pytest.mark.parametrize("scale", [1.0, 1e6, 1e-6])
    def test_a_curved_valley_is_followed_in_200_runs(self, scale):
        x, y = node(-1.2, trainable=True), node(1.0, trainable=True)
        search = searched(PatternSearch([x, y]), lambda: rosenbrock(x, y) * scale, 200)
        assert search.best_score <= 1e-2 * scale

    def test_bounds_whole_numbers_and_ratios_are_kept(self):
        n = node(2, trainable=True, constraint=Bounds(0, 50, whole=True))
        rate = node(1.0, trainable=True, constraint=Bounds(1e-4, 1e2, log=True))
        search = searched(PatternSearch([n, rate]), lambda: (n - 31) ** 2 + (rate - 1e-4) ** 2, 120)
        search.restore()
        assert n.data == 31
        assert type(n.data) is int
        assert rate.data == pytest.approx(1e-4)
        assert search.done

    def test_maximising_is_minimising_the_negative(self):
        x, y = node(3.0, trainable=True), node(3.0, trainable=True)
        down = searched(PatternSearch([x]), lambda: (x - 1) ** 2, 30)
        up = searched(PatternSearch([y], "maximize"), lambda: -((y - 1) ** 2), 30)
        assert (up.best_score, up.best[y]) == (-down.best_score, down.best[x])

    def test_parameters_that_did_not_run_are_not_touched(self):
        used, unused = node(3.0, trainable=True), node(5.0, trainable=True)
        searched(PatternSearch([used, unused]), lambda: used * used, 30)
        assert unused.data == 5.0

    def test_a_branch_that_begins_to_run_is_searched_too(self):
        switch, inside = node(1.0, trainable=True), node(4.0, trainable=True)

        def program():
            return (inside - 1) ** 2 + (switch - 0.2) ** 2 if switch < 0.5 else switch + 10

        search = searched(PatternSearch([switch, inside]), program, 150)
        assert search.best_score < 1e-4

    def test_words_and_no_feedback_are_refused(self):
        x = node(1.0, trainable=True)
        search = PatternSearch([x])
        with pytest.raises(InvalidProblem, match="no feedback came"):
            search.step()
        search.backward(x + 1, "bad")
        with pytest.raises(InvalidParameter, match="needs a number"):
            search.step()
        with pytest.raises(InvalidParameter, match="moves numbers"):
            PatternSearch([node("a", trainable=True)])
        with pytest.raises(InvalidParameter, match="not trainable"):
            PatternSearch([node(1.0)])
        with pytest.raises(InvalidParameter, match="takes a list of nodes"):
            PatternSearch(x)
        with pytest.raises(InvalidParameter, match="needs a trainable node"):
            PatternSearch([])
        with pytest.raises(InvalidParameter, match="direction"):
            PatternSearch([x], "up")


class TestGradients:
    def test_derivatives_are_those_of_torch(self):
        values = [0.7, 1.9, -0.4]
        nodes = [node(v, trainable=True) for v in values]
        tensors = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in values]

        def program(a, b, c):
            return abs(-a * b) / (b**2 + 1) - 3 * a**b + (c - a) * (c - a) * c

        program(*tensors).backward()
        found = trace_gradient(program(*nodes))
        for n, t in zip(nodes, tensors):
            assert found[n] == pytest.approx(float(t.grad), rel=1e-12)

    def test_bundles_are_differenced(self):
        x, width = node(0.3, trainable=True), node(0.8, trainable=True)
        found = trace_gradient(bell(x, width=width))
        exact = math.exp(-((0.3 / 0.8) ** 2))
        assert found[x] == pytest.approx(-2 * 0.3 / 0.8**2 * exact, rel=1e-8)
        assert found[width] == pytest.approx(2 * 0.3**2 / 0.8**3 * exact, rel=1e-8)

    def test_the_steps_are_torchs(self):
        x, y = node(-1.2, trainable=True), node(1.0, trainable=True)
        tensors = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (-1.2, 1.0)]
        ours = TraceDescent([x, y], lambda t: torch.optim.Adam(t, lr=0.05))
        theirs = torch.optim.Adam(tensors, lr=0.05)
        for _ in range(100):
            ours.zero_feedback()
            ours.backward(rosenbrock(x, y))
            ours.step()
            theirs.zero_grad()
            rosenbrock(*tensors).backward()
            theirs.step()
        assert [x.data, y.data] == pytest.approx([float(t.detach()) for t in tensors], rel=1e-9)

    def test_what_is_no_number_or_has_no_slope_is_refused(self):
        x = node(0.0, trainable=True)
        with pytest.raises(InvalidProblem, match="holds list"):
            trace_gradient(node([x, 1])[0] + 1)
        with pytest.raises((InvalidProblem, ZeroDivisionError)):
            trace_gradient(x**0.5)


class TestChoices:
    def test_the_better_text_is_found(self):
        prompt = node("a", trainable=True, constraint=Choices(("a", "b", "c")))
        worth = {"a": 0.2, "b": 0.9, "c": 0.4}
        bandit = ChoiceBandit([prompt], "maximize")
        for _ in range(300):
            out = prompt + "?"
            bandit.zero_feedback()
            bandit.backward(out, worth[prompt.data])
            bandit.step()
        assert bandit.likely()[prompt] == "b"
        assert bandit.best[prompt] == "b"

    def test_scores_out_of_range_and_free_texts_are_refused(self):
        prompt = node("a", trainable=True, constraint=Choices(("a", "b")))
        bandit = ChoiceBandit([prompt])
        bandit.backward(prompt + "?", 3.0)
        with pytest.raises(InvalidParameter, match="outside scores"):
            bandit.step()
        with pytest.raises(InvalidParameter, match="needs constraint=Choices"):
            ChoiceBandit([node("a", trainable=True)])


class TestBayes:
    def test_a_light_is_set_as_well_as_by_a_grid(self):
        crossing = Crossing()
        first, second = (node(30.0, trainable=True, constraint=Bounds(3.0, 60.0, log=True)) for _ in range(2))

        @bundle()
        def wait(first, second):
            return sum(crossing.wait(first, second, seed) for seed in (0, 1)) / 2

        greens = [3.0 + 7.0 * i for i in range(9)]
        grid = min(wait(a, b).data for a in greens for b in greens)
        search = searched(BayesSearch([first, second], noise="none"), lambda: wait(first, second), 25)
        assert search.best_score < 1.1 * grid

    def test_studies_are_those_of_what_ran(self):
        kind = node("low", trainable=True, constraint=Choices(("low", "high")))
        low, high = (node(0.5, trainable=True, constraint=Bounds(0.0, 1.0)) for _ in range(2))

        def program():
            chosen = low if kind == "low" else high
            return (chosen - 0.25) ** 2 + kind.length() * 0.0

        search = searched(BayesSearch([kind, low, high], noise="none"), program, 14)
        assert search.best_score < 1e-2

    def test_free_numbers_are_refused(self):
        with pytest.raises(InvalidParameter, match="needs constraint=Bounds"):
            BayesSearch([node(1.0, trainable=True)])

    def test_a_score_that_is_none_is_refused(self):
        x = node(0.5, trainable=True, constraint=Bounds(0.0, 1.0))
        search = BayesSearch([x])
        with pytest.raises((InvalidParameter, NotFinite)):
            search.backward(x + 1, math.inf)


@bundle(trainable=True)
def steer(position, speed):
    """The force on a unit mass that should come to rest at zero."""
    return 0.0 * position


class TestCode:
    def test_a_controller_is_found_in_the_sandbox(self):
        text = steer.parameter.data

        def score():
            position, speed, total = node(1.0), node(0.0), 0.0
            for _ in range(12):
                force = steer(position, speed)
                speed = node(max(-9.0, min(9.0, speed.data + 0.3 * float(force.data))))
                position = node(max(-9.0, min(9.0, position.data + 0.3 * speed.data)))
                total += position.data**2 + 0.1 * speed.data**2
            return force, total

        try:
            search = CodeEdits([steer.parameter], seed=1)
            first = None
            for _ in range(120):
                search.zero_feedback()
                try:
                    output, total = score()
                except ExecutionError as error:
                    output, total = error.node, 1e6
                except (TypeError, ValueError, OverflowError):
                    continue
                first = total if first is None else first
                search.backward(output, total if math.isfinite(total) else 1e6)
                search.step()
            assert search.best_score < 0.6 * first
            assert steer.parameter.refusal(search.best[steer.parameter]) is None
        finally:
            steer.parameter.set(text)
            steer.parameter.zero_feedback()

    def test_only_code_is_edited(self):
        with pytest.raises(InvalidParameter, match="is no code"):
            CodeEdits([node("x", trainable=True)])


class TestCrossing:
    def test_no_vehicle_waits_less_than_nothing_and_all_wait_longer_in_a_jam(self):
        crossing = Crossing()
        assert 0 < crossing.wait(17.0, 7.0, 0) < crossing.wait(10.0, 30.0, 0)

    def test_a_random_arrival_at_an_empty_crossing_waits_its_share_of_red(self):
        """Red of length r in a cycle c: the mean wait is r^2 / (2 c), by integration."""
        quiet = Crossing(arrivals=(0.002, 0.002), duration=2e6)
        first, second, lost = 20.0, 10.0, 4.0
        cycle = first + second + 2 * lost
        wanted = ((cycle - first) ** 2 + (cycle - second) ** 2) / (4 * cycle)
        assert quiet.wait(first, second, 0) == pytest.approx(wanted, rel=0.05)

    def test_green_that_is_none_is_refused(self):
        with pytest.raises(InvalidParameter, match="green times"):
            Crossing().wait(0.0, 1.0, 0)
        with pytest.raises(InvalidParameter, match="below saturation"):
            Crossing(arrivals=(0.4, 0.3)).webster()


def test_a_modules_parameters_can_be_searched():
    class Line(Module):
        def __init__(self):
            self.a = node(0.0, trainable=True)

    line = Line()
    assert searched(PatternSearch(line.parameters()), lambda: (line.a - 2) ** 2, 60).best_score < 1e-6

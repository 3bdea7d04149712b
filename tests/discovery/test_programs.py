"""Programs: text and back, both interpreters against each other and against torch's optimizers, what is rejected."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.core import InvalidProblem, UnknownName
from thalweg.core.seeding import generator
from thalweg.discovery import (
    ADAMW,
    FUNCTIONS,
    LION,
    OPTIMIZER,
    PUBLISHED_RAW,
    SCHEDULE,
    Mutations,
    Program,
    Rule,
    Statement,
    behaviour,
    check,
    live,
    parse,
    structural_hash,
    without_dead,
)
from thalweg.training import Lion

HEAD, TAIL = "def train(w, g, m, v, lr):\n    ", "\n    return update, m, v"


def program(*lines):
    return parse(HEAD + "\n    ".join(lines) + TAIL)


def random_program(seed, statements=8):
    draw = generator(seed)
    return Mutations().grown(Program(OPTIMIZER, ()), statements, draw)


def inputs(seed=0, shape=(3, 4)):
    draw = np.random.default_rng(seed)
    return [*(draw.standard_normal(shape) for _ in range(4)), 0.7]


class TestText:
    @given(st.integers(0, 10**6))
    @settings(max_examples=60, deadline=None)
    def test_what_is_printed_is_read_back_as_it_was(self, seed):
        made = random_program(seed)
        assert parse(str(made)) == made

    def test_nested_calls_and_augmented_assignments_become_single_statements(self):
        found = program("update = sign(0.9 * m + 0.1 * g)", "update += 0.01 * w")
        assert len(found) == 6
        np.testing.assert_allclose(Rule(found)(1.0 * np.ones(2), *[np.ones(2)] * 3, 1.0)[0], 1.01)

    def test_names_that_are_taken_are_not_given_to_what_is_between(self):
        found = program("t0 = g * 2.0", "update = sqrt(g * 3.0) + t0")
        w = np.full(2, 3.0)
        np.testing.assert_allclose(Rule(found)(w, w, w, w, 1.0)[0], 9.0)

    @pytest.mark.parametrize(
        ("source", "message"),
        [
            ("import os", "one function"),
            (HEAD + "for i in g: pass" + TAIL, "only assigns"),
            (HEAD + "update = open(g)" + TAIL, "No function 'open'"),
            (HEAD + "update = g.real + g" + TAIL, "no function of the language"),
            (HEAD + "update = sqrt(g, g)" + TAIL, "sqrt takes 1 arguments; got 2"),
            (HEAD + "update = g * g\n    return m, v, update", "ends with return update, m, v"),
            (HEAD + "update = g" + TAIL, r"For its value itself write 1\.0 \* g"),
            (HEAD + f"update = {10**400} * g" + TAIL, "Line 2: a number is beyond floating point"),
            ("@twice\n" + HEAD + "update = g * g" + TAIL, "no decorators and no default values"),
            (HEAD.replace("lr", "lr=3") + "update = g * lr" + TAIL, "no decorators and no default values"),
            ("def train(a, b):\n    return a", "expected train"),
            ("def train(", "this is none"),
        ],
    )
    def test_anything_else_is_refused(self, source, message):
        with pytest.raises((InvalidProblem, UnknownName), match=message):
            parse(source)


class TestInterpreters:
    def test_there_are_forty_five_functions(self):
        assert len(FUNCTIONS) == 45

    @pytest.mark.parametrize("name", list(FUNCTIONS))
    def test_numpy_and_torch_agree_on_every_function_and_it_is_total(self, name):
        values = np.array([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0])
        others = np.array([0.0, -2.0, 1.0, 0.0, 3.0, -1e-12, 0.5])
        arguments = ["g", "w", "m"][: FUNCTIONS[name].arity]
        found = program(f"x = {name}({', '.join(arguments)})", "update = g + x")
        given_ = [others, values, np.full(7, 0.25), values, 1.0]
        ours = Rule(found)(*given_)[0]
        theirs = Rule(found)(*[torch.tensor(x, dtype=torch.float64) for x in given_])[0]
        assert not np.isnan(ours).any()
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12, atol=1e-12)

    @given(st.integers(0, 10**6))
    @settings(max_examples=60, deadline=None)
    def test_random_programs_agree_in_both_libraries(self, seed):
        made = random_program(seed)
        if check(made) is not None:
            return
        given_ = inputs(seed)
        ours = Rule(made)(*given_)
        theirs = Rule(made)(*[torch.tensor(x, dtype=torch.float64) for x in given_])
        for a, b in zip(ours, theirs, strict=True):
            if np.isfinite(a).all() and np.abs(a).max() < 1e6:  # large sines lose their digits
                np.testing.assert_allclose(a, b.numpy(), rtol=1e-6, atol=1e-6)

    def test_the_adamw_program_is_adamw_without_correction(self):
        draw = np.random.default_rng(1)
        w = draw.standard_normal(5)
        x, m, v = w.copy(), np.zeros(5), np.zeros(5)
        m2, v2 = np.zeros(5), np.zeros(5)
        rule = Rule(ADAMW)
        for _ in range(100):
            g = w + draw.standard_normal(5)
            update, m, v = rule(w, g, m, v, 1.0)
            w = w - update
            m2, v2 = 0.9 * m2 + 0.1 * g, 0.999 * v2 + 0.001 * g * g
            x = x - 0.001 * (m2 / np.sqrt(v2) + 0.01 * x)
            np.testing.assert_allclose(w, x, rtol=1e-6, atol=1e-9)
            x = w.copy()

    def test_the_lion_program_is_lion(self):
        start = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
        parameter = torch.nn.Parameter(start.clone())
        optimizer = Lion([parameter], lr=1e-4, betas=(0.9, 0.99), weight_decay=0.1)
        w, m, v, rule = start.numpy().copy(), np.zeros(3), np.zeros(3), Rule(LION)
        draw = np.random.default_rng(2)
        for _ in range(100):
            g = draw.standard_normal(3)
            parameter.grad = torch.tensor(g)
            optimizer.step()
            update, m, v = rule(w, g, m, v, 1.0)
            w = w - update
        np.testing.assert_allclose(w, parameter.detach().numpy(), rtol=0, atol=1e-6)


class TestAbstractExecution:
    @given(st.integers(0, 10**6))
    @settings(max_examples=200, deadline=None)
    def test_it_rejects_what_cannot_run_and_nothing_else(self, seed):
        made = random_program(seed, statements=6)
        rejection = check(made)
        try:
            found = Rule(made)(*inputs(seed))
            runs = all(np.shape(x) == (3, 4) for x in found)
        except (InvalidProblem, ValueError):
            runs = False
        assert runs == (rejection is None or rejection.cause == "useless")

    @pytest.mark.parametrize(
        ("lines", "cause", "words"),
        [
            (["update = x * g"], "undefined", "'x' is not defined"),
            (["x = g * g"], "undefined", "output 'update' is not defined"),
            (["update = norm(g)"], "kind", "'update' is a number; expected a tensor"),
            (["update = g * g", "m = mean(g)"], "kind", "'m' is a number"),
            (["x = norm(lr)", "update = g * x"], "kind", "norm needs tensors"),
            (["update = w * lr"], "useless", "does not depend on 'g'"),
        ],
    )
    def test_reasons_are_told(self, lines, cause, words):
        rejection = check(program(*lines))
        assert rejection.cause == cause
        assert words in rejection.words

    def test_a_gradient_that_comes_by_the_memory_counts(self):
        assert check(program("update = m * lr", "m = v * 1.0", "v = g * 1.0")) is None

    @given(st.integers(0, 10**6))
    @settings(max_examples=60, deadline=None)
    def test_without_dead_statements_updates_have_the_same_bits(self, seed):
        made = random_program(seed, statements=12)
        if check(made) is not None:
            return
        whole, alive = Rule(made), Rule(without_dead(made))
        w, g, *memory, lr = inputs(seed)
        first, second = memory, memory
        for _ in range(3):
            update, *first = whole(w, g, *first, lr)
            again, *second = alive(w, g, *second, lr)
            np.testing.assert_array_equal(update, again)

    def test_liveness_goes_through_the_memory(self):
        assert live(program("update = m * g", "v = v + g", "m = v * 1.0", "x = w * w")) == (
            True,
            True,
            True,
            False,
        )


class TestHashes:
    PLAIN = ("x = g * w", "y = maximum(g, m)", "m = interp(g, m, 0.9)", "update = x + y")

    @pytest.mark.parametrize(
        "lines",
        [
            ("a = g * w", "b = maximum(g, m)", "m = interp(g, m, 0.9)", "update = a + b"),
            ("y = maximum(g, m)", "x = g * w", "m = interp(g, m, 0.9)", "update = x + y"),
            ("x = w * g", "y = maximum(m, g)", "m = interp(g, m, 0.9)", "update = y + x"),
            (
                "x = g * w",
                "z = exp(x)",
                "y = maximum(g, m)",
                "m = interp(g, m, 0.9)",
                "v = z * z",
                "update = x + y",
            ),
            ("x = g * w", "y = maximum(g, v)", "v = interp(g, v, 0.9)", "update = x + y"),
        ],
    )
    def test_words_that_do_not_matter_leave_it(self, lines):
        assert structural_hash(program(*lines)) == structural_hash(program(*self.PLAIN))

    @pytest.mark.parametrize(
        "lines",
        [
            ("x = g * w", "y = maximum(g, m)", "m = interp(g, m, 0.8)", "update = x + y"),
            ("x = g * w", "y = minimum(g, m)", "m = interp(g, m, 0.9)", "update = x + y"),
            ("x = g * w", "y = maximum(g, m)", "m = interp(m, g, 0.9)", "update = x + y"),
            ("x = g * w", "y = maximum(g, m)", "m = interp(g, m, 0.9)", "update = x - y"),
        ],
    )
    def test_another_behaviour_has_another(self, lines):
        assert structural_hash(program(*lines)) != structural_hash(program(*self.PLAIN))
        assert behaviour(program(*lines)) != behaviour(program(*self.PLAIN))

    def test_programs_that_differ_in_words_behave_alike(self):
        assert behaviour(program("update = g * g")) == behaviour(program("update = square(g)"))
        assert structural_hash(program("update = g * g")) != structural_hash(program("update = square(g)"))

    def test_scale_counts_to_two_percent(self):
        one, near, far = (behaviour(program(f"update = g * {c}")) for c in (1.0, 1.0001, 1.1))
        assert one == near != far

    def test_what_is_not_finite_has_no_behaviour(self):
        assert behaviour(program("x = exp(1000.0)", "update = g * x")) is None


class TestMutations:
    def test_changes_come_as_often_as_they_are_set(self):
        draw, mutations = generator(0), Mutations(insert=2.0, delete=1.0, alter=1.0)
        sizes = [len(mutations.child(ADAMW, draw)) - len(ADAMW) for _ in range(4000)]
        shares = [sizes.count(d) / 4000 for d in (1, -1, 0)]
        np.testing.assert_allclose(shares, [0.5, 0.25, 0.25], atol=4 * math.sqrt(0.25 / 4000))

    def test_constants_are_drawn_anew_or_scaled_as_often(self):
        draw, mutations = generator(1), Mutations(insert=0.0, delete=0.0)
        parent = program("x = exp(1000.0)", "update = g * x")
        values = [mutations.child(parent, draw).statements[0].arguments[0] for _ in range(4000)]
        changed = [v for v in values if v != 1000.0]
        scaled = [v for v in changed if v > 10.0]
        assert len(scaled) / len(changed) == pytest.approx(0.5, abs=0.05)
        assert np.std(np.log2(np.array(scaled) / 1000.0)) == pytest.approx(1.0, abs=0.1)

    def test_functions_are_those_that_are_given(self):
        mutations = Mutations(functions=("sign", "interp"))
        made = mutations.grown(Program(OPTIMIZER, ()), 40, generator(3))
        assert {s.function for s in made.statements} == {"sign", "interp"}

    def test_unknown_functions_and_weights_are_refused(self):
        with pytest.raises(UnknownName, match="Did you mean 'sign'"):
            Mutations(functions=("sgn",))
        with pytest.raises(ValueError, match="weights insert, delete, alter >= 0"):
            Mutations(insert=-1.0)

    def test_redundant_statements_stay_in_the_genome(self):
        child = Mutations(insert=1, delete=0, alter=0).child(PUBLISHED_RAW, generator(0))
        assert len(child) == len(PUBLISHED_RAW) + 1
        assert "m = cosh(update)" in str(child)


def test_a_schedule_is_a_program_of_numbers():
    made = parse("def schedule(t):\n    factor = 1.0 - t\n    return factor", SCHEDULE)
    assert check(made) is None
    assert float(Rule(made)(0.25)[0]) == 0.75
    tensors = Program(SCHEDULE, (Statement("factor", "norm", ("t",)),))
    assert check(tensors).cause == "kind"

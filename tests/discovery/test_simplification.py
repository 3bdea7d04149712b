"""The simplifier against the published program, and the winner as an optimizer of torch, in memory and as a file."""

from __future__ import annotations

import doctest
import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg import compare
from thalweg.core import CheckpointMismatch, InvalidParameter, InvalidProblem
from thalweg.core.seeding import generator
from thalweg.discovery import (
    ADAMW,
    LION,
    OPTIMIZER,
    PUBLISHED_RAW,
    DigitsMLP,
    Mutations,
    Program,
    ProgramOptimizer,
    ProgramSearch,
    Rule,
    check,
    optimizer_class,
    parse,
    read_program,
    simplified,
    structural_hash,
    write_optimizer,
)
from thalweg.training import Lion, TrainingTask

#: What algebra makes of the published program without its clip and arcsin: b2 = 1.109 x 0.899.
EXACT_LION = parse(
    """def train(w, g, m, v, lr):
    mixed = interp(g, m, 0.899)
    update = sign(mixed)
    decay = w * 0.4602
    update = update + decay
    rate = lr * 0.0002
    update = update * rate
    m = interp(g, m, 0.996991)
    return update, m, v"""
)


def without_squashing():
    """The published program, its first two statements left out."""
    return Program(OPTIMIZER, PUBLISHED_RAW.statements[2:])


class TestSimplification:
    def test_the_published_program_has_twelve_statements(self):
        assert len(PUBLISHED_RAW) == 12

    def test_it_is_lion_exactly_but_for_clip_and_arcsin(self):
        found = simplified(without_squashing())
        assert found.is_exact
        assert structural_hash(found.program) == structural_hash(EXACT_LION)

    def test_clip_and_arcsin_fall_for_not_hurting_and_not_by_algebra(self):
        body = PUBLISHED_RAW.statements
        alike = [Program(OPTIMIZER, kept) for kept in (body, body[1:], body[:1] + body[2:], body[2:])]
        known = {structural_hash(simplified(program).program) for program in alike}

        def blind(program):  # a loss that does not mind the two, and minds all else
            return 0.0 if structural_hash(simplified(program).program) in known else 1.0

        found = simplified(PUBLISHED_RAW, blind)
        assert structural_hash(found.program) == structural_hash(EXACT_LION)
        assert not found.is_exact
        told = [str(c) for c in found.log if c.reason == "does not hurt"]
        assert len(told) == 2
        assert "clip" in "".join(told)
        assert "arcsin" in "".join(told)
        assert {c.reason for c in simplified(PUBLISHED_RAW).log} == {"dead", "algebra"}

    def test_the_raw_program_and_lion_take_the_same_steps(self):
        raw, lion = Rule(without_squashing()), Rule(EXACT_LION)
        draw = generator(0)
        w, first, second = draw.standard_normal(6), [np.zeros(6)] * 2, [np.zeros(6)] * 2
        for _ in range(50):
            g = draw.standard_normal(6)
            update, *first = raw(w, g, *first, 1.0)
            again, *second = lion(w, g, *second, 1.0)
            np.testing.assert_allclose(update, again, rtol=1e-6)  # divisors are moved by 1e-12
            w = w - update

    @given(st.integers(0, 10**6))
    def test_without_a_loss_updates_stay_what_they_are(self, seed):
        made = Mutations().grown(Program(OPTIMIZER, ()), 12, generator(seed))
        if check(made) is not None:
            return
        found = simplified(made)
        assert check(found.program) is None
        w, g, m, v = generator(seed, 1).standard_normal((4, 5))
        before, after = (Rule(p)(w, g, 0 * m, 0 * v, 0.5)[0] for p in (made, found.program))
        if np.isfinite(before).all() and np.abs(before).max() < 1e6:
            np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-6)

    def test_memories_that_need_each_other_keep_their_order(self):
        made = parse(
            "def train(w, g, m, v, lr):\n    a = m + g\n    b = v * m\n    update = g * b\n"
            "    m = v + a\n    v = a + b\n    return update, m, v"
        )
        raw, found = Rule(made), Rule(simplified(made).program)
        draw = generator(5)
        first = second = [np.ones(3), np.full(3, 2.0)]
        for _ in range(4):
            w, g = draw.standard_normal((2, 3))
            update, *first = raw(w, g, *first, 1.0)
            again, *second = found(w, g, *second, 1.0)
            np.testing.assert_allclose(again, update)

    def test_what_does_not_hurt_is_dropped_on_a_proxy(self):
        task = ProgramSearch(DigitsMLP(steps=20, seeds=(0,), width=8))
        padded = parse(
            ADAMW.source.replace("    root = sqrt(v)", "    v = maximum(v, -5.0)\n    root = sqrt(v)")
        )
        found = simplified(padded, lambda p: task.losses(p)[-1])
        assert len(found.program) < len(padded)
        assert task.losses(found.program)[-1] <= task.losses(padded)[-1] * (1 + 1e-9)


class TestOptimizer:
    def test_the_lion_program_trains_as_our_lion_does(self):
        torch.manual_seed(0)
        first = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        second = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        second.load_state_dict(first.state_dict())
        x, y = torch.randn(32, 4).double(), torch.randn(32, 1).double()
        optimizers = (
            optimizer_class(LION)(first.parameters()),
            Lion(second.parameters(), lr=1e-4, weight_decay=0.1),
        )
        for _ in range(100):
            for model, optimizer in zip((first, second), optimizers, strict=True):
                optimizer.zero_grad()
                (model(x) - y).square().mean().backward()
                optimizer.step()
        for a, b in zip(first.parameters(), second.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)

    def test_it_stands_beside_torchs_in_compare(self):
        data = torch.randn(64, 5), torch.randint(0, 3, (64,))
        task = TrainingTask(lambda: nn.Linear(5, 3), data, data, steps=10)
        found = compare(
            task, {"found": (optimizer_class(ADAMW), {}), "adamw": torch.optim.AdamW}, progress=False
        )
        assert [row["steps"] for row in found.rows] == [10, 10]
        assert all(np.isfinite(row["test_loss"]) for row in found.rows)

    def test_a_schedule_of_torch_scales_it(self):
        x = nn.Parameter(torch.ones(2))
        optimizer = optimizer_class(LION)([x])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
        x.grad = torch.ones(2)
        optimizer.step()
        schedule.step()
        assert x.tolist() == [1.0, 1.0]

    def test_its_state_goes_on_and_another_programs_is_refused(self):
        def steps(optimizer, x, n):
            for _ in range(n):
                optimizer.zero_grad()
                (x**4).sum().backward()
                optimizer.step()

        x, y = (nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
        whole, half = ProgramOptimizer([x]), ProgramOptimizer([y])
        steps(whole, x, 6)
        steps(half, y, 3)
        again = ProgramOptimizer([y])
        again.load_state_dict(half.state_dict())
        steps(again, y, 3)
        assert torch.equal(x, y)
        with pytest.raises(CheckpointMismatch, match="not of the program"):
            optimizer_class(LION)([y]).load_state_dict(half.state_dict())

    def test_numbers_among_the_parameters_are_stepped_too(self):
        x = nn.Parameter(torch.tensor(2.0))
        optimizer = ProgramOptimizer([x])
        (x * x).backward()
        optimizer.step()
        assert x.shape == ()
        assert x.item() < 2.0

    def test_a_closure_is_run(self):
        x = nn.Parameter(torch.ones(1))

        def closure():
            x.grad = torch.ones(1)
            return 3.5

        assert ProgramOptimizer([x]).step(closure) == 3.5

    def test_gradients_that_it_cannot_take_are_refused(self):
        table = nn.Embedding(4, 2, sparse=True)
        table(torch.tensor([1])).sum().backward()
        with pytest.raises(InvalidProblem, match="dense real gradients"):
            ProgramOptimizer(table.parameters()).step()
        z = nn.Parameter(torch.ones(2, dtype=torch.complex64))
        z.abs().sum().backward()
        with pytest.raises(InvalidProblem, match="view_as_real"):
            ProgramOptimizer([z]).step()

    def test_a_negative_rate_and_a_bad_name_are_refused(self):
        with pytest.raises(InvalidParameter, match="lr >= 0"):
            ProgramOptimizer([nn.Parameter(torch.ones(1))], lr=-1.0)
        with pytest.raises(InvalidParameter, match="a name that Python takes"):
            optimizer_class(LION, "not a name")


class TestModule:
    def test_it_is_written_with_a_test_that_passes(self, tmp_path):
        path = tmp_path / "found.py"
        write_optimizer(LION, path, "Found")
        spec = importlib.util.spec_from_file_location("found", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert module.Found.program == LION
        ran = doctest.testmod(module)
        assert ran.attempted >= 4
        assert ran.failed == 0

    def test_a_program_is_read_back_without_running_the_file(self, tmp_path):
        path = tmp_path / "found.py"
        write_optimizer(PUBLISHED_RAW, path)
        assert read_program(path) == PUBLISHED_RAW
        path.write_text(str(LION))
        assert read_program(path) == LION

    def test_another_ending_is_refused(self, tmp_path):
        with pytest.raises(InvalidParameter, match=r"expected \.py"):
            write_optimizer(LION, tmp_path / "found.txt")

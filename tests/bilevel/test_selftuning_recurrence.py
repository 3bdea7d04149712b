"""The loop over time of a self-tuned LSTM, and its adjoint by hand, against torch's LSTM, autograd and differences."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from thalweg.bilevel.selftuning import HyperParameter, HyperSpace, SelfTuner, recurrence, self_tuning
from thalweg.bilevel.selftuning.products import Factor, by_weight
from thalweg.bilevel.selftuning.recurrence import Responding, Tangent, by_steps, course
from thalweg.bilevel.selftuning.tuner import SelfTuningTask
from thalweg.core import InvalidProblem

SPACE = HyperSpace(HyperParameter("a", 0.2), HyperParameter("b", 0.4))
TIMES, BATCH, FEATURES, UNITS = 5, 3, 4, 2


def numbers(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def inputs(times=TIMES, batch=BATCH, features=FEATURES, units=UNITS, dtype=torch.float64):
    """X, h, c, shift, then matrix, response and scale for the input and for the state."""
    rows, shapes = 4 * units, [(times, batch, features), (batch, units), (batch, units), (batch, 4 * units)]
    for columns in (features, units):
        shapes += [(rows, columns), (rows, columns), (batch, rows)]
    return tuple(numbers(*shape, dtype=dtype, seed=k) for k, shape in enumerate(shapes))


def run(form, given, **options):
    return form(*given[:4], Responding(*given[4:7]), Responding(*given[7:]), **options)


def fast(*given):
    return run(recurrence.recurrence, given)


def slow(*given):
    return run(by_steps, given)


def gradients(form, given):
    out, last = form(*given)
    total = (out * numbers(*out.shape, dtype=out.dtype)).sum() + (
        last * numbers(*last.shape, dtype=out.dtype)
    ).sum()
    return torch.autograd.grad(total, [v for v in given if v is not None])


class TestRecurrence:
    def test_without_responses_it_is_torchs_lstm(self):
        layer = nn.LSTM(FEATURES, UNITS, batch_first=True).double()
        x, h, c = inputs()[:3]
        shift = (layer.bias_ih_l0 + layer.bias_hh_l0).expand(BATCH, -1)
        given = (x, h, c, shift, layer.weight_ih_l0, None, None, layer.weight_hh_l0, None, None)
        theirs, (_, cell) = layer(x.transpose(0, 1), (h[None], c[None]))
        for form in (fast, slow):
            out, last = form(*given)
            torch.testing.assert_close(out, theirs)
            torch.testing.assert_close(last, cell[0])

    def test_a_response_is_a_change_of_the_matrices(self):
        x, h, c, shift, wx, rx, sx, wh, rh, sh = inputs()
        out, last = fast(x, h, c, shift, wx, rx, sx, wh, rh, sh)
        for b in range(BATCH):
            moved = wx + sx[b][:, None] * rx, None, None, wh + sh[b][:, None] * rh, None, None
            alone = slow(x[:, b : b + 1], h[b : b + 1], c[b : b + 1], shift[b : b + 1], *moved)
            torch.testing.assert_close(out[b], alone[0][0])
            torch.testing.assert_close(last[b], alone[1][0])

    @pytest.mark.parametrize("without", [(), (5, 6), (8, 9), (3,), (3, 5, 6, 8, 9)])
    def test_first_and_second_derivatives_are_those_of_differences(self, without):
        given = [None if k in without else v for k, v in enumerate(inputs(3, 2, 2, 2))]
        variables = [v for v in given if v is not None]

        def form(*some):
            rest = iter(some)
            return fast(*(None if v is None else next(rest) for v in given))

        assert torch.autograd.gradcheck(form, variables)
        assert torch.autograd.gradgradcheck(form, variables)

    @pytest.mark.parametrize("rows", [1, 7, 10_000], ids=["a step", "some steps", "all steps"])
    @pytest.mark.parametrize("shape", [(5, 3, 4, 2), (1, 1, 3, 17), (9, 2, 16, 32), (3, 0, 4, 2)])
    def test_in_single_precision_it_is_autograds_to_rounding(self, shape, rows, monkeypatch):
        monkeypatch.setattr(recurrence, "ROWS", rows)
        single, double = inputs(*shape, dtype=torch.float32), inputs(*shape)
        for ours, exact in zip(fast(*single), slow(*double), strict=True):
            torch.testing.assert_close(ours.double(), exact, rtol=2e-4, atol=2e-5)
        for ours, exact in zip(gradients(fast, single), gradients(slow, double), strict=True):
            torch.testing.assert_close(ours.double(), exact, rtol=2e-3, atol=2e-4)

    def test_a_second_pass_backwards_gives_the_same(self):
        given = inputs(dtype=torch.float32)
        out = fast(*given)[0].square().sum()
        first = torch.autograd.grad(out, given, retain_graph=True)
        second = torch.autograd.grad(out, given)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))

    def test_its_answer_may_be_written_into(self):
        given = inputs()
        out = fast(*given)[0]
        doubled = torch.autograd.grad(out.mul_(2.0).sum(), given)
        for twice, once in zip(doubled, torch.autograd.grad(slow(*given)[0].sum(), given), strict=True):
            torch.testing.assert_close(twice, 2.0 * once)

    def test_forward_mode_and_transforms_go_through_it(self):
        given, moves = inputs(), tuple(v.detach() for v in inputs(dtype=torch.float64)[::-1])
        moves = tuple(numbers(*v.shape, seed=20).detach() for v in given)
        plain = tuple(v.detach() for v in given)
        _, (slope, _) = torch.func.jvp(fast, plain, moves)
        h = 1e-6
        ahead, back = (fast(*(v + s * h * m for v, m in zip(plain, moves, strict=True)))[0] for s in (1, -1))
        torch.testing.assert_close(slope, (ahead - back) / (2.0 * h), rtol=1e-6, atol=1e-6)
        each = torch.func.vmap(lambda shift: fast(*plain[:3], shift, *plain[4:])[0])(
            plain[3].expand(2, -1, -1)
        )
        torch.testing.assert_close(each[1], fast(*plain)[0])

    def test_mixed_precision_does(self):
        given = inputs(dtype=torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            out = fast(*given)[0]
        torch.testing.assert_close(out.float(), fast(*given)[0], rtol=0.1, atol=0.1)


class TestTangent:
    def test_derivatives_are_those_of_differences(self):
        x, h, c, shift, wx, _, _, wh, _, _ = (v.detach() for v in inputs(3, 2, 2, 2))
        found = course(x, h, c, shift, Responding(wx), Responding(wh))
        slopes = [found.slopes(t) for t in range(3)]
        given = numbers(3, 2, 8), numbers(2, 2), numbers(2, 2, seed=1)
        assert torch.autograd.gradcheck(lambda *v: Tangent.apply(*v, found, slopes), given)
        assert torch.autograd.gradgradcheck(lambda *v: Tangent.apply(*v, found, slopes), given)

    def test_it_is_the_course_to_first_order(self):
        x, h, c, shift, wx, _, _, wh, _, _ = (v.detach() for v in inputs())
        found = course(x, h, c, shift, Responding(wx), Responding(wh))
        slopes = [found.slopes(t) for t in range(TIMES)]
        shifts, dh, dc = (
            numbers(BATCH, 8).detach(),
            numbers(BATCH, 2).detach(),
            numbers(BATCH, 2, seed=3).detach(),
        )
        out, last = Tangent.apply(shifts.expand(TIMES, -1, -1), dh, dc, found, slopes)

        def at(s):
            given = x, h + s * dh, c + s * dc, shift + s * shifts
            return slow(*given, wx, None, None, wh, None, None)

        for ours, ahead, back in zip((out, last), at(1e-6), at(-1e-6), strict=True):
            torch.testing.assert_close(ours, (ahead - back) / 2e-6, rtol=1e-6, atol=1e-6)


class TestProducts:
    @pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 3), (64, 33, 48)])
    def test_they_are_torchs(self, shape):
        n, a, b = shape
        x, w, plus, out = (numbers(*s).detach().float() for s in ((n, a), (b, a), (n, b), (n, b)))
        for weight in (w, w.T.contiguous().T):
            torch.testing.assert_close(Factor(weight, x)(x), x @ w.T, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(Factor(weight, x)(x, plus), x @ w.T + plus, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(by_weight(out, x), out.T @ x, rtol=1e-5, atol=1e-5)


class Sequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.head = nn.LSTM(FEATURES, UNITS, 2, batch_first=True), nn.Linear(UNITS, 3)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def stirred(delta):
    torch.manual_seed(0)
    tuned = self_tuning(Sequence().double(), SPACE, delta=delta)
    with torch.no_grad():
        for p in tuned.responses:
            p.normal_(0.0, 0.3)
    return tuned


class TestNetwork:
    @pytest.mark.parametrize("delta", [False, True])
    def test_gradients_in_inputs_and_hyper_parameters_are_those_of_differences(self, delta):
        tuned = stirred(delta)
        x = numbers(BATCH, TIMES, FEATURES)
        u = (tuned.centre + 0.3 * torch.randn(BATCH, 2, dtype=torch.float64)).requires_grad_()
        assert torch.autograd.gradcheck(lambda u: tuned(x.detach(), at=u), (u,))
        assert torch.autograd.gradcheck(lambda x, u: tuned(x, at=u), (x, u))

    @pytest.mark.parametrize("delta", [False, True])
    def test_gradients_in_all_parameters_are_those_of_differences(self, delta):
        tuned = stirred(delta)
        x = numbers(BATCH, TIMES, FEATURES).detach()
        u = tuned.centre + 0.3 * torch.randn(BATCH, 2, dtype=torch.float64)
        trained = tuned.responses if delta else list(tuned.parameters())
        value = lambda: tuned(x, at=u).square().sum()  # noqa: E731
        slopes = torch.autograd.grad(value(), trained)
        for p, slope in zip(trained, slopes, strict=True):
            move = numbers(*p.shape, seed=5).detach()
            ends = []
            for s in (1e-6, -2e-6):
                with torch.no_grad():
                    p.add_(s * move)
                    ends.append(float(value()))
            with torch.no_grad():
                p.add_(1e-6 * move)
            assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(
                float((slope * move).sum()), rel=1e-5, abs=1e-7
            )

    def test_no_step_at_all_is_refused(self):
        tuned = stirred(False)
        with pytest.raises(InvalidProblem, match="one step at least"):
            tuned(torch.zeros(2, 0, FEATURES, dtype=torch.float64), at=SPACE.u0)

    @pytest.mark.parametrize("delta", [False, True])
    def test_a_validation_step_gives_weights_no_gradient_and_leaves_them_trainable(self, delta):
        data = torch.randn(8, TIMES, FEATURES), torch.randint(3, (8,))
        task = SelfTuningTask(Sequence, SPACE, data, data, data, batch_size=8)
        method = SelfTuner(delta=delta)
        state = method.init(task, 0)
        frozen = next(iter(state.x.parameters())).requires_grad_(False)
        wanted = [p.requires_grad for p in state.x.parameters()]
        before = state.hyper.u.detach().clone()
        with torch.no_grad():
            for p in state.x.responses:
                p.normal_(0.0, 0.3)
        method._validate(task, state, torch.Generator().manual_seed(0))
        assert [p.requires_grad for p in state.x.parameters()] == wanted
        assert not frozen.requires_grad
        assert all(p.grad is None for p in state.x.parameters())
        assert not torch.equal(state.hyper.u.detach(), before)

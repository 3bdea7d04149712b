"""The two losses, their gradients and the adaptive weights against formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.blackbox.design import (
    AdaptiveEta,
    AdaptiveGamma,
    KMers,
    LetterPairs,
    OneHot,
    SequenceSpace,
    SequenceTable,
)
from thalweg.blackbox.design.adaptive import moments_step
from thalweg.blackbox.design.bidirectional import crowded
from thalweg.blackbox.design.ensemble import Ensemble
from thalweg.blackbox.design.proxy import (
    RIDGE,
    BackwardForm,
    letters_of,
    proxy_of,
    ridge,
    soft_letters,
    told_weights,
)
from thalweg.core import InvalidParameter

TARGET = 10.0


@pytest.fixture
def table(rng):
    space = SequenceSpace("dna", 5)
    codes = np.unique(rng.integers(4, size=(60, 5)), axis=0)
    return SequenceTable(space, space.decode(codes), rng.standard_normal(len(codes)))


@pytest.fixture
def parts(rng):
    H = torch.from_numpy(rng.standard_normal((40, 7)))
    y = torch.from_numpy(rng.standard_normal(40))
    return H, (y - y.mean()) / y.std(unbiased=False), torch.from_numpy(rng.standard_normal((6, 7)))


class TestForward:
    @pytest.mark.parametrize("shape", [(40, 7), (7, 40)])
    def test_the_weights_give_the_kernel_formula(self, rng, shape):
        H, y, h = (torch.from_numpy(rng.standard_normal(s)) for s in (shape, shape[:1], (3, shape[1])))
        K = H @ H.T
        a = torch.linalg.solve(K + RIDGE * K.trace() / len(K) * torch.eye(len(K)), y)
        torch.testing.assert_close(h @ ridge(H, y), (h @ H.T) @ a, rtol=1e-7, atol=1e-7)

    def test_the_loss_and_its_slope(self, table):
        proxy = proxy_of(table, OneHot(), 0)
        h = proxy.encode(table.codes[:5]).requires_grad_()
        loss, gradient = proxy.forward_gradient(h.detach(), TARGET)
        wanted = (h @ proxy.w - TARGET) ** 2
        torch.testing.assert_close(loss, wanted.detach())
        torch.testing.assert_close(gradient, torch.autograd.grad(wanted.sum(), h)[0])

    def test_a_target_at_the_prediction_makes_the_loss_zero(self, table):
        proxy = proxy_of(table, OneHot(), 0)
        h = proxy.encode(table.codes)
        average = h.mean(0, keepdim=True)
        # standardised scores have mean zero, and so has a ridge with a constant feature
        assert float(proxy.forward_gradient(average, 0.0)[0]) < 1e-8


class TestBackward:
    @pytest.mark.parametrize("n", [40, 5])
    def test_the_gram_form_is_the_mean_over_the_table(self, rng, n):
        H, y, c = (torch.from_numpy(rng.standard_normal(s)) for s in ((n, 9), (n,), (4, 9)))
        wanted = ((H @ c.T - y[:, None]) ** 2).mean(0)
        torch.testing.assert_close(BackwardForm(H, y)(c), wanted)

    def test_one_design_tells_the_table_by_the_kernel_formula(self, parts):
        H, y, h = parts
        for design in h:
            own = design @ design
            wanted = ((H @ design) * TARGET / (own * (1 + RIDGE)) - y).square().mean()
            found = BackwardForm(H, y)(told_weights(design[None], TARGET))
            torch.testing.assert_close(found[0], wanted)

    def test_a_set_tells_the_table_by_the_kernel_formula(self, parts):
        H, y, h = parts
        group = h[:3]
        K = group @ group.T
        told = (H @ group.T) @ torch.linalg.solve(
            K + RIDGE * torch.diag(K.diagonal()), torch.full((3,), TARGET, dtype=torch.double)
        )
        found = BackwardForm(H, y)(told_weights(h, TARGET, together=3))
        assert found.shape == (2,)
        torch.testing.assert_close(found[0], (told - y).square().mean())

    def test_a_set_of_one_is_a_design(self, parts):
        h = parts[2]
        own = torch.cat([told_weights(one[None], TARGET) for one in h])
        torch.testing.assert_close(told_weights(h, TARGET), own)

    @given(scale=st.floats(1e-3, 1e3))
    @settings(max_examples=20)
    def test_the_unit_of_the_features_does_not_matter(self, scale):
        rng = np.random.default_rng(0)
        H, y, h = (torch.from_numpy(rng.standard_normal(s)) for s in ((20, 6), (20,), (3, 6)))
        torch.testing.assert_close((scale * h) @ ridge(scale * H, y), h @ ridge(H, y))
        found = BackwardForm(scale * H, y)(told_weights(scale * h, TARGET))
        torch.testing.assert_close(found, BackwardForm(H, y)(told_weights(h, TARGET)))

    @pytest.mark.parametrize("together", [1, 3])
    def test_slopes_in_the_logits_are_those_of_finite_differences(self, table, together):
        proxy = proxy_of(table, LetterPairs(), 0)
        theta = torch.randn(6, 5, 4, dtype=torch.double, generator=torch.Generator().manual_seed(0))

        def loss(logits):
            h = proxy.features(logits.softmax(-1))
            c = told_weights(h, TARGET, together)
            return proxy.gram(c).sum() + (h @ proxy.w - TARGET).square().sum()

        leaf = theta.clone().requires_grad_()
        h = proxy.features(leaf.softmax(-1))
        back = proxy.backward_gradient(h.detach(), TARGET, together)[1]
        # each design of a set carries its share of the set's loss
        toward = back + proxy.forward_gradient(h.detach(), TARGET)[1]
        found = torch.autograd.grad(h, leaf, toward)[0]
        direction = torch.randn(theta.shape, dtype=torch.double, generator=torch.Generator().manual_seed(1))
        ahead, behind = loss(theta + 1e-5 * direction), loss(theta - 1e-5 * direction)
        torch.testing.assert_close((found * direction).sum(), (ahead - behind) / 2e-5, rtol=1e-6, atol=1e-6)

    def test_crowding_has_the_slope_of_finite_differences_and_is_least_for_right_angles(self, parts):
        h = parts[2].clone()
        loss, slope = crowded(h, 3)
        step = 1e-6 * torch.randn(h.shape, dtype=torch.double, generator=torch.Generator().manual_seed(0))
        change = (crowded(h + step, 3)[0] - crowded(h - step, 3)[0]).sum() / 2
        torch.testing.assert_close((slope * step).sum(), change, rtol=1e-4, atol=1e-12)
        square = torch.eye(6, 7, dtype=torch.double)
        assert float(crowded(square, 3)[0].sum()) < float(loss.sum())


class TestLetters:
    def test_the_model_sees_hard_letters_and_the_gradient_is_the_softmaxs(self):
        theta = torch.randn(3, 5, 4, dtype=torch.double, requires_grad=True)
        shown = soft_letters(theta, theta.argmax(-1))
        hard = torch.nn.functional.one_hot(theta.argmax(-1), 4).double()
        torch.testing.assert_close(shown.detach(), hard, rtol=0, atol=1e-15)
        weights = torch.randn(3, 5, 4, dtype=torch.double)
        one = torch.autograd.grad((shown * weights).sum(), theta)[0]
        torch.testing.assert_close(one, torch.autograd.grad((theta.softmax(-1) * weights).sum(), theta)[0])

    def test_a_forbidden_letter_has_no_slope(self):
        theta = torch.tensor([[[0.0, -torch.inf, 1.0]]], requires_grad=True)
        shown = soft_letters(theta, theta.argmax(-1))
        slope = torch.autograd.grad((shown * torch.tensor([1.0, 5.0, 2.0])).sum(), theta)[0]
        assert bool(torch.isfinite(slope).all())
        assert float(slope[0, 0, 1]) == 0.0

    def test_no_more_letters_change_than_may_and_those_with_the_largest_lead(self):
        space = SequenceSpace("AC", 4, edits=2)
        parents = torch.zeros(1, 4, dtype=torch.long)
        theta = torch.zeros(1, 4, 2, dtype=torch.double)
        theta[0, :, 1] = torch.tensor([0.1, 3.0, -1.0, 2.0])
        assert letters_of(theta, space, parents).tolist() == [[0, 1, 0, 1]]
        free = SequenceSpace("AC", 4)
        assert letters_of(theta, free, parents).tolist() == [[1, 1, 0, 1]]


class TestAdaptive:
    def test_the_slope_of_gamma_is_that_of_finite_differences_of_one_step(self, rng):
        A, b, theta = (torch.from_numpy(rng.standard_normal(s)) for s in ((12, 12), 12, (1, 3, 4)))

        def score(t):  # a smooth function of the design
            return torch.sin(A @ t.flatten()).sum() + b @ t.flatten()

        forward, backward = (torch.from_numpy(rng.standard_normal((1, 3, 4))) for _ in range(2))
        eta, gamma = 1e-2, 0.3

        def moved(g):
            return theta - eta * (g * forward + (1 - g) * backward)

        after = moved(gamma).requires_grad_()
        slope = torch.autograd.grad(score(after), after)[0]
        found = AdaptiveGamma.hypergradient(eta, slope, forward, backward)
        step = 1e-5
        wanted = (score(moved(gamma + step)) - score(moved(gamma - step))) / (2 * step)
        torch.testing.assert_close(found[0], wanted, rtol=1e-7, atol=1e-9)

    def test_gamma_rises_where_the_score_does_and_stays_between_zero_and_one(self):
        zeros = torch.zeros(2)
        gamma, *moments = AdaptiveGamma().ascended(
            torch.tensor([0.5, 0.5]), torch.tensor([2.0, -0.1]), zeros, zeros, 1
        )
        torch.testing.assert_close(gamma, torch.tensor([0.6, 0.4]))
        for t in range(2, 20):
            gamma, *moments = AdaptiveGamma().ascended(gamma, torch.tensor([2.0, -0.1]), *moments, t)
        assert gamma.tolist() == [1.0, 0.0]

    def test_a_step_is_longer_where_the_score_rises_along_it(self):
        direction = torch.tensor([[[1.0, 0.0]], [[1.0, 0.0]], [[1.0, 0.0]]])
        # logits go by -eta d: a score that falls along d rises along the step
        score = torch.tensor([[[-5.0, 1.0]], [[5.0, 1.0]], [[-500.0, 0.0]]])
        torch.testing.assert_close(AdaptiveEta().length(score, direction), torch.tensor([0.15, 0.05, 0.5]))

    def test_directions_are_those_of_torchs_adam(self):
        theta = torch.nn.Parameter(torch.zeros(5, dtype=torch.double))
        adam = torch.optim.Adam([theta], lr=0.1)
        own, first, second = torch.zeros(5, dtype=torch.double), torch.zeros(5), torch.zeros(5)
        first, second = first.double(), second.double()
        for t in range(1, 8):
            theta.grad = torch.linspace(-1, 2, 5, dtype=torch.double) * t
            adam.step()
            direction, first, second = moments_step(theta.grad, first, second, t)
            own = own - 0.1 * direction
        torch.testing.assert_close(own, theta.detach())

    def test_bad_settings_are_refused(self):
        with pytest.raises(InvalidParameter, match="0 <= start <= 1"):
            AdaptiveGamma(start=1.5)
        with pytest.raises(InvalidParameter, match="step_size > 0"):
            AdaptiveGamma(step_size=0.0)
        with pytest.raises(InvalidParameter, match="0 < least <= centre <= most"):
            AdaptiveEta(least=0.2)
        with pytest.raises(InvalidParameter, match="rate >= 0"):
            AdaptiveEta(rate=-1.0)


class TestEnsemble:
    def test_members_differ_and_agree_on_what_the_table_shows(self, rng):
        H = torch.from_numpy(rng.standard_normal((600, 6)))
        y = H[:, 0] - 0.5 * H[:, 1]
        found = Ensemble(H, y / y.std(), 0)
        inside, outside = found(H[:100]), found(20 * H[:100])
        assert found.correlation > 0.95
        assert len({float(v) for v in inside[:, 0]}) == 5
        assert float(outside.std(0).mean()) > 5 * float(inside.std(0).mean())

    def test_the_unit_of_the_features_does_not_matter(self, rng):
        H, y = torch.from_numpy(rng.standard_normal((100, 6))), torch.from_numpy(rng.standard_normal(100))
        one, other = Ensemble(H, y, 3), Ensemble(64.0 * H, y, 3)
        torch.testing.assert_close(one(H[:9]), other(64.0 * H[:9]), rtol=1e-4, atol=1e-5)

    def test_a_constant_feature_says_nothing_elsewhere(self, rng):
        H = torch.from_numpy(np.c_[rng.standard_normal((100, 4)), np.ones(100)])
        found = Ensemble(H, torch.from_numpy(rng.standard_normal(100)), 0)
        far = H[:5].clone()
        far[:, 4] = 1e6
        torch.testing.assert_close(found(far), found(H[:5]))


def test_the_proxys_unit_is_the_tables(rng):
    space = SequenceSpace("dna", 5)
    codes = np.unique(rng.integers(4, size=(200, 5)), axis=0)
    scores = 1e6 + 3e5 * (codes == 2).sum(1)
    table = SequenceTable(space, space.decode(codes), scores)
    proxy = proxy_of(table, OneHot(), 0)
    np.testing.assert_allclose(proxy.predict(codes), scores, rtol=1e-4)
    mean, doubt = proxy.auxiliary(codes)
    assert np.corrcoef(mean, scores)[0, 1] > 0.95
    assert (doubt >= 0).all()
    assert proxy_of(table, OneHot(), 0) is proxy
    assert proxy_of(table, KMers(2), 0) is not proxy

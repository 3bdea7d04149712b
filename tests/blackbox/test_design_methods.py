"""Designs: the best sequence where it is known, batches and loops alike, masks kept, runs repeated and resumed."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from thalweg import Checkpoint, Stop, recommended, solve
from thalweg.blackbox import METHODS
from thalweg.blackbox.design import (
    AdaptiveEta,
    AdaptiveGamma,
    BestRows,
    BidirectionalDesign,
    ConservativeAscent,
    EvolvedLetters,
    ImprovementDesign,
    KMers,
    LetterPairs,
    LetterPolicy,
    MaskedLetters,
    OneHot,
    ProxyAscent,
    RandomMutation,
    SequenceSpace,
    SequenceTable,
    planted_landscape,
)
from thalweg.blackbox.design.proxy import proxy_of
from thalweg.core import InvalidParameter, InvalidProblem, Status

SHORT = MaskedLetters(channels=8, steps=20)
GRADIENTS = {
    "forward": BidirectionalDesign(mode="forward", encoder=OneHot()),
    "backward": BidirectionalDesign(mode="backward", encoder=OneHot()),
    "fixed": BidirectionalDesign(gamma=0.5, encoder=OneHot()),
    "adaptive": BidirectionalDesign(encoder=OneHot(), steps=30),
    "eta": BidirectionalDesign(encoder=OneHot(), step_size=AdaptiveEta(), steps=30),
    "ridge": ProxyAscent(encoder=OneHot()),
    "ensemble": ProxyAscent(encoder=OneHot(), on="ensemble", steps=30),
}
SEARCHES = {
    "policy": LetterPolicy(encoder=OneHot(), steps=5),
    "evolved": EvolvedLetters(encoder=OneHot(), steps=5),
    "improvement": ImprovementDesign(encoder=OneHot(), steps=1, q=2, rows=10),
    "conservative": ConservativeAscent(steps=5, training=10),
    "mutation": RandomMutation(changes=3),
    "rows": BestRows(),
}
EVERY = {
    **GRADIENTS,
    **SEARCHES,
    "joint": BidirectionalDesign(mode="joint", together=2, encoder=OneHot(), steps=20),
}


def drawn_table(seed=0, rows=150, n=6, space=None, length=6):
    rng = np.random.default_rng(seed)
    codes = np.unique(rng.integers(4, size=(rows, length)), axis=0)
    weights = rng.standard_normal((length, 4))
    space = SequenceSpace("dna", length) if space is None else space
    return SequenceTable(space, space.decode(codes), weights[np.arange(length), codes].sum(1), n)


@pytest.fixture(scope="module")
def complete():
    """All of 4^4 with letters and pairs, no noise: the proxy can know the truth."""
    rng = np.random.default_rng(3)
    codes = np.array(list(product(range(4), repeat=4)))
    single, double = rng.standard_normal((4, 4)), rng.standard_normal((4, 4, 4, 4))
    scores = single[np.arange(4), codes].sum(1)
    for i in range(4):
        for j in range(i):
            scores = scores + 0.5 * double[i, j, codes[:, i], codes[:, j]]
    space = SequenceSpace("dna", 4)
    return SequenceTable(space, space.decode(codes), scores, n=64)


class TestTruth:
    def test_pairs_tell_a_table_of_pairs_exactly(self, complete):
        predicted = proxy_of(complete, LetterPairs(), 0).predict(complete.codes)
        np.testing.assert_allclose(predicted, complete.values, atol=1e-4)

    @pytest.mark.parametrize("mode", ["forward", "bidirectional"])
    def test_the_best_of_all_is_among_the_designs(self, complete, mode):
        found = solve(complete, BidirectionalDesign(mode=mode, encoder=LetterPairs())).x
        assert (found == complete.codes[complete.values.argmax()]).all(1).any()

    def test_a_sum_over_letters_is_maximised_from_its_lower_half(self):
        rng = np.random.default_rng(0)
        every = np.array(list(product(range(4), repeat=5)))
        weights = rng.standard_normal((5, 4))
        scores = weights[np.arange(5), every].sum(1)
        low = scores < np.median(scores)
        space = SequenceSpace("dna", 5)
        table = SequenceTable(space, space.decode(every[low]), scores[low], n=8)
        found = solve(table, BidirectionalDesign(mode="forward", encoder=OneHot())).x
        np.testing.assert_array_equal(found, np.tile(weights.argmax(1), (8, 1)))

    def test_on_a_planted_landscape_designs_beat_every_row(self):
        truth = planted_landscape(4)
        table = truth.offline(600, 32, seed=4)
        found = truth(solve(table, BidirectionalDesign(gamma=0.7)).x)
        assert np.median(found) > 2 * table.values.max()


class TestBatches:
    @pytest.mark.parametrize("name", GRADIENTS)
    def test_a_design_does_not_depend_on_those_beside_it(self, name):
        table, method = drawn_table(n=5), GRADIENTS[name]
        whole = solve(table, method, seed=2).x
        for k in range(5):
            # the k-th best row alone: the starts of a table of n = 1 are its best row
            alone = table.asked(1)
            alone.made("starts", lambda k=k: table.starts()[k : k + 1])
            np.testing.assert_array_equal(solve(alone, method, seed=2).x[0], whole[k])

    @pytest.mark.parametrize("name", EVERY)
    def test_a_seed_repeats_and_a_run_can_be_resumed(self, name, tmp_path):
        method = EVERY[name]
        whole = solve(drawn_table(), method, seed=3)
        again = solve(drawn_table(), method, seed=3)
        np.testing.assert_array_equal(whole.x, again.x)
        if whole.steps > 3:
            solve(
                drawn_table(),
                method,
                seed=3,
                stop=Stop(steps=3),
                callbacks=[Checkpoint(tmp_path / "run", every=3)],
            )
            resumed = solve(drawn_table(), method, seed=3, resume=tmp_path / "run")
            np.testing.assert_array_equal(resumed.x, whole.x)

    @pytest.mark.parametrize("name", EVERY)
    def test_what_is_fixed_stays_and_few_letters_change(self, name):
        space = SequenceSpace("dna", mask="..G...", allowed={4: "AT"}, edits=2)
        table = drawn_table(space=space)
        found = solve(table, EVERY[name], seed=1).x
        assert space.holds(found).all()
        starts = table.starts()
        assert ((found[:, None] != starts[None]).sum(2).min(1) <= 2).all()
        if name in GRADIENTS:
            assert ((found != starts).sum(1) <= 2).all()

    @pytest.mark.parametrize("name", EVERY)
    def test_a_run_ends_by_itself_with_a_word(self, name):
        result = solve(drawn_table(), EVERY[name])
        assert result.status in (Status.CONVERGED, Status.STALLED)
        assert result.message
        assert result.x.shape == (6, 6)

    def test_the_unit_of_scores_does_not_matter(self):
        table = drawn_table()
        other = SequenceTable(table.space, table.space.decode(table.codes), 1e5 * table.values - 3e7, table.n)
        method = BidirectionalDesign(gamma=0.5, encoder=OneHot())
        np.testing.assert_array_equal(solve(table, method).x, solve(other, method).x)

    def test_protein_takes_fewer_steps(self):
        space = SequenceSpace("protein", 6)
        rng = np.random.default_rng(0)
        table = SequenceTable(space, space.decode(rng.integers(20, size=(50, 6))), rng.random(50), 4)
        result = solve(table, BidirectionalDesign(encoder=SHORT))
        assert result.steps == 25


class TestModes:
    def test_gamma_moves_where_it_is_adaptive_and_stays_where_it_is_not(self):
        table = drawn_table()
        adaptive = solve(table, BidirectionalDesign(encoder=OneHot(), steps=20)).history["gamma"]
        assert len(set(adaptive)) > 5
        assert ((adaptive >= 0) & (adaptive <= 1)).all()
        fixed = solve(table, BidirectionalDesign(encoder=OneHot(), gamma=0.3, steps=20)).history["gamma"]
        np.testing.assert_allclose(fixed, 0.3)

    def test_the_loss_falls(self):
        for mode in ("forward", "backward", "joint"):
            method = BidirectionalDesign(mode=mode, together=2, gamma=0.5, encoder=OneHot())
            loss = solve(drawn_table(), method).history["loss"]
            assert loss[-1] < loss[0] or (mode == "backward" and loss[-1] == loss[0])  # no letter helps there

    def test_diversity_draws_a_set_apart(self):
        # few starts, so that without it all designs end as one
        table = drawn_table(n=8)
        spread = []
        for weight in (0.0, 100.0):
            method = BidirectionalDesign(mode="joint", gamma=0.5, encoder=OneHot(), diversity=weight)
            found = solve(table, method).x
            spread.append((found[:, None] != found[None]).mean())
        assert spread[1] > spread[0]

    def test_sets_that_do_not_divide_the_proposals_are_refused(self):
        with pytest.raises(InvalidProblem, match="sets of 4 do not divide 6 proposals"):
            solve(drawn_table(), BidirectionalDesign(mode="joint"))

    def test_a_target_at_the_mean_moves_nothing_to_the_sky(self):
        table = drawn_table()
        high, low = (
            solve(table, BidirectionalDesign(mode="forward", encoder=OneHot(), target=t)).x
            for t in (10.0, -10.0)
        )
        proxy = proxy_of(table, OneHot(), 0)
        assert np.median(proxy.predict(low)) < table.values.mean() < np.median(proxy.predict(high))


class TestRivals:
    @pytest.mark.parametrize("name", ["policy", "evolved"])
    def test_searches_find_the_best_of_a_sum_over_letters(self, name):
        table = drawn_table(n=10, rows=400)
        method = {
            "policy": LetterPolicy(encoder=OneHot(), steps=60),
            "evolved": EvolvedLetters(encoder=OneHot(), steps=150),
        }[name]
        proxy = proxy_of(table, OneHot(), 0)
        every = np.array(list(product(range(4), repeat=6)))
        assert proxy.predict(solve(table, method).x).max() == pytest.approx(
            proxy.predict(every).max(), rel=1e-6
        )

    def test_evolution_of_long_sequences_keeps_a_diagonal(self):
        space = SequenceSpace("dna", 120)
        rng = np.random.default_rng(0)
        codes = rng.integers(4, size=(60, 120))
        table = SequenceTable(space, space.decode(codes), (codes == 1).sum(1).astype(float), 4)
        result = solve(table, EvolvedLetters(encoder=KMers(1), steps=60))
        assert (result.x == 1).sum(1).max() > (codes == 1).sum(1).max()

    def test_a_conservative_model_leads_less_than_a_free_one(self):
        table = drawn_table(rows=300)
        held = ConservativeAscent(steps=15, step_size=0.2, training=100, lead=0.1)
        free = ConservativeAscent(steps=15, step_size=0.2, training=100, lead=100.0)
        rise = []
        for method in (held, free):
            result = solve(table, method)
            rise.append(-result.history["loss"][-1])
        assert rise[0] < rise[1]

    def test_mutations_change_as_many_letters_as_asked(self):
        table = drawn_table()
        found = solve(table, RandomMutation(changes=3)).x
        assert ((found != table.starts()).sum(1) == 3).all()
        np.testing.assert_array_equal(solve(table, BestRows()).x, table.starts())

    def test_improvement_is_refused_for_long_sequences(self):
        space = SequenceSpace("dna", 70)
        codes = np.random.default_rng(0).integers(4, size=(9, 70))
        table = SequenceTable(space, space.decode(codes), np.arange(9.0), 2)
        with pytest.raises(InvalidProblem, match="at most 64 positions; got 70"):
            solve(table, ImprovementDesign(encoder=KMers(1)))


def test_the_default_is_bidirectional_design_and_every_method_has_a_name():
    assert recommended(drawn_table()) == BidirectionalDesign()
    named = {kind for kind in METHODS.values() if SequenceTable in kind.solves()}
    assert {type(method) for method in EVERY.values()} == named


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: BidirectionalDesign(mode="sideways"), "mode is one of forward, backward"),
        (lambda: BidirectionalDesign(gamma=1.2), "0 <= gamma <= 1, or AdaptiveGamma"),
        (lambda: BidirectionalDesign(gamma=True), "0 <= gamma <= 1"),
        (lambda: BidirectionalDesign(target=float("nan")), "finite target"),
        (lambda: BidirectionalDesign(together=1), "together >= 2"),
        (lambda: BidirectionalDesign(diversity=-1.0), "diversity >= 0"),
        (lambda: BidirectionalDesign(steps=0), "steps >= 1"),
        (lambda: BidirectionalDesign(step_size=0.0), "step_size > 0, or AdaptiveEta"),
        (lambda: BidirectionalDesign(encoder="masked"), "encoder is an Encoder"),
        (lambda: ProxyAscent(on="mean"), "ridge or ensemble"),
        (lambda: LetterPolicy(samples=1), "samples >= 2"),
        (lambda: LetterPolicy(step_size=-1.0), "step_size > 0"),
        (lambda: LetterPolicy(encoder=None), "encoder is an Encoder"),
        (lambda: EvolvedLetters(samples=2), "samples >= 4"),
        (lambda: EvolvedLetters(spread=0.0), "spread > 0"),
        (lambda: ImprovementDesign(q=0), "q >= 1"),
        (lambda: ConservativeAscent(training=0), "training >= 1"),
        (lambda: ConservativeAscent(lead=float("inf")), "lead > 0"),
        (lambda: RandomMutation(changes=0), "changes >= 1"),
    ],
)
def test_bad_settings_are_refused(make, words):
    with pytest.raises(InvalidParameter, match=words):
        make()


def test_gradients_do_not_leak_into_a_state():
    table = drawn_table()
    method = BidirectionalDesign(gamma=AdaptiveGamma(), encoder=OneHot())
    state = method.step(table, method.init(table, 0))
    tensors = [v for v in vars(state).values() if isinstance(v, torch.Tensor)]
    assert not any(t.requires_grad for t in tensors)


@pytest.mark.parametrize(
    "method",
    [
        BidirectionalDesign(encoder=OneHot(), gamma=0.5, step_size=1e308),
        BidirectionalDesign(encoder=OneHot(), gamma=0.5, target=1e200),
        EvolvedLetters(encoder=OneHot(), spread=1e308),
        ConservativeAscent(step_size=1e308, training=1),
    ],
    ids=lambda m: type(m).__name__,
)
def test_a_run_that_leaves_the_numbers_says_so(method):
    result = solve(drawn_table(), method)
    assert result.status is Status.DIVERGED
    assert "finite" in result.message

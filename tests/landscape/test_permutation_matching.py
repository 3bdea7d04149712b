"""Weight matching against brute force, exact recovery and identities."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from thalweg import Checkpoint, Stop, solve
from thalweg.core import InvalidProblem, NotFinite
from thalweg.landscape.permutation import PermutationSpec, Rebasin, WeightMatching, trace_permutations


def mlp(*widths, seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    layers = [m for i, j in itertools.pairwise(widths) for m in (nn.Linear(i, j), nn.ReLU())]
    return nn.Sequential(*layers[:-1]).to(dtype)


@pytest.mark.parametrize("hidden", [(32,), (32, 32), (32, 32, 32), (128, 128)])
def test_a_permuted_copy_is_recovered(hidden):
    recovered = 0
    for seed in range(20):
        net = mlp(16, *hidden, 5, seed=seed)
        for p in net.parameters():
            nn.init.normal_(p)
        spec = trace_permutations(net)
        result = solve(Rebasin(net, spec.apply(net.state_dict(), spec.random(seed)), spec), WeightMatching())
        recovered += result.metrics["distance"] == 0.0
    assert recovered >= (20 if len(hidden) == 1 else 19)


def test_one_hidden_layer_is_matched_as_by_brute_force():
    for seed in range(5):
        a, b = mlp(3, 4, 2, seed=seed), mlp(3, 4, 2, seed=100 + seed)
        problem = Rebasin(a, b, trace_permutations(a))
        best = max(problem.value({"0": np.array(p)}) for p in itertools.permutations(range(4)))
        assert solve(problem, WeightMatching()).metrics["objective"] == pytest.approx(best, rel=1e-6)


def test_two_hidden_layers_end_where_no_order_of_one_is_better():
    a, b = mlp(3, 4, 4, 2, seed=1, dtype=torch.float64), mlp(3, 4, 4, 2, seed=2, dtype=torch.float64)
    problem = Rebasin(a, b, trace_permutations(a))
    result = solve(problem, WeightMatching())
    assert result.converged
    for name in problem.spec:
        for p in itertools.permutations(range(4)):
            assert problem.value({**result.x, name: np.array(p)}) <= result.metrics["objective"] + 1e-12
    every = [np.array(p) for p in itertools.permutations(range(4))]
    best = max(problem.value({"0": p, "2": q}) for p in every for q in every)
    assert result.metrics["objective"] <= best + 1e-12


def test_heads_and_their_insides_are_matched_as_by_brute_force():
    shapes = {"q": (6, 4), "v": (6, 3)}
    base = {"heads": (2, None), "qk": (3, "heads"), "vo": (3, "heads")}
    from thalweg.landscape.permutation import Factor, Permutation

    def axes(inner):
        return ((Factor(2, "heads"), Factor(3, inner)),)

    spec = PermutationSpec(
        {n: Permutation(s, u) for n, (s, u) in base.items()},
        {"q": (axes("qk"), ((Factor(4),),)), "v": (axes("vo"), ((Factor(3),),))},
    )
    torch.manual_seed(0)
    a, b = ({n: torch.randn(*s, dtype=torch.float64) for n, s in shapes.items()} for _ in range(2))
    problem = Rebasin(a, b, spec)
    every = [np.array(p) for p in itertools.permutations(range(3))]
    best = -np.inf
    for heads in ([0, 1], [1, 0]):
        value = 0.0
        for name, inner in (("q", "qk"), ("v", "vo")):
            values = [
                problem_value(problem, name, heads, np.array([one, two]), inner)
                for one in every
                for two in every
            ]
            value += max(values)
        best = max(best, value)
    assert solve(problem, WeightMatching()).metrics["objective"] == pytest.approx(best)


def problem_value(problem, tensor, heads, rows, inner):
    orders = {**problem.spec.identity(), "heads": np.array(heads), inner: rows}
    return float((problem.first[tensor] * problem.spec.moved(tensor, problem.second[tensor], orders)).sum())


def test_the_objective_never_falls_and_fixes_the_distance():
    a, b = mlp(8, 24, 24, 24, 3, seed=1), mlp(8, 24, 24, 24, 3, seed=2)
    problem = Rebasin(a, b, trace_permutations(a))
    result = solve(problem, WeightMatching())
    values = result.history["objective"]
    assert (np.diff(values) >= 0).all()
    assert values[0] > problem.value(problem.spec.identity())
    assert result.metrics["distance"] ** 2 == pytest.approx(
        problem.norms - 2 * result.metrics["objective"], rel=1e-6
    )


class Stream(nn.Module):
    """Blocks whose one layer begins and ends on the residual stream."""

    def __init__(self):
        super().__init__()
        self.i, self.a, self.o = nn.Linear(4, 12), nn.Linear(12, 12), nn.Linear(12, 2)

    def forward(self, x):
        x = self.i(x)
        return self.o(x + self.a(torch.relu(x)))


def test_a_permutation_on_both_axes_only_rises():
    torch.manual_seed(3)
    a, b = Stream(), Stream()
    spec = trace_permutations(a, torch.randn(3, 4))
    assert spec.twice == {"a.weight"}
    result = solve(Rebasin(a, b, spec), WeightMatching())
    assert result.metrics["left"] < 1
    assert (np.diff(result.history["objective"]) >= 0).all()


def test_skipping_what_did_not_change_gives_the_same_optimum_with_fewer_assignments():
    a, b = mlp(8, 24, 24, 24, 3, seed=1), mlp(8, 24, 24, 24, 3, seed=2)
    problem = Rebasin(a, b, trace_permutations(a))
    fewer, all_ = (solve(problem, WeightMatching(skip_unchanged=s), seed=4) for s in (True, False))
    assert fewer.metrics["objective"] == all_.metrics["objective"]
    assert fewer.calls < all_.calls


def test_a_resumed_run_has_the_same_orders(tmp_path):
    a, b = mlp(8, 24, 24, 24, 3, seed=1), mlp(8, 24, 24, 24, 3, seed=2)
    problem = Rebasin(a, b, trace_permutations(a))
    whole = solve(problem, WeightMatching())
    solve(problem, WeightMatching(), stop=Stop(steps=1), callbacks=[Checkpoint(tmp_path / "run", every=1)])
    resumed = solve(problem, WeightMatching(), resume=tmp_path / "run")
    for name, order in whole.x.items():
        np.testing.assert_array_equal(resumed.x[name], order)


def test_dead_units_have_one_order():
    a, b = mlp(4, 8, 2, seed=1), mlp(4, 8, 2, seed=2)
    with torch.no_grad():
        for net in (a, b):
            net[0].weight[2:6], net[0].bias[2:6], net[2].weight[:, 2:6] = 0.0, 0.0, 0.0
    problem = Rebasin(a, b, trace_permutations(a))
    one, two = solve(problem, WeightMatching()), solve(problem, WeightMatching(), seed=7)
    np.testing.assert_array_equal(one.x["0"], two.x["0"])


def test_bad_networks_are_refused():
    a = mlp(4, 8, 2)
    spec = trace_permutations(a)
    with pytest.raises(InvalidProblem, match=r"network b: '0.weight' has shape \(9, 4\)"):
        Rebasin(a, mlp(4, 9, 2), spec)
    with pytest.raises(InvalidProblem, match=r"network b lacks '0.bias'"):
        Rebasin(a, {"0.weight": torch.zeros(8, 4)}, spec)
    bad = mlp(4, 8, 2)
    bad[0].bias.data[1] = torch.nan
    with pytest.raises(NotFinite, match=r"network b: '0.bias' holds NaN"):
        Rebasin(a, bad, spec)

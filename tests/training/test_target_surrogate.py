"""Target surrogates against closed forms: gradient descent, projections, mirror descent, majorisation."""

from __future__ import annotations

import copy
import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from thalweg.core import CheckpointMismatch, InvalidParameter, InvalidProblem, NotFinite, UnknownName
from thalweg.training import ArmijoSGD, TargetLoss, TargetSurrogate
from thalweg.training.surrogate import NotMonotone

DOUBLE = torch.float64


def data(rows: int = 30, inputs: int = 4, outputs: int = 1):
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(rows, inputs, dtype=DOUBLE, generator=generator)
    Y = torch.randn(rows, outputs, dtype=DOUBLE, generator=generator)
    return X, Y


def network(inputs: int = 4, outputs: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, outputs)).double()


def exact(params):
    """L-BFGS run until it has nothing left to do."""
    return torch.optim.LBFGS(
        params, max_iter=500, tolerance_grad=1e-14, tolerance_change=0.0, line_search_fn="strong_wolfe"
    )


def test_one_gradient_step_on_the_surrogate_is_one_of_gradient_descent() -> None:
    X, Y = data()
    ours, theirs = network(), network()
    optimizer = TargetSurrogate(
        ours.parameters(), 3.0, inner=lambda p: torch.optim.SGD(p, lr=0.1), inner_steps=1
    )
    plain = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for _ in range(5):
        loss = optimizer.step(lambda: ours(X), lambda z: functional.mse_loss(z, Y))
        plain.zero_grad()
        expected = functional.mse_loss(theirs(X), Y)
        expected.backward()
        plain.step()
        assert loss == pytest.approx(float(expected), rel=1e-12)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_exact_solution_for_a_linear_model_is_a_projected_gradient_step_on_targets() -> None:
    X, Y = data()
    w = nn.Parameter(torch.zeros(4, 1, dtype=DOUBLE))
    eta = 7.0
    optimizer = TargetSurrogate([w], eta, inner=exact, inner_steps=3)
    projection = X @ torch.linalg.pinv(X)
    z = X @ w.detach()
    for _ in range(4):
        optimizer.step(lambda: X @ w, lambda z: functional.mse_loss(z, Y))
        z = projection @ (z - eta * 2 * (z - Y) / len(Y))
        torch.testing.assert_close(X @ w.detach(), z, rtol=1e-8, atol=1e-8)


def test_rows_of_a_minibatch_alone_are_moved() -> None:
    z = nn.Parameter(torch.zeros(6, 1, dtype=DOUBLE))  # a table: every example has its own target
    Y = torch.arange(6.0, dtype=DOUBLE)[:, None]
    rows = torch.tensor([1, 4])
    optimizer = TargetSurrogate([z], "mse", inner=exact)
    optimizer.step(lambda: z[rows], lambda t: functional.mse_loss(t, Y[rows]))
    expected = torch.zeros_like(Y)
    expected[rows] = Y[rows]  # eta = 1/L lands on a quadratic's minimum
    torch.testing.assert_close(z.detach(), expected, rtol=1e-8, atol=1e-8)


def test_kl_geometry_on_a_table_is_exponentiated_gradient() -> None:
    logits = nn.Parameter(torch.randn(3, 5, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)))
    costs = torch.rand(3, 5, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
    p, eta = logits.detach().softmax(-1), 0.8
    optimizer = TargetSurrogate([logits], eta, inner=exact, inner_steps=5, geometry="kl")
    for _ in range(3):
        optimizer.step(lambda: logits, lambda p: (costs * p + 0.5 * p.square()).sum())
        p = p * torch.exp(-eta * (costs + p))
        p = p / p.sum(-1, keepdim=True)
        torch.testing.assert_close(logits.detach().softmax(-1), p, rtol=1e-6, atol=1e-7)


def test_metrics_of_the_target_space() -> None:
    Y = torch.tensor([[1.0, -2.0], [3.0, 0.5]], dtype=DOUBLE)

    def first_step(geometry: str, eta: float = 0.1) -> torch.Tensor:
        z = nn.Parameter(torch.zeros(2, 2, dtype=DOUBLE))
        optimizer = TargetSurrogate([z], eta, inner=exact, inner_steps=3, geometry=geometry)
        optimizer.step(lambda: z, lambda t: 0.5 * (t - Y).square().sum())
        return z.detach()

    g = -Y
    torch.testing.assert_close(
        first_step("diagonal"), -0.1 * g / g.square().mean(0).sqrt(), rtol=1e-5, atol=1e-6
    )
    newton = -0.1 * g @ torch.linalg.inv(g.T @ g / 2)
    torch.testing.assert_close(first_step("newton"), newton, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(first_step("adam"), -0.1 * g.sign(), rtol=1e-5, atol=1e-6)


LOSSES = {
    "mse": lambda z, y: functional.mse_loss(z, y),
    "logistic": lambda z, y: functional.binary_cross_entropy_with_logits(z, (y > 0).double()),
    "softmax": lambda z, y: functional.cross_entropy(z, y.argmax(-1)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_stated_step_is_one_over_the_curvature_and_twice_it_is_too_long(name: str) -> None:
    """The largest eigenvalue of the Hessian in z, over many z, stays below 1/eta, and comes close to it."""
    shape = torch.Size((6, 2))
    eta = TargetSurrogate([nn.Parameter(torch.zeros(1))], name)._step_of(shape)
    Y = torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    largest = 0.0
    for seed in range(20):
        z = 0.2 * seed * torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))
        hessian = torch.autograd.functional.hessian(lambda t: LOSSES[name](t, Y), z).reshape(12, 12)
        largest = max(largest, float(torch.linalg.eigvalsh(hessian)[-1]))
    assert 0.9 / eta < largest <= 1.0 / eta * (1 + 1e-12)


@given(st.sampled_from(sorted(LOSSES)), st.floats(0.05, 1.0), st.integers(1, 15), st.integers(0, 5))
def test_loss_never_rises_for_steps_up_to_one_over_the_curvature(
    name: str, share: float, inner: int, seed: int
) -> None:
    X, Y = data(outputs=3)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    eta = share * TargetSurrogate(model.parameters(), name)._step_of(Y.shape)
    optimizer = TargetSurrogate(model.parameters(), eta, inner_steps=inner, monotone=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotMonotone)
        losses = [optimizer.step(lambda: model(X), lambda z: LOSSES[name](z, Y)) for _ in range(6)]
    assert losses == sorted(losses, reverse=True)


def test_rise_is_told() -> None:
    X, Y = data()
    model = network()
    optimizer = TargetSurrogate(model.parameters(), 3000.0, inner_steps=50, monotone=True)

    def steps() -> None:
        for _ in range(10):
            optimizer.step(lambda: model(X), lambda z: functional.mse_loss(z, Y))

    with pytest.warns(NotMonotone, match=r"eta = 3e\+03"):
        steps()


def rises(
    unit: float, eta: float, steps: int, dtype: torch.dtype = DOUBLE, stirred: bool = False
) -> tuple[int, list[float]]:
    """Rises told of a loss in another unit, and the losses in the first one; no power of two rounds anything.

    Stirred outputs are rounded in another way at every other step.
    """
    X, _ = data()
    X = X.to(dtype)
    Y = X @ torch.tensor([[0.3], [-1.7], [0.9], [2.1]], dtype=dtype) + 0.7
    torch.manual_seed(0)
    model = nn.Linear(4, 1).to(dtype)
    optimizer = TargetSurrogate(
        model.parameters(),
        eta / unit,
        inner=lambda p: torch.optim.SGD(p, lr=0.3 / unit),
        inner_steps=50,
        monotone=True,
    )

    def forward() -> torch.Tensor:
        shift = 3.0 * (stirred and optimizer.calls % 2)
        return (model(X) + shift) - shift

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", NotMonotone)
        losses = [optimizer.step(forward, lambda z: unit * functional.mse_loss(z, Y)) for _ in range(steps)]
    return len(told), [loss / unit for loss in losses]


@pytest.mark.parametrize("unit", [2.0**-60, 2.0**60])
def test_rises_do_not_depend_on_the_unit_of_the_loss(unit: float) -> None:
    plain, losses = rises(1.0, 60.0, 12)
    assert plain == sum(b > a for a, b in itertools.pairwise(losses)) > 0
    assert rises(unit, 60.0, 12) == (plain, losses)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_rounding_of_an_exact_fit_is_no_rise(dtype: torch.dtype) -> None:
    told, losses = rises(1.0, 15.0, 60, dtype, stirred=True)
    assert any(b > a for a, b in itertools.pairwise(losses))
    assert told == 0


def test_value_and_gradient_of_the_surrogate_are_the_losss_where_it_is_made() -> None:
    X, Y = data()
    model = network()
    seen = {}

    class Spy(torch.optim.SGD):
        def step(self, closure=None):
            seen["value"] = float(closure().detach())
            seen["gradients"] = [p.grad.clone() for p in model.parameters()]

    optimizer = TargetSurrogate(model.parameters(), 1.0, inner=lambda p: Spy(p, lr=0.0), inner_steps=1)
    optimizer.step(lambda: model(X), lambda z: functional.mse_loss(z, Y))
    model.zero_grad()
    functional.mse_loss(model(X), Y).backward()
    assert seen["value"] == pytest.approx(0.0, abs=1e-14)  # less the constant l(z_t)
    for ours, p in zip(seen["gradients"], model.parameters(), strict=True):
        torch.testing.assert_close(ours, p.grad)


def test_more_updates_use_each_gradient_better() -> None:
    X, Y = data(rows=100)
    ends = []
    for m in (1, 10, 100):
        model = network()
        optimizer = TargetSurrogate(model.parameters(), "mse", inner_steps=m)
        for _ in range(20):
            optimizer.step(lambda model=model: model(X), lambda z: functional.mse_loss(z, Y))
        ends.append(float(functional.mse_loss(model(X), Y)))
        assert (optimizer.calls, optimizer.updates) == (20, 20 * m)
    assert ends[2] < ends[1] < ends[0]


def test_gradients_can_come_from_outside_torch() -> None:
    X, Y = data()
    model, twin = network(), network()
    y = Y.numpy()

    def simulator(z: torch.Tensor):
        gap = z.detach().numpy() - y
        return float(np.square(gap).mean()), 2 * gap / gap.size

    ours, theirs = (TargetSurrogate(m.parameters(), "mse") for m in (model, twin))
    for _ in range(3):
        ours.step(lambda: model(X), simulator)
        theirs.step(lambda: twin(X), lambda z: functional.mse_loss(z, Y))
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        ("constant", [4.0, 4.0, 4.0]),
        ("sqrt", [4.0, 4.0 / math.sqrt(2), 4.0 / math.sqrt(3)]),
        ("exponential", [4.0 * 0.1 ** (t / 10) for t in (1, 2, 3)]),
    ],
)
def test_decays_of_eta(decay: str, expected: list[float]) -> None:
    z = nn.Parameter(torch.zeros(1, 1, dtype=DOUBLE))
    optimizer = TargetSurrogate([z], 4.0, inner=exact, inner_steps=3, decay=decay, total_steps=10)
    places = [0.0]
    for _ in range(3):
        optimizer.step(lambda: z, lambda t: t.sum())  # a step of eta exactly
        places.append(float(z.detach()))
    np.testing.assert_allclose(-np.diff(places), expected, rtol=1e-8)


def test_line_search_in_the_targets_space_finds_a_good_step_from_a_bad_one() -> None:
    X, Y = data()
    model = network()
    optimizer = TargetSurrogate(model.parameters(), 1e6, linesearch=True, inner_steps=20, monotone=True)
    losses = [optimizer.step(lambda: model(X), lambda z: functional.mse_loss(z, Y)) for _ in range(15)]
    assert losses[-1] < losses[0]
    assert optimizer._eta <= 2 * 1.8 * len(Y) / 2  # about what Armijo's rule allows: (1 - c) 2/L
    assert optimizer.calls == 15
    assert optimizer.evaluations >= 15


def test_state_dict_goes_on_where_it_was() -> None:
    X, Y = data()
    model = network()
    options = {"geometry": "adam", "fresh": False, "inner": torch.optim.Adam}
    optimizer = TargetSurrogate(model.parameters(), 0.5, **options)

    def step(m, o):
        return o.step(lambda: m(X), lambda z: functional.mse_loss(z, Y))

    for _ in range(3):
        step(model, optimizer)
    twin = copy.deepcopy(model)
    again = TargetSurrogate(twin.parameters(), 0.5, **options)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert [step(model, optimizer) for _ in range(3)] == [step(twin, again) for _ in range(3)]
    assert again.calls == optimizer.calls == 6


def test_bad_input() -> None:
    X, Y = data()
    model = network()

    def mse(z):
        return functional.mse_loss(z, Y)

    make = lambda **options: TargetSurrogate(model.parameters(), **{"eta": 1.0, **options})  # noqa: E731
    for options, error, words in (
        ({"eta": 0.0}, InvalidParameter, "eta > 0"),
        ({"eta": "hinge"}, UnknownName, "hinge"),
        ({"inner_steps": 0}, InvalidParameter, "inner_steps"),
        ({"decay": "exponential"}, InvalidParameter, "total_steps"),
        ({"decay": "cosine"}, InvalidParameter, "decay"),
        ({"geometry": "riemann"}, UnknownName, "geometry"),
        ({"geometry": "kl", "linesearch": True}, InvalidParameter, "linesearch"),
    ):
        with pytest.raises(error, match=words):
            make(**options)
    with pytest.raises(InvalidProblem, match="detached"):
        make().step(lambda: model(X).detach(), mse)
    with pytest.raises(InvalidProblem, match="scalar tensor that depends on z"):
        make().step(lambda: model(X), lambda z: 1.0)
    with pytest.raises(InvalidProblem, match="expected that of z"):
        make().step(lambda: model(X), lambda z: (1.0, torch.zeros(2)))
    with pytest.raises(NotFinite, match="Step 1"):
        make().step(lambda: model(X), lambda z: z.sum() * math.inf)
    counted = TargetLoss(mse)
    with pytest.raises(InvalidProblem, match="called 3 times in a step"):
        make(inner_steps=2, inner=lambda p: torch.optim.SGD(p, lr=0.1)).step(
            lambda: (counted(model(X)), model(X))[1], counted
        )
    adam = make(geometry="adam")
    adam.step(lambda: model(X), mse)
    with pytest.raises(InvalidProblem, match="same rows each step"):
        adam.step(lambda: model(X[:3]), lambda z: z.square().mean())


# -- ArmijoSGD


def quadratic(optimizer, x, A):
    def closure():
        optimizer.zero_grad()
        loss = 0.5 * x @ A @ x
        loss.backward()
        return loss

    return closure


@given(st.floats(1e-3, 1e3), st.integers(0, 20))
def test_accepted_step_satisfies_armijo_and_the_one_before_does_not(lr: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    B = torch.randn(4, 4, dtype=DOUBLE, generator=generator)
    A = B @ B.T + 0.1 * torch.eye(4, dtype=DOUBLE)
    x = nn.Parameter(torch.randn(4, dtype=DOUBLE, generator=generator))
    optimizer = ArmijoSGD([x], lr=lr)
    start, g = x.detach().clone(), A @ x.detach()
    loss = float(optimizer.step(quadratic(optimizer, x, A)).detach())
    step = float(((start - x.detach()) @ g) / (g @ g))

    def enough(size: float) -> bool:
        y = start - size * g
        return float(0.5 * y @ A @ y) <= loss - 0.1 * size * float(g @ g) + 1e-12

    assert enough(step)
    assert step == pytest.approx(lr) or not enough(step / 0.9)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1.8 * step)


def test_values_alone_give_the_same_steps_with_fewer_gradients() -> None:
    A = torch.diag(torch.tensor([1.0, 10.0, 100.0], dtype=DOUBLE))
    places = []
    for alone in (False, True):
        x = nn.Parameter(torch.ones(3, dtype=DOUBLE))
        optimizer = ArmijoSGD([x], lr=1.0)
        for _ in range(20):
            value = (lambda x=x: 0.5 * x @ A @ x) if alone else None
            optimizer.step(quadratic(optimizer, x, A), value)
        places.append(x.detach())
    torch.testing.assert_close(*places)


def test_stationary_point_is_left_alone_and_trouble_is_named() -> None:
    x = nn.Parameter(torch.zeros(2, dtype=DOUBLE))
    optimizer = ArmijoSGD([x])
    optimizer.step(quadratic(optimizer, x, torch.eye(2, dtype=DOUBLE)))
    assert torch.equal(x.detach(), torch.zeros(2, dtype=DOUBLE))
    with pytest.raises(InvalidProblem, match="closure"):
        optimizer.step(None)
    with pytest.raises(NotFinite, match="loss is nan"):
        optimizer.step(lambda: torch.tensor(math.nan))
    for option in ({"lr": 0.0}, {"c": 1.0}, {"backtrack": 1.0}, {"expand": 0.5}, {"max_backtracks": 0}):
        with pytest.raises(InvalidParameter, match=next(iter(option))):
            ArmijoSGD([x], **option)


@pytest.mark.parametrize("alone", [True, False], ids=["ArmijoSGD", "surrogate"])
def test_all_trials_of_a_search_see_the_noise_of_their_gradient(alone):
    """Masks drawn anew would compare losses of two networks."""
    torch.manual_seed(0)
    weight, masks = torch.nn.Parameter(torch.ones(20)), []

    def forward():
        masks.append(torch.rand(20) > 0.5)
        return weight * masks[-1]

    def loss(z):
        return 1e3 * (z - 3).square().mean()

    if alone:
        optimizer = ArmijoSGD([weight], lr=1e3)

        def closure():
            optimizer.zero_grad()
            value = loss(forward())
            value.backward()
            return value

        for _ in range(3):
            seen = len(masks)
            optimizer.step(closure, lambda: loss(forward()))
            assert len(masks) > seen + 3
            assert all(torch.equal(m, masks[seen]) for m in masks[seen:])
        assert not torch.equal(masks[0], masks[-1])
    else:
        TargetSurrogate([weight], eta=1e-3, inner_steps=4).step(forward, loss)
        updates = len({tuple(m.tolist()) for m in masks})
        assert (updates, len(masks) > 8) == (4, True)


def test_groups_with_a_step_of_their_own_are_refused():
    a, b = (torch.nn.Parameter(torch.ones(2)) for _ in "ab")
    groups = [{"params": [a]}, {"params": [b], "lr": 0.1}]
    with pytest.raises(InvalidParameter, match=r"group 1 \(counted from 0\) has lr = 0.1"):
        TargetSurrogate(groups, eta="mse")
    with pytest.raises(InvalidParameter, match=r"group 1 \(counted from 0\) has lr = 0.1, the first 1.0"):
        ArmijoSGD(groups)
    with pytest.raises(InvalidParameter, match=r"has c = 0.2, the first 0.1"):
        ArmijoSGD([{"params": [a]}, {"params": [b], "c": 0.2}])
    optimizer = TargetSurrogate([{"params": [a]}, {"params": [b]}], eta=0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 0.5]


def test_states_of_other_optimizers_are_refused():
    p = torch.nn.Parameter(torch.ones(2))
    adam = torch.optim.Adam([p]).state_dict()
    for optimizer in (TargetSurrogate([p], eta="mse"), ArmijoSGD([p])):
        with pytest.raises(CheckpointMismatch, match="state of another optimizer"):
            optimizer.load_state_dict(adam)

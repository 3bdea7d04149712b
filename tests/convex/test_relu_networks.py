"""Two-layer ReLU networks as convex programs, against an interior-point method, dense algebra and theorems."""

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from thalweg import Checkpoint, Stop, solve
from thalweg.convex import (
    ConvexReLU,
    ReLUADMM,
    ReLULinearizedADMM,
    ReLURBCD,
    ReLUSCP,
    RobustADMM,
    RobustConvexReLU,
    SampledNeurons,
    all_patterns,
    image_patches,
    sample_neurons,
    sample_patterns,
)
from thalweg.convex.relu.losses import LOSSES
from thalweg.convex.relu.network import TwoLayerNetwork
from thalweg.core import InvalidParameter, InvalidProblem, NotFinite, UnknownName

TIGHT = Stop(below={"gap": 1e-5, "violation": 1e-5}, steps=2000)


def data(n=20, d=2, seed=0):
    rng = np.random.default_rng(seed)
    X = np.c_[rng.standard_normal((n, d)), np.ones(n)]
    return X, np.sin(2 * X[:, 0]) + X[:, 0] * X[:, 1]


def labels(y, loss):
    return {"squares": y, "softmax": (y > 0).astype(float)}.get(loss, np.where(y > 0, 1.0, -1.0))


def reference(problem):
    """The optimum by Clarabel."""
    X, D, Y = np.asarray(problem.X), problem.patterns, problem.targets
    k, n = Y.shape
    K = 1 if X.ndim == 2 else X.shape[1]
    rows = X.reshape(-1, X.shape[-1])
    weights = np.ones(n) if problem.weights is None else problem.weights
    blocks = {(s, i, c): cp.Variable(rows.shape[1]) for s in (1, -1) for i in range(len(D)) for c in range(k)}
    pool = np.kron(np.eye(n), np.ones((1, K)) / K)
    bias = cp.Variable(k) if problem.output_bias else np.zeros(k)
    outputs = [
        sum(s * (pool @ (D[i][:, None] * rows)) @ u for (s, i, c), u in blocks.items() if c == j) + bias[j]
        for j in range(k)
    ]
    if problem.loss == "softmax":
        F = cp.vstack(outputs)
        loss = sum(weights[j] * (cp.log_sum_exp(F[:, j]) - F[:, j] @ Y[:, j]) for j in range(n))
    else:
        each = {
            "squares": lambda f, y: 0.5 * cp.square(f - y),
            "logistic": lambda f, y: cp.logistic(-cp.multiply(y, f)),
            "hinge": lambda f, y: cp.pos(1 - cp.multiply(y, f)),
        }[problem.loss]
        loss = sum(weights @ each(f, y) for f, y in zip(outputs, Y, strict=True))
    cones = [np.where(D[i], 1.0, -1.0)[:, None] * rows @ u >= 0 for (_, i, _), u in blocks.items()]
    program = cp.Problem(cp.Minimize(loss + problem.beta * sum(cp.norm(u) for u in blocks.values())), cones)
    return program.solve(solver="CLARABEL")


class TestTheOptimumIsTheInteriorPointMethods:
    @pytest.mark.parametrize("output_bias", [False, True])
    @pytest.mark.parametrize("loss", ["squares", "logistic", "hinge", "softmax"])
    def test_for_each_loss(self, loss, output_bias):
        X, y = data()
        problem = ConvexReLU(X, labels(y, loss), sample_patterns(X, 8), 0.5, loss, output_bias)
        result = solve(problem, stop=Stop(below={"gap": 1e-4, "violation": 1e-5}, steps=2000))
        best = reference(problem)
        assert result.converged
        assert result.metrics["objective"] == pytest.approx(best, rel=3e-4)
        assert problem.lower_bound(result.x) <= best * (1 + 1e-6)

    @pytest.mark.parametrize("method", [ReLULinearizedADMM(rho=0.5), ReLURBCD()])
    @pytest.mark.parametrize("loss", ["squares", "logistic"])
    def test_for_each_method(self, method, loss):
        X, y = data(n=15)
        problem = ConvexReLU(X, labels(y, loss), sample_patterns(X, 5), 1.0, loss, output_bias=True)
        result = solve(problem, method, stop=Stop(below={"gap": 1e-3, "violation": 1e-3}, steps=1000))
        assert result.converged
        assert result.metrics["objective"] == pytest.approx(reference(problem), rel=2e-3)

    def test_with_weights_several_outputs_and_patches(self):
        rng = np.random.default_rng(3)
        images = rng.standard_normal((10, 3, 3))
        rows = image_patches(images, 2)
        Y = np.c_[rows.max(2).mean(1), images[:, 1, 1]]
        problem = ConvexReLU(
            rows, Y, sample_patterns(rows, 4), 0.3, output_bias=True, weights=rng.uniform(0.5, 2, 10)
        )
        result = solve(problem, stop=TIGHT)
        assert result.metrics["objective"] == pytest.approx(reference(problem), rel=1e-4)

    @pytest.mark.parametrize("exact", [True, False])
    @pytest.mark.parametrize("loss", ["hinge", "logistic", "squares"])
    def test_with_an_adversary(self, loss, exact):
        X, y = data(n=14)
        D = sample_patterns(X, 12, radius=0.02)
        problem = RobustConvexReLU(X, labels(y, loss), D, 0.3, 0.02, loss=loss, exact=exact)
        rule = Stop(below={"gap": 5e-4, "violation": 1e-5}, steps=1500)
        result = solve(problem, stop=rule)
        V, W = cp.Variable((len(problem.patterns), 3)), cp.Variable((len(problem.patterns), 3))
        G = problem.patterns.T.astype(float) @ (V - W)
        f, size = cp.sum(cp.multiply(X, G), axis=1), 0.02 * cp.sum(cp.abs(G[:, :2]), axis=1)
        target = labels(y, loss)
        value = {
            "squares": 0.5 * cp.sum_squares(cp.abs(f - target) + size),
            "logistic": cp.sum(cp.logistic(size - cp.multiply(target, f))),
            "hinge": cp.sum(cp.pos(1 - cp.multiply(target, f) + size)),
        }[loss]
        cones = [
            np.where(p, 1.0, -1.0)[:, None] * X @ U[i] >= (0.02 * cp.norm1(U[i, :2]) if exact else 0)
            for i, p in enumerate(problem.patterns)
            for U in (V, W)
        ]
        norms = cp.sum(cp.norm(V, axis=1)) + cp.sum(cp.norm(W, axis=1))
        best = cp.Problem(cp.Minimize(value + 0.3 * norms), cones).solve(solver="CLARABEL")
        assert result.metrics["objective"] == pytest.approx(best, rel=1e-3)
        assert result.history.metrics[-1]["gap"] <= 5e-4


class TestTheNetwork:
    def test_is_balanced_and_has_the_programs_outputs_and_objective(self):
        X, y = data()
        problem = ConvexReLU(X, y, sample_patterns(X, 20), 0.2)
        result = solve(problem, stop=TIGHT)
        network = problem.network(result.x)
        np.testing.assert_allclose(np.linalg.norm(network.hidden, axis=1), np.abs(network.output).max(1))
        blocks = problem.answer(result.x).blocks[:, :, 0]
        convex = sum(D * (X @ (v - w)) for D, v, w in zip(problem.patterns, *blocks, strict=True))
        np.testing.assert_allclose(network.outputs(X)[:, 0], convex, atol=1e-3)
        assert problem.objective_of(network) == pytest.approx(result.metrics["objective"], rel=1e-12)

    def test_with_all_patterns_no_descent_from_anywhere_gets_below_the_bound(self):
        X, y = data(n=9)
        problem = ConvexReLU(X, y, all_patterns(X), 0.1)
        result = solve(problem, stop=Stop(below={"gap": 1e-3}, steps=500))
        lower = problem.lower_bound(result.x)
        assert result.converged

        def objective(p, m=8):
            W, a = p[: 3 * m].reshape(m, 3), p[3 * m :]
            H = np.maximum(X @ W.T, 0)
            r = H @ a - y
            g = (r[:, None] * (H > 0) * a).T @ X + 0.1 * W
            return 0.5 * r @ r + 0.05 * p @ p, np.r_[g.ravel(), H.T @ r + 0.1 * a]

        for seed in range(20):
            found = minimize(objective, np.random.default_rng(seed).standard_normal(32), jac=True).fun
            assert found >= lower

    def test_a_module_has_its_outputs(self):
        import torch

        X, y = data()
        problem = ConvexReLU(X, y, sample_patterns(X, 10), 0.2, output_bias=True)
        network = problem.network(solve(problem).x)
        module = network.to_module(hidden_bias=True)
        np.testing.assert_allclose(
            module(torch.tensor(X[:, :2])).detach().numpy(), network.outputs(X), atol=1e-12
        )

    def test_patches_are_a_convolution_with_average_pooling(self):
        import torch

        images = np.random.default_rng(0).standard_normal((6, 2, 5, 5))
        W = np.random.default_rng(1).standard_normal((3, 18))
        conv = torch.conv2d(torch.tensor(images), torch.tensor(W.reshape(3, 2, 3, 3)), stride=2)
        ours = np.maximum(image_patches(images, 3, stride=2) @ W.T, 0).mean(1)
        np.testing.assert_allclose(ours, torch.relu(conv).mean((2, 3)).numpy(), atol=1e-12)


class TestTheProgram:
    def test_the_factored_matrix_is_that_of_dense_blocks(self):
        X, y = data(n=7)
        weights = np.random.default_rng(0).uniform(0.5, 2, 7)
        problem = ConvexReLU(X, y, sample_patterns(X, 4), 0.2, weights=weights, output_bias=True)
        program = problem.program
        F = np.hstack([s * D[:, None] * program.X for s in (1, -1) for D in program.D])
        B = np.kron(np.eye(8), np.eye(3) + program.X.T @ program.weighted)
        Q = np.diag(weights) - np.outer(weights, weights) / weights.sum()
        right = np.random.default_rng(1).standard_normal(24)
        dense = np.linalg.solve(B + F.T @ Q @ F / 0.7, right)
        t = (right.reshape(8, 3) @ program.inverse).reshape(2, 4, 1, 3)
        v = program.solve(0.7, program.gated(program.products(t)))
        back = program.gathered(v, program.X @ program.inverse)
        np.testing.assert_allclose((t - np.stack([back, -back])).ravel(), dense, atol=1e-10)

    def test_more_patterns_never_raise_the_optimum(self):
        X, y = data()
        D = sample_patterns(X, 40)
        values = [solve(ConvexReLU(X, y, D[:k], 0.3), stop=TIGHT).metrics["objective"] for k in (5, 20, 40)]
        assert values[0] * (1 + 1e-4) >= values[1] >= values[2] * (1 - 1e-4)

    def test_without_a_radius_to_speak_of_the_robust_program_is_the_plain_one(self):
        X, y = data(n=12)
        D, target = sample_patterns(X, 8), labels(y, "hinge")
        robust = solve(RobustConvexReLU(X, target, D, 0.5, 1e-9), stop=Stop(below={"gap": 1e-4}, steps=1500))
        plain = solve(ConvexReLU(X, target, D, 0.5, "hinge"), stop=TIGHT)
        assert robust.metrics["objective"] == pytest.approx(plain.metrics["objective"], rel=5e-4)

    def test_no_attack_does_worse_than_the_exact_robust_objective(self):
        X, y = data(n=12)
        target = labels(y, "hinge")
        problem = RobustConvexReLU(X, target, sample_patterns(X, 60, radius=0.05), 0.05, 0.05)
        result = solve(problem, stop=Stop(below={"gap": 1e-3, "violation": 1e-6}, steps=1500))
        network, rng = problem.network(result.x), np.random.default_rng(0)
        worst = np.full(12, -np.inf)
        for _ in range(200):
            moved = X + 0.05 * np.c_[rng.choice([-1, 1], (12, 2)), np.zeros(12)]
            worst = np.maximum(worst, np.maximum(1 - target * network.outputs(moved)[:, 0], 0))
        assert worst.sum() + 0.05 * network.penalty <= result.metrics["objective"] * (1 + 1e-4)

    @given(st.integers(-300, 300), st.integers(-250, 250))
    @settings(max_examples=15)
    def test_units_do_not_matter(self, x_power, y_power):
        X, y = data(n=10)
        D = sample_patterns(X, 6)
        plain = solve(ConvexReLU(X, y, D, 0.5), stop=Stop(steps=5)).metrics["objective"]
        scaled = ConvexReLU(
            np.ldexp(X, x_power), np.ldexp(y, y_power), D, float(np.ldexp(0.5, x_power + y_power))
        )
        found = solve(scaled, stop=Stop(steps=5)).metrics["objective"]
        assert found == pytest.approx(float(np.ldexp(plain, 2 * y_power)), rel=1e-12)

    @pytest.mark.parametrize("method", [ReLUADMM(), ReLULinearizedADMM(), ReLURBCD()])
    def test_a_resumed_run_has_the_same_bits(self, method, tmp_path):
        X, y = data(n=10)
        problem = ConvexReLU(X, y, sample_patterns(X, 12), 0.3)
        whole = solve(problem, method, stop=Stop(steps=6))
        solve(problem, method, stop=Stop(steps=3), callbacks=[Checkpoint(tmp_path / "run", every=3)])
        again = solve(problem, method, stop=Stop(steps=6), resume=tmp_path / "run")
        np.testing.assert_array_equal(again.x, whole.x)

    @pytest.mark.parametrize("n", [1, 2])
    def test_one_row_and_constant_columns_are_solved(self, n):
        X = np.ones((n, 2))
        problem = ConvexReLU(X, np.full(n, 2.0), all_patterns(X), 0.1)
        result = solve(problem)
        # |u| = t: n (2 - sqrt(2) t)^2/2 + 0.1 t
        t = (2 * np.sqrt(2) * n - 0.1) / (2 * n)
        assert result.metrics["objective"] == pytest.approx(
            0.5 * n * (2 - np.sqrt(2) * t) ** 2 + 0.1 * t, rel=1e-3
        )

    def test_targets_of_zeros_need_no_neuron(self):
        X, _ = data()
        problem = ConvexReLU(X, np.zeros(20), sample_patterns(X, 5), 0.1)
        result = solve(problem)
        assert result.converged
        assert problem.network(result.x).width == 0


class TestLosses:
    @pytest.mark.parametrize("loss", LOSSES)
    def test_proximal_points_bounds_and_biases_are_minima(self, loss):
        rng = np.random.default_rng(0)
        Y = (
            np.eye(3)[rng.integers(3, size=5)].T
            if loss == "softmax"
            else np.where(rng.random((3, 5)) > 0.5, 1.0, -1.0)
        )
        made = LOSSES[loss](Y, rng.uniform(0.5, 2.0, 5))
        q = 3 * rng.standard_normal((3, 5))

        def augmented(f):
            return made.value(f) + 0.35 * float((made.weights * (f - q) ** 2).sum())

        best, bias = made.prox(q, 0.7), made.best_bias(q)
        for _ in range(50):
            away = 0.1 * rng.standard_normal((3, 5))
            assert augmented(best) <= augmented(best + away) + 1e-9
            assert made.value(q + bias[:, None]) <= made.value(q + bias[:, None] + away[:, :1]) + 1e-9
        f = rng.standard_normal((3, 5))
        for rho in (0.004, 0.04, 30.0):  # where the loss is smooth, the slope vanishes there
            far = made.prox(q / min(rho, 1.0), rho)
            if made.is_smooth:
                np.testing.assert_allclose(
                    made.slope(far) / made.weights, rho * (q / min(rho, 1.0) - far), atol=1e-9 * max(rho, 1.0)
                )
        theta = made.feasible(-made.slope(q), False)
        for c in (0.3, 1.0):  # Fenchel and Young: -conjugate(-c theta) <= loss(f) + c theta'f
            assert (
                made.dual(theta, c) <= made.value(f) + c * float((theta * f).sum()) + 1e-9
                or loss == "squares"
            )


class TestSampledNeurons:
    @pytest.mark.parametrize("loss", ["squares", "logistic"])
    def test_the_objective_is_the_balanced_networks(self, loss):
        X, y = data()
        problem = SampledNeurons(X, labels(y, loss), sample_neurons(X, 100), 0.2, loss, output_bias=True)
        result = solve(problem)
        network = problem.network(result.x)
        plain = ConvexReLU(X, labels(y, loss), sample_patterns(X, 2), 0.2, loss, output_bias=True)
        assert result.converged
        assert plain.objective_of(network) == pytest.approx(result.metrics["objective"], rel=1e-9)

    def test_several_outputs_share_neurons_and_meet_an_interior_point_method(self):
        X, y = data()
        Y = np.c_[y, np.abs(y)]
        problem = SampledNeurons(X, Y, sample_neurons(X, 30), 0.4, output_bias=True)
        result = solve(problem)
        A, b = cp.Variable((30, 2)), cp.Variable(2)
        value = 0.5 * cp.sum_squares(
            problem.values @ A + np.ones((20, 1)) @ cp.reshape(b, (1, 2), order="C") - Y
        )
        best = cp.Problem(cp.Minimize(value + 0.4 * cp.sum(cp.norm(A, axis=1)))).solve(solver="CLARABEL")
        assert result.metrics["objective"] == pytest.approx(best, rel=2e-3)
        assert result.metrics["objective"] * (1 - result.metrics["gap"]) <= best * (1 + 1e-6)


X, Y = data(n=4)
D = np.ones((1, 4), dtype=bool)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ConvexReLU(X, Y, D, 0.0), InvalidParameter, "beta > 0"),
        (lambda: ConvexReLU(X, Y, D, 1.0, "absolute"), UnknownName, "No loss"),
        (lambda: ConvexReLU(X, [0, 1, 0, 1], D, 1.0, "hinge"), InvalidProblem, "needs labels -1 and 1"),
        (lambda: ConvexReLU(X, [0.5, 1, 0, 1], D, 1.0, "softmax"), InvalidProblem, "softmax needs classes"),
        (lambda: ConvexReLU(X, Y, np.ones((1, 3), bool), 1.0), InvalidProblem, "patterns are bool of shape"),
        (lambda: ConvexReLU(X, Y, np.ones((1, 4)), 1.0), InvalidProblem, "expected truth values"),
        (lambda: ConvexReLU(X, Y[:3], D, 1.0), InvalidProblem, "y has shape"),
        (lambda: ConvexReLU(X, Y * 1e200, D, 1.0), InvalidProblem, "y reaches .* Scale it"),
        (lambda: ConvexReLU(X * 1e-200, Y, D, 1.0), InvalidProblem, "X reaches .* Scale it"),
        (lambda: ConvexReLU(X * np.nan, Y, D, 1.0), NotFinite, "NaN"),
        (lambda: ConvexReLU(X, Y, D, 1.0, weights=[1, 1, 0, 1]), InvalidProblem, "4 positive numbers"),
        (lambda: ConvexReLU(X, Y, D, 1.0, most_bytes=10), InvalidProblem, "bytes"),
        (lambda: ConvexReLU(X, Y, D, 1.0, x0=np.zeros(3)), InvalidProblem, "x0 has shape"),
        (lambda: ConvexReLU(X, Y, D, 1.0).metrics(np.zeros(2)), InvalidProblem, "An answer has shape"),
        (lambda: ReLUADMM(rho=0.0), InvalidParameter, "rho > 0"),
        (lambda: ReLUADMM(relaxation=2.0), InvalidParameter, "relaxation < 2"),
        (lambda: ReLURBCD(shrink=1.0), InvalidParameter, "shrink > 1"),
        (lambda: ReLUSCP(sets=0), InvalidParameter, "sets >= 1"),
        (lambda: RobustADMM(iterations=0), InvalidParameter, "iterations >= 1"),
        (
            lambda: solve(ConvexReLU(X, np.sign(Y), D, 1.0, "hinge"), ReLURBCD()),
            InvalidProblem,
            "the hinge has none",
        ),
        (lambda: solve(SampledNeurons(X, np.sign(Y), X, 1.0, "hinge")), InvalidProblem, "smooth losses"),
        (lambda: RobustConvexReLU(X, np.sign(Y), D, 1.0, -1.0), InvalidParameter, "radius > 0"),
        (lambda: RobustConvexReLU(X, np.sign(Y), D, 1.0, 0.1, mask=[1]), InvalidProblem, "mask needs 3"),
        (
            lambda: RobustConvexReLU(X[:, :2], np.sign(Y), sample_patterns(X[:, :2], 3), 1.0, 9.0),
            InvalidProblem,
            "No pattern has margin 9",
        ),
        (lambda: image_patches(np.ones((2, 3, 3)), 4), InvalidParameter, "1 <= size"),
        (lambda: image_patches(np.ones(3), 1), InvalidProblem, "images have shape"),
    ],
)
def test_what_cannot_be_done_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_repeated_patterns_count_once():
    problem = ConvexReLU(X, Y, np.vstack([D, D]), 1.0)
    assert len(problem.patterns) == 1
    assert len(replace(problem, beta=2.0).patterns) == 1


class TestConvolutions:
    @pytest.mark.parametrize(("bias", "stride"), [(False, 1), (True, 2)])
    def test_a_network_on_patches_is_a_convolution(self, bias, stride):
        rng = np.random.default_rng(0)
        images = rng.standard_normal((6, 2, 7, 7))
        patches = image_patches(images, 3, stride=stride, bias=bias)
        d = patches.shape[-1]
        network = TwoLayerNetwork(
            rng.standard_normal((5, d)), rng.standard_normal((5, 4)), rng.standard_normal(4)
        )
        module = network.to_convolution(2, 3, stride=stride, hidden_bias=bias)
        with torch.no_grad():
            found = module(torch.from_numpy(images)).numpy()
        np.testing.assert_allclose(found, network.outputs(patches), rtol=1e-12, atol=1e-12)

    def test_patches_of_another_size_are_told(self):
        network = TwoLayerNetwork(np.ones((2, 9)), np.ones((2, 1)), np.zeros(1))
        with pytest.raises(InvalidParameter, match="have 4 numbers; the network takes 9"):
            network.to_convolution(1, 2)

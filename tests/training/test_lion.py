"""Lion and Lion-K against the papers' formulas, independent solvers, and torch's contract."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch
from torch import nn

from thalweg.core import CheckpointMismatch, InvalidParameter, InvalidProblem
from thalweg.training import (
    L1,
    GroupL2,
    HalfSquare,
    Huber,
    Lion,
    LionK,
    Lp,
    PseudoHuber,
    ThresholdedL1,
    TopK,
    _lion_pass,
)

PATHS = {
    "single": {"foreach": False, "fused": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}


def paper_lion(x, gradients, lr, b1, b2, decay):
    """Program 1 of Chen et al. (2023), written in numpy."""
    x, m = x.copy(), np.zeros_like(x)
    for g in gradients:
        update = np.sign(b1 * m + (1 - b1) * g)
        x = x - lr * (update + decay * x)
        m = b2 * m + (1 - b2) * g
    return x, m


def run(optimizer, params, gradients):
    for grads in gradients:
        for p, g in zip(params, grads, strict=True):
            p.grad = g.clone()
        optimizer.step()


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    shapes = [(40, 30), (7,), (3, 4, 5), (70_000,)]
    start = [torch.randn(s, dtype=torch.float64) for s in shapes]
    return start, [[torch.randn(s, dtype=torch.float64) for s in shapes] for _ in range(5)]


def parameters(start, dtype=torch.float64):
    return [nn.Parameter(t.to(dtype).clone()) for t in start]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_every_path_is_program_1_of_the_paper(tensors, path, decay):
    start, gradients = tensors
    params = parameters(start)
    optimizer = Lion(params, lr=0.01, betas=(0.8, 0.95), weight_decay=decay, **PATHS[path])
    run(optimizer, params, gradients)
    for i, p in enumerate(params):
        x, m = paper_lion(start[i].numpy(), [g[i].numpy() for g in gradients], 0.01, 0.8, 0.95, decay)
        np.testing.assert_allclose(p.detach().numpy(), x, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(optimizer.state[p]["exp_avg"].numpy(), m, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("path", ["foreach", "fused"])
@pytest.mark.parametrize("options", [{}, {"implicit_decay": True}, {"maximize": True}], ids=str)
def test_the_paths_agree_in_float32(tensors, path, options):
    start, gradients = tensors
    out = []
    for choice in ("single", path):
        params = parameters(start, torch.float32)
        optimizer = Lion(params, lr=0.01, weight_decay=0.3, **options, **PATHS[choice])
        run(optimizer, params, [[g.float() for g in row] for row in gradients])
        out.append(params)
    for a, b in zip(*out, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_lion_k_with_l1_is_lion_bit_for_bit(tensors):
    start, gradients = tensors
    a, b = parameters(start), parameters(start)
    run(Lion(a, lr=0.01, weight_decay=0.1), a, gradients)
    run(LionK(b, lr=0.01, weight_decay=0.1, K=L1()), b, gradients)
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


@pytest.mark.parametrize("K", [Lp(2.0), GroupL2(), Huber(0.1), TopK(5)], ids=repr)
def test_foreach_agrees_with_tensor_by_tensor_for_other_functions(tensors, K):
    start, gradients = tensors
    a, b = parameters(start), parameters(start)
    run(LionK(a, lr=0.01, weight_decay=0.1, K=K, foreach=True), a, gradients)
    run(LionK(b, lr=0.01, weight_decay=0.1, K=K, foreach=False), b, gradients)
    for p, q in zip(a, b, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-14)


def test_half_square_is_momentum_with_decay(tensors):
    start, gradients = tensors
    params = parameters(start)
    run(LionK(params, lr=0.1, betas=(0.9, 0.9), weight_decay=0.2, K=HalfSquare()), params, gradients)
    x, m = start[1].numpy(), 0.0
    for g in gradients:
        m = 0.9 * m + 0.1 * g[1].numpy()
        x = x - 0.1 * (m + 0.2 * x)
    np.testing.assert_allclose(params[1].detach().numpy(), x, rtol=1e-12)


class TestComposite:
    """The limit on a convex problem is the optimum of ``f(x) + K*(lam x)/lam``, found by another solver."""

    lam = 2.0

    @pytest.fixture
    def least_squares(self):
        rng = np.random.default_rng(3)
        A = rng.standard_normal((12, 6))
        return A, A @ np.array([1.5, -1.0, 0.3, 0.05, -0.02, 0.6]) + 0.1 * rng.standard_normal(12)

    def expected(self, K, A, b):
        x = cp.Variable(6)
        y, penalty, limits = self.lam * x, 0.0, [cp.norm_inf(self.lam * x) <= 1]
        if isinstance(K, Lp):
            limits = [cp.pnorm(y, K.p / (K.p - 1)) <= 1]
        elif isinstance(K, GroupL2):
            limits = [cp.norm2(y[2 * i : 2 * i + 2]) <= 1 for i in range(3)]
        elif isinstance(K, HalfSquare):
            penalty, limits = 0.5 * cp.sum_squares(y), []
        elif isinstance(K, ThresholdedL1):
            penalty = K.e * cp.norm1(y)
        elif isinstance(K, TopK):
            limits.append(cp.norm1(y) <= K.k)
        elif isinstance(K, Huber):
            penalty = 0.5 * K.e * cp.sum_squares(y)
        elif isinstance(K, PseudoHuber):
            penalty = -K.e * sum(cp.norm2(cp.hstack([1.0])) * cp.sqrt(1 - cp.square(y[i])) for i in range(6))
        objective = cp.sum_squares(A @ x - b) / 2 + penalty / self.lam
        return cp.Problem(cp.Minimize(objective), limits).solve(solver=cp.CLARABEL)

    @pytest.mark.parametrize(
        "K",
        [
            L1(),
            Lp(2.0),
            Lp(3.0),
            GroupL2(),
            HalfSquare(),
            ThresholdedL1(1.0),
            TopK(2),
            Huber(0.5),
            PseudoHuber(0.5),
        ],
        ids=repr,
    )
    def test_each_function_reaches_its_composite_optimum(self, K, least_squares):
        A, b = (torch.tensor(v) for v in least_squares)
        shape = (3, 2) if isinstance(K, GroupL2) else (6,)
        x = nn.Parameter(torch.zeros(shape, dtype=torch.float64))
        optimizer = LionK([x], lr=0.02, weight_decay=self.lam, K=K)
        steps = 4000
        for t in range(steps):
            optimizer.param_groups[0]["lr"] = 0.02 * (1 - t / steps) ** 2 + 1e-7
            x.grad = (A.T @ (A @ x.detach().flatten() - b)).reshape(shape)
            optimizer.step()
        value = (
            0.5 * (A @ x.detach().flatten() - b).square().sum()
            + K.conjugate(self.lam * x.detach(), 1e-3) / self.lam
        )
        assert float(value) == pytest.approx(self.expected(K, *least_squares), rel=1e-3, abs=1e-3)

    def test_the_gap_certifies_the_optimum(self, least_squares):
        A, b = (torch.tensor(v) for v in least_squares)
        x = nn.Parameter(torch.zeros(6, dtype=torch.float64))
        optimizer = LionK([x], lr=0.01, weight_decay=self.lam, K=Huber(0.5), implicit_decay=True)

        def value():
            point = x.detach()
            return 0.5 * (A @ point - b).square().sum() + Huber(0.5).composite(point, self.lam)

        best = self.expected(Huber(0.5), *least_squares)
        for _ in range(2000):
            x.grad = (A.T @ (A @ x.detach() - b)).detach()
            gap = optimizer.optimality_gap()
            assert float(value()) - best <= gap + 1e-6
            optimizer.step()
        assert gap < 1e-3


def test_the_bound_is_reached_and_kept():
    # Phase I: outside the box the distance falls by 1 - lr lam a step; phase II: the weights stay inside.
    x = nn.Parameter(torch.full((100,), 5.0))
    target = torch.linspace(-3, 3, 100)
    optimizer = Lion([x], lr=0.01, max_norm=0.5)
    for t in range(2000):
        x.grad = x.detach() - target
        optimizer.step()
        if t > 800:  # 4.5 exp(-lr lam t) is below rounding
            assert float(x.detach().abs().max()) <= 0.5 * (1 + 1e-5)
    inside = target.abs() < 0.4
    assert float((x.detach() - target)[inside].abs().max()) < 0.05
    assert float((x.detach().abs() - 0.5)[target.abs() > 0.6].abs().max()) < 0.02


def test_outside_the_box_the_distance_falls_exponentially():
    x = nn.Parameter(torch.full((10,), 8.0))
    optimizer = Lion([x], lr=0.001, weight_decay=1.0, betas=(0.0, 0.0))
    distances = []
    for _ in range(1000):
        x.grad = torch.ones(10) * -1.0  # pulls outwards
        optimizer.step()
        distances.append(float((x.detach() - 1.0).max()))
    rate = -np.polyfit(0.001 * np.arange(1000), np.log(distances), 1)[0]
    assert rate == pytest.approx(1.0, abs=0.02)


class TestContract:
    def model_and_batch(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
        return model, torch.randn(32, 8), torch.randint(0, 3, (32,))

    def train(self, model, optimizer, X, y, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(X), y)
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    @pytest.mark.parametrize("options", [{}, {"K": Huber(0.1)}, {"momentum_dtype": torch.bfloat16}], ids=str)
    def test_a_saved_optimizer_goes_on_with_the_same_bits(self, options, tmp_path):
        model, X, y = self.model_and_batch()
        optimizer = LionK(model.parameters(), lr=1e-2, weight_decay=0.1, **options)
        self.train(model, optimizer, X, y, 3)
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "f")
        self.train(model, optimizer, X, y, 3)
        other, _, _ = self.model_and_batch()
        resumed = LionK(other.parameters(), lr=1e-2, weight_decay=0.1, **options)
        saved = torch.load(tmp_path / "f", weights_only=True)
        other.load_state_dict(saved["model"])
        resumed.load_state_dict(saved["optimizer"])
        self.train(other, resumed, X, y, 3)
        for p, q in zip(model.parameters(), other.parameters(), strict=True):
            assert torch.equal(p, q)
        assert {s["exp_avg"].dtype for s in resumed.state.values()} == {
            options.get("momentum_dtype", torch.float32)
        }

    def test_the_state_of_another_function_is_refused(self):
        p = nn.Parameter(torch.zeros(1))
        with pytest.raises(CheckpointMismatch, match=r"Huber\(e=1.0\)"):
            LionK([p]).load_state_dict(LionK([p], K=Huber()).state_dict())

    def test_groups_have_options_of_their_own(self):
        a, b = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))
        optimizer = LionK(
            [{"params": [a], "lr": 0.5}, {"params": [b], "K": HalfSquare(), "max_norm": 4.0}], lr=0.1
        )
        a.grad = b.grad = torch.tensor([1.0, -2.0, 0.0])
        optimizer.step()
        assert torch.equal(a.detach(), torch.tensor([-0.5, 0.5, 0.0]))
        torch.testing.assert_close(b.detach(), -0.1 * 0.1 * b.grad)
        assert optimizer.param_groups[1]["weight_decay"] == 0.25

    def test_a_closure_is_evaluated_and_its_loss_returned(self):
        p = nn.Parameter(torch.ones(2))
        optimizer = Lion([p], lr=0.1)

        def closure():
            optimizer.zero_grad()
            loss = p.square().sum()
            loss.backward()
            return loss

        assert float(optimizer.step(closure)) == 2.0
        torch.testing.assert_close(p.detach(), torch.full((2,), 0.9))

    def test_parameters_without_gradient_stay(self):
        p = nn.Parameter(torch.ones(2))
        Lion([p], lr=0.1, weight_decay=1.0).step()
        assert torch.equal(p.detach(), torch.ones(2))

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_low_precision_parameters_are_trained(self, dtype):
        p = nn.Parameter(torch.ones(4, dtype=dtype))
        p.grad = torch.ones(4, dtype=dtype)
        Lion([p], lr=0.5).step()
        assert torch.equal(p.detach(), torch.full((4,), 0.5, dtype=dtype))

    def test_a_non_contiguous_parameter_is_updated_in_place(self):
        base = torch.ones(4, 6)
        p = nn.Parameter(base.t())
        p.grad = torch.ones(6, 4)
        Lion([p], lr=0.5).step()
        assert torch.equal(p.detach(), torch.full((6, 4), 0.5))

    def test_mixed_precision_with_a_gradient_scaler(self):
        model, X, y = self.model_and_batch()
        optimizer = Lion(model.parameters(), lr=3e-3)
        scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
        losses = []
        for _ in range(100):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = nn.functional.cross_entropy(model(X), y)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            losses.append(float(loss))
        assert losses[-1] < 0.8 * losses[0]

    def test_the_scaler_skips_a_step_with_infinite_gradients(self):
        p = nn.Parameter(torch.ones(2))
        optimizer, scaler = Lion([p], lr=0.1), torch.amp.GradScaler("cpu", init_scale=2.0)
        scaler.scale((p * torch.inf).sum()).backward()
        scaler.step(optimizer)
        assert torch.equal(p.detach(), torch.ones(2))

    @pytest.mark.parametrize("K", [L1(), PseudoHuber(0.1)], ids=repr)
    def test_a_compiled_step_is_the_plain_step(self, K):
        results = []
        for compiled in (False, True):
            model, X, y = self.model_and_batch()
            optimizer = LionK(model.parameters(), lr=1e-2, weight_decay=0.1, K=K)
            step = torch.compile(optimizer.step, backend="aot_eager") if compiled else optimizer.step
            for _ in range(3):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(X), y).backward()
                step()
            results.append([p.detach() for p in model.parameters()])
        for p, q in zip(*results, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)

    def test_gradients_flow_through_a_differentiable_step(self):
        w = torch.tensor(2.0, requires_grad=True)
        p = w * torch.ones(2)
        p.retain_grad()
        optimizer = LionK([nn.Parameter(torch.zeros(2))], lr=0.1, K=HalfSquare(), differentiable=True)
        optimizer.param_groups[0]["params"] = [p]
        p.grad = 3.0 * w * torch.ones(2)
        optimizer.step()
        # x = w - lr (1 - b1) 3 w for each of two entries
        (slope,) = torch.autograd.grad(p.sum(), w)
        assert float(slope) == pytest.approx(2 * (1 - 0.1 * 0.1 * 3))

    def test_a_tensor_rate_works_captured_and_not(self):
        for options in ({}, {"capturable": True}, {"capturable": True, "foreach": True}):
            p = nn.Parameter(torch.ones(2))
            p.grad = torch.ones(2)
            Lion([p], lr=torch.tensor(0.25), weight_decay=1.0, **options).step()
            torch.testing.assert_close(p.detach(), torch.full((2,), 0.5))


def _worker(rank, port, queue):
    store = torch.distributed.TCPStore("127.0.0.1", port, 2, rank == 0)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = nn.parallel.DistributedDataParallel(nn.Linear(6, 2))
    optimizer = Lion(model.parameters(), lr=1e-2, weight_decay=0.1)
    X, y = torch.randn(20, 6), torch.randint(0, 2, (20,))
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X[rank::2]), y[rank::2]).backward()
        optimizer.step()
    queue.put((rank, {name: value.numpy() for name, value in model.module.state_dict().items()}))
    torch.distributed.destroy_process_group()


def test_two_processes_train_the_same_weights_as_one(two_workers):
    first, second = (found for _, found in two_workers(_worker))
    torch.manual_seed(0)
    model = nn.Linear(6, 2)
    optimizer = Lion(model.parameters(), lr=1e-2, weight_decay=0.1)
    X, y = torch.randn(20, 6), torch.randint(0, 2, (20,))
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(X), y).backward()
        optimizer.step()
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(first[name], second[name])
        torch.testing.assert_close(torch.from_numpy(first[name]), value)


class TestBadInput:
    def test_sparse_gradients_are_refused(self):
        embedding = nn.Embedding(5, 2, sparse=True)
        embedding(torch.tensor([1])).sum().backward()
        with pytest.raises(InvalidProblem, match=r"sparse gradients.*SparseAdam"):
            Lion(embedding.parameters()).step()

    def test_complex_parameters_are_refused(self):
        p = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
        p.grad = torch.ones_like(p)
        with pytest.raises(InvalidProblem, match="view_as_real"):
            Lion([p]).step()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"lr": -1.0}, "lr >= 0"),
            ({"betas": (0.9, 1.0)}, "betas in"),
            ({"betas": (-0.1, 0.9)}, "betas in"),
            ({"weight_decay": -0.1}, "weight_decay >= 0"),
            ({"max_norm": 0.0}, "max_norm > 0"),
            ({"max_norm": "1"}, "max_norm > 0"),
            ({"lr": "fast"}, "lr >= 0"),
            ({"lr": float("nan")}, "lr >= 0"),
            ({"betas": 0.9}, "two betas"),
            ({"weight_decay": None}, "weight_decay >= 0"),
            ({"max_norm": 1.0, "weight_decay": 1.0}, "not both"),
            ({"K": "l1"}, "needs a ConvexFunction"),
            ({"foreach": True, "fused": True}, "exclude each other"),
            ({"differentiable": True, "foreach": True}, "tensor by tensor"),
        ],
    )
    def test_options_outside_their_range_are_refused(self, options, message):
        with pytest.raises(InvalidParameter, match=message):
            LionK([nn.Parameter(torch.zeros(1))], **options)

    def test_fused_where_it_cannot_be_had_says_what_it_needs(self):
        p = nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))
        p.grad = torch.ones_like(p)
        with pytest.raises(InvalidParameter, match="float32 or float64"):
            Lion([p], fused=True).step()

    def test_lion_takes_no_other_function(self):
        with pytest.raises(InvalidParameter, match="use LionK"):
            Lion([nn.Parameter(torch.zeros(1))], K=Huber())


class TestMaxNorm:
    def test_a_groups_own_form_takes_the_place_of_the_constructors_other(self):
        def decays(own, **default):
            groups = [{"params": parameters([torch.ones(2)])}, {"params": parameters([torch.ones(2)]), **own}]
            return [group["weight_decay"] for group in Lion(groups, **default).param_groups]

        assert decays({"weight_decay": 0.0}, max_norm=0.5) == [2.0, 0.0]  # no decay of biases
        assert decays({"weight_decay": 0.1}, max_norm=0.5) == [2.0, 0.1]
        assert decays({"max_norm": 2.0}, weight_decay=0.1) == [0.1, 0.5]
        assert decays({"max_norm": None}, max_norm=0.5) == [2.0, 0.0]

    def test_a_group_added_later_has_its_own_form(self):
        optimizer = Lion(parameters([torch.ones(2)]), max_norm=0.5)
        optimizer.add_param_group({"params": parameters([torch.ones(2)]), "weight_decay": 0.0})
        assert optimizer.param_groups[1]["weight_decay"] == 0.0

    def test_both_forms_in_one_group_are_refused(self):
        group = {"params": parameters([torch.ones(2)]), "weight_decay": 0.1, "max_norm": 2.0}
        with pytest.raises(InvalidParameter, match="not both"):
            Lion([group])


@pytest.mark.parametrize("path", PATHS)
def test_a_nan_gradient_stops_its_weight_alone_on_every_path(path):
    """As with lion-pytorch: the sign of NaN is zero, and NaN stays in the momentum."""
    (p,) = params = parameters([torch.zeros(4)], torch.float32)
    optimizer = Lion(params, lr=1e-2, **PATHS[path])
    p.grad = torch.tensor([1.0, torch.nan, -1.0, torch.nan])
    optimizer.step()
    for _ in range(9):
        p.grad = torch.tensor([1.0, 1.0, -1.0, -1.0])
        optimizer.step()
    torch.testing.assert_close(p.detach(), torch.tensor([-0.1, 0.0, 0.1, 0.0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("path", ["foreach", "default"])
def test_every_path_gives_the_bits_of_tensor_by_tensor(tensors, dtype, path):
    start, gradients = tensors
    gradients = [[g.to(dtype) for g in some] for some in gradients]
    found = []
    for options in (PATHS["single"], PATHS.get(path, {})):
        params = parameters(start, dtype)
        run(Lion(params, lr=1e-2, weight_decay=0.1, **options), params, gradients)
        found.append(params)
    # The pass rounds its products once where torch's operations round twice.
    tolerance = 0 if dtype in (torch.float16, torch.bfloat16) else 1e-6
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


def _channels_last(tensor):
    return tensor.to(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("odd", "passed"),
    [
        (_channels_last, 2),
        (lambda t: t.transpose(0, 1), 2),
        (lambda t: t.to(torch.bfloat16), 1),
        (lambda t: t[:, ::2], 1),
        (lambda t: t.double(), 2),
    ],
    ids=["channels last", "transposed", "bf16", "gaps", "float64"],
)
def test_one_odd_tensor_does_not_take_the_others_off_the_pass(monkeypatch, odd, passed):
    """Each tensor has the step that it can have, and the same result."""
    torch.manual_seed(0)
    start = [torch.randn(50), odd(torch.randn(8, 4, 3, 3))]
    gradients = [[torch.randn_like(t) for t in start] for _ in range(3)]
    found, taken = [], []
    whole = _lion_pass.lion_pass
    monkeypatch.setattr(_lion_pass, "lion_pass", lambda *a, **k: (taken.extend(a[0]), whole(*a, **k)))
    for options in ({}, {"fused": False}):
        params = [nn.Parameter(t.clone(memory_format=torch.preserve_format)) for t in start]
        if not start[1].is_contiguous() and start[1].shape[1] == 2:
            params[1].data = start[1].clone().repeat_interleave(2, 1)[:, ::2]
        run(Lion(params, lr=1e-2, weight_decay=0.1, **options), params, gradients)
        found.append(params)
    assert len(taken) == 3 * passed
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_a_gradient_laid_out_otherwise_than_its_weight_gives_the_same_step():
    torch.manual_seed(0)
    weight, gradient = torch.randn(6, 4, 3, 3), torch.randn(6, 4, 3, 3)
    (a,), (b,) = parameters([weight], torch.float32), parameters([weight], torch.float32)
    for p, g in ((a, gradient), (b, _channels_last(gradient))):
        optimizer = Lion([p], lr=1e-2)
        for _ in range(3):
            p.grad = g
            optimizer.step()
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)

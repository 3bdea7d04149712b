"""The recorder against norms computed by hand, with scalers, clipping, processes and files."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thalweg.core import CheckpointMismatch, InvalidProblem
from thalweg.datasets import load_series
from thalweg.training import GradientNormRecorder


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(7, 300), nn.Tanh(), nn.Linear(300, 300), nn.Linear(300, 1)).to(dtype)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, seen: list) -> None:
    dtype = next(model.parameters()).dtype
    for i in range(steps):
        X = torch.randn(16, 7, generator=torch.Generator().manual_seed(i)).to(dtype)
        optimizer.zero_grad()
        model(X).square().mean().backward()
        g = torch.cat([p.grad.double().flatten() for p in model.parameters()])
        seen.append((float(g.abs().sum()), float(g.norm())))
        optimizer.step()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_norms_are_those_of_all_gradients_together(dtype: torch.dtype) -> None:
    model, seen = network(dtype), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    recorder = GradientNormRecorder(optimizer)
    train(model, optimizer, 6, seen)
    tolerance = 1e-2 if dtype is torch.bfloat16 else 1e-6
    np.testing.assert_allclose(recorder.norms("l1"), [s[0] for s in seen], rtol=tolerance)
    np.testing.assert_allclose(recorder.norms("l2"), [s[1] for s in seen], rtol=tolerance)


def test_recording_changes_nothing_and_ends() -> None:
    plain, watched, seen = network(), network(), []
    train(plain, torch.optim.AdamW(plain.parameters()), 5, seen)
    optimizer = torch.optim.AdamW(watched.parameters())
    recorder = GradientNormRecorder(optimizer)
    train(watched, optimizer, 5, seen)
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)
    recorder.detach()
    train(watched, optimizer, 2, seen)
    assert len(recorder) == 5


@pytest.mark.parametrize("fused", [False, True])
def test_scaled_gradients_are_recorded_unscaled_and_overflows_left_out(fused: bool) -> None:
    w = nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = torch.optim.AdamW([w], lr=0.0, fused=fused, weight_decay=0.0)
    recorder = GradientNormRecorder(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for factor in (1.0, float("inf"), 2.0):
        optimizer.zero_grad()
        scaler.scale((factor * w.square()).sum() / 2).backward()
        scaler.step(optimizer)
        scaler.update()
    np.testing.assert_allclose(recorder.norms("l2"), [5.0, 10.0])
    np.testing.assert_allclose(recorder.norms("l1"), [7.0, 14.0])
    assert recorder.skipped == (1 if fused else 0)  # an unfused optimizer is not even called


def test_gradients_that_are_not_finite_are_left_out_and_counted() -> None:
    w = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([w], lr=0.0)
    recorder = GradientNormRecorder(optimizer)
    for value in (1.0, float("nan"), float("inf"), 2.0):
        w.grad = torch.full((3,), value)
        optimizer.step()
    np.testing.assert_allclose(recorder.norms("l1"), [3.0, 6.0])
    assert recorder.skipped == 2


def test_parameters_without_gradient_and_steps_without_any() -> None:
    w, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD([w, unused], lr=0.1)
    recorder = GradientNormRecorder(optimizer)
    optimizer.step()
    w.grad = torch.tensor([3.0, 4.0])
    optimizer.step()
    assert recorder.norms("l2").tolist() == [5.0]


@pytest.mark.parametrize("ending", ["npz", "csv"])
def test_saved_norms_are_loaded_as_a_series(tmp_path, ending: str) -> None:
    model, seen = network(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    recorder = GradientNormRecorder(optimizer)
    train(model, optimizer, 4, seen)
    recorder.save(tmp_path / f"norms.{ending}")
    for norm in ("l1", "l2"):
        series = load_series(tmp_path / f"norms.{ending}", norm)
        np.testing.assert_allclose(series, recorder.norms(norm), rtol=1e-8)
    with pytest.raises(InvalidProblem, match=r"\.npz or \.csv"):
        recorder.save(tmp_path / "norms.txt")


def test_state_goes_through_a_checkpoint() -> None:
    model, seen = network(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    recorder = GradientNormRecorder(optimizer)
    train(model, optimizer, 3, seen)
    again = GradientNormRecorder(optimizer)
    again.load_state_dict(recorder.state_dict())
    recorder.detach()
    train(model, optimizer, 2, seen)
    np.testing.assert_allclose(again.norms("l2"), [s[1] for s in seen], rtol=1e-6)


def _worker(rank: int, port: int, queue: multiprocessing.Queue) -> None:
    store = torch.distributed.TCPStore("127.0.0.1", port, 2, rank == 0)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    recorder = GradientNormRecorder(optimizer)
    for i in range(3):
        X = torch.randn(8, 7, generator=torch.Generator().manual_seed(2 * i + rank))
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()
    queue.put((rank, recorder.norms("l2").tolist()))
    torch.distributed.destroy_process_group()


def test_distributed_workers_record_the_norm_of_the_mean_gradient(two_workers) -> None:
    found = dict(two_workers(_worker))
    assert found[0] == found[1]
    model = network()  # the same on one worker with both halves
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    recorder = GradientNormRecorder(optimizer)
    for i in range(3):
        halves = [torch.randn(8, 7, generator=torch.Generator().manual_seed(2 * i + r)) for r in range(2)]
        optimizer.zero_grad()
        model(torch.cat(halves)).square().mean().backward()
        optimizer.step()
    np.testing.assert_allclose(found[0], recorder.norms("l2"), rtol=1e-5)


def _record(*gradients):
    parameters = [torch.nn.Parameter(torch.zeros(g.shape, dtype=g.dtype)) for g in gradients]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g
    recorder = GradientNormRecorder(torch.optim.SGD(parameters, lr=0.0), attach=False)
    recorder.record()
    return recorder.norms("l1")[0], recorder.norms("l2")[0]


def _coo(values, rows):
    return torch.sparse_coo_tensor(torch.tensor([rows]), torch.tensor(values), (5, 2), check_invariants=True)


@pytest.mark.parametrize(
    ("gradients", "dense"),
    [
        ([_coo([[1.0, 1.0], [1.0, 1.0]], [1, 2])], [1.0] * 4),
        ([_coo([[1.0, 2.0], [3.0, -2.0]], [1, 1])], [4.0]),  # rows that came twice are added up first
        ([_coo([[1.0, 2.0]], [3]), torch.tensor([[-2.0, 4.0]])], [1.0, 2.0, 2.0, 4.0]),
        ([torch.tensor([3.0, 4.0]).bfloat16(), torch.tensor([12.0])], [3.0, 4.0, 12.0]),
        ([torch.tensor([3.0, 4.0]).double(), torch.tensor([12.0])], [3.0, 4.0, 12.0]),
        ([torch.arange(12.0).reshape(3, 4)[:, ::2], torch.tensor([1.0])], [0, 2, 4, 6, 8, 10, 1.0]),
        ([torch.tensor([3 + 4j])], [5.0]),
        ([torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last)], [1.0] * 96),
        ([torch.ones(0), torch.tensor([2.0])], [2.0]),
    ],
    ids=["sparse", "twice", "mixed", "bf16", "two dtypes", "gaps", "complex", "channels last", "empty"],
)
def test_gradients_of_every_layout_have_the_norms_of_their_elements(gradients, dense):
    l1, l2 = _record(*gradients)
    assert l1 == pytest.approx(np.abs(dense).sum())
    assert l2 == pytest.approx(np.linalg.norm(dense))


def test_an_embedding_with_sparse_gradients_is_recorded_at_its_steps():
    embedding = torch.nn.Embedding(5, 2, sparse=True)
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    recorder = GradientNormRecorder(optimizer)
    embedding(torch.tensor([1, 2])).sum().backward()
    optimizer.step()
    assert recorder.norms("l1").tolist() == [4.0]


@pytest.mark.parametrize(
    ("dtype", "low", "high"), [(torch.float64, -150, 150), (torch.float32, -30, 30)], ids=["double", "single"]
)
@given(data=st.data())
def test_norms_follow_the_gradients_scale(dtype, low, high, data):
    """Squares would leave the range of their type."""
    scale = 10.0 ** data.draw(st.integers(low, high))
    gradient = torch.randn(700, generator=torch.Generator().manual_seed(0), dtype=dtype)
    l1, l2 = _record(gradient * scale)
    wide = gradient.double().numpy()
    assert l1 == pytest.approx(np.abs(wide).sum() * scale, rel=1e-5)
    assert l2 == pytest.approx(np.linalg.norm(wide) * scale, rel=1e-5)


def test_the_state_of_anything_else_is_refused():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(CheckpointMismatch, match="no record of norms: it holds param_groups, state"):
        GradientNormRecorder(optimizer).load_state_dict(optimizer.state_dict())

"""AutoLRS: trials leave no trace, decisions agree between workers, a killed run goes on as if nothing had been."""

from __future__ import annotations

import contextlib
import hashlib
import math
import multiprocessing
import signal

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern as TheirMatern
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from running import COPIES
from thalweg.core import CheckpointMismatch, InvalidParameter, InvalidProblem, NotFinite
from thalweg.core.tree import load_tree, save_tree
from thalweg.numerics.gaussian_process import GaussianProcess, Matern
from thalweg.training import Lion, LionK, Lp
from thalweg.training._held_out import held_out_loss
from thalweg.training.autolrs import AutoLRS
from thalweg.training.rate_search import next_rate, told
from thalweg.training.replay import Replay
from thalweg.training.snapshot import Snapshot, random_states

SHORT = {"total_steps": 120, "stage_steps": 40, "max_stage_steps": 80, "explore": 3, "explore_fraction": 0.25}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 1))


def loader(workers: int = 0) -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    X = torch.randn(100, 5, generator=generator)
    y = X.sum(1, keepdim=True) + 0.1 * torch.randn(100, 1, generator=generator)
    return DataLoader(TensorDataset(X, y), batch_size=16, shuffle=True, drop_last=True, num_workers=workers)


def digest(*objects) -> str:
    """A hash of everything a training step depends on."""
    whole = hashlib.sha256()

    def add(value) -> None:
        if isinstance(value, torch.Tensor):
            whole.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, np.ndarray):
            whole.update(value.tobytes())
        elif isinstance(value, dict):
            for key in value:
                whole.update(repr(key).encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for item in value:
                add(item)
        else:
            whole.update(repr(value).encode())

    for item in objects:
        add(item)
    return whole.hexdigest()


def run(make=torch.optim.AdamW, batches=None, watch=None, **options):
    model = network()
    optimizer = make(model.parameters(), lr=1e-3)
    auto = AutoLRS(model, optimizer, 1e-4, 0.3, **{**SHORT, **options})
    for X, y in auto.steps(batches or loader()):
        loss = (model(X) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if watch is not None:
            watch(auto, model, optimizer, (X, y))
        auto.step(loss)
    return model, optimizer, auto


class TextOnSaving(torch.optim.SGD):
    """An optimizer that writes its options as text, as some do with dtypes and quantisers."""

    def state_dict(self):
        state = super().state_dict()
        for group in state["param_groups"]:
            group["momentum"] = str(group["momentum"])
        return state

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        for group in self.param_groups:
            group["momentum"] = float(group["momentum"])


@pytest.mark.parametrize(
    "make",
    [
        torch.optim.AdamW,
        lambda p, lr: torch.optim.SGD(p, lr=lr, momentum=0.9),
        Lion,
        lambda p, lr: LionK(p, lr=lr, K=Lp(2), momentum_dtype=torch.bfloat16),
        lambda p, lr: TextOnSaving(p, lr=lr, momentum=0.9),
    ],
    ids=["adamw", "sgd", "lion", "lion-k", "text"],
)
def test_trials_leave_no_trace(make) -> None:
    """The hash of weights, buffers, optimizer, random states and batches is that of training without trials."""
    model, optimizer, auto = run(make)
    assert [s.steps for s in auto.stages] == [40, 80]
    assert (auto.trained, auto.explored, len(auto.candidates)) == (120, 3 * 10 + 3 * 20, 6)

    plain = network()
    theirs = make(plain.parameters(), lr=1e-3)
    batches = Replay(loader(), keep=0)
    for rate in auto.rates():
        X, y = batches.next()
        theirs.param_groups[0]["lr"] = float(rate)
        loss = (plain(X) - y).square().mean()
        theirs.zero_grad()
        loss.backward()
        theirs.step()
    assert digest(model.state_dict(), optimizer.state_dict()) == digest(
        plain.state_dict(), theirs.state_dict()
    )
    assert digest(random_states()["torch"]) == digest(torch.get_rng_state())


class WithMoreState(nn.Linear):
    """Keeps numbers beside its tensors, and a buffer that no file has."""

    def __init__(self) -> None:
        super().__init__(5, 1)
        self.scale = {"amax": [1.0]}
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, x):
        self.seen += 1
        self.scale["amax"].append(float(x.detach().abs().max()))
        return super().forward(x)

    def get_extra_state(self):
        return self.scale

    def set_extra_state(self, state) -> None:
        self.scale = state


def test_trials_leave_no_trace_in_states_that_are_no_tensors_or_in_no_file(tmp_path) -> None:
    torch.manual_seed(0)
    model = WithMoreState()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    auto = AutoLRS(model, optimizer, 1e-4, 0.3, **SHORT, path=tmp_path / "run.auto")
    for X, y in auto.steps(loader()):
        loss = (model(X) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        auto.step(loss)
        if (auto.trained, auto.exploring) == (60, False):
            kept = dict(model.scale)
            again = WithMoreState()
            AutoLRS(
                again, torch.optim.Adam(again.parameters()), 1e-4, 0.3, **SHORT, path=tmp_path / "run.auto"
            )
            assert again.scale == kept
            assert again.seen == model.seen
    assert model.seen == auto.trained
    assert len(model.scale["amax"]) == 1 + auto.trained


def test_a_restored_state_lies_in_memory_as_it_did(tmp_path) -> None:
    """Files keep values; steps take the path that the layout allows."""
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    save_tree(tmp_path / "s", Snapshot(model, optimizer).state_dict())
    fresh = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    other = torch.optim.SGD(fresh.parameters(), lr=0.1, momentum=0.9)
    Snapshot.from_state_dict(load_tree(tmp_path / "s")).restore(fresh, other)
    kept = other.state[fresh.weight]["momentum_buffer"]
    assert kept.stride() == fresh.weight.stride() == model.weight.stride()
    assert torch.equal(kept, optimizer.state[model.weight]["momentum_buffer"])


def test_every_trial_and_the_stage_start_from_the_same_state_and_batches() -> None:
    batches: dict[tuple[int, int], set[str]] = {}
    seen: list[str] = []

    def watch(auto, model, optimizer, batch) -> None:
        stage = len(auto.stages) - (auto._phase == "train")
        batches.setdefault((stage, auto._count), set()).add(digest(batch))
        if auto._phase == "train":
            seen.append(digest(batch))

    run(watch=watch)
    assert all(len(found) == 1 for found in batches.values())  # the k-th batch of a stage is one and the same
    assert len(seen) == 120
    epoch = 100 // 16
    assert all(
        len(set(seen[i : i + epoch])) == epoch for i in range(0, 120 - epoch, epoch)
    )  # none twice an epoch


def test_restored_snapshot_gives_the_same_next_step_bit_for_bit() -> None:
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), amsgrad=True)
    X = torch.randn(16, 5)

    def step() -> str:
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()
        return digest(model.state_dict(), optimizer.state_dict(), random_states())

    fresh = Snapshot(model, optimizer)  # before the optimizer has any state
    first = step()
    warm = Snapshot(model, optimizer)
    second = step()
    step()
    warm.restore(model, optimizer)
    assert step() == second
    fresh.restore(model, optimizer)
    assert len(optimizer.state) == 0
    assert step() == first
    copy = Snapshot.from_state_dict(warm.state_dict())
    copy.restore(model, optimizer)
    assert step() == second


def test_gradient_scaler_and_other_objects_are_restored() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    snapshot = Snapshot(model, optimizer, {"scaler": scaler})
    scaler.load_state_dict({**scaler.state_dict(), "scale": 2.0})
    snapshot.restore(model, optimizer, {"scaler": scaler})
    assert scaler.state_dict()["scale"] == 64.0


def test_search_model_is_scikit_learns_process() -> None:
    rng = np.random.default_rng(0)
    X, y, A = rng.random((7, 1)), rng.standard_normal(7), np.linspace(0, 1, 11)[:, None]
    found = GaussianProcess(Matern(), degree=-1).fit(torch.tensor(X), torch.tensor(y))
    scale, noise = torch.exp(found.theta)
    theirs = GaussianProcessRegressor(
        TheirMatern(float(scale), "fixed", nu=2.5), alpha=float(noise), optimizer=None
    ).fit(X, y)
    mean, std = theirs.predict(A, return_std=True)
    ours = found.predict(torch.tensor(A))
    np.testing.assert_allclose(ours[0], mean, atol=1e-8)
    np.testing.assert_allclose(ours[1].sqrt(), std, atol=1e-8)


def test_search_is_new_every_time_and_goes_to_the_best_place() -> None:
    def bowl(rate: float) -> float:
        return math.log(rate / 3e-3) ** 2

    rates: list[float] = []
    for _ in range(10):
        rates.append(next_rate(rates, [bowl(r) for r in rates], 1e-5, 1.0, kappa=2.0))
    assert len({round(math.log(r), 3) for r in rates}) == 10
    assert all(1e-5 <= r <= 1.0 for r in rates)
    assert min(abs(math.log(r / 3e-3)) for r in rates) < 0.2
    spread = []
    for _ in range(5):  # all exploration: the range is covered
        spread.append(next_rate(spread, [bowl(r) for r in spread], 1e-5, 1.0, kappa=1000.0))
    gaps = np.diff(np.sort(np.log10([1e-5, *spread, 1.0])))
    assert gaps.max() < 2.0


def test_losses_that_are_none_are_told_as_the_worst() -> None:
    assert told([1.0, math.nan, 2.0, math.inf]) == [1.0, 3.0, 2.0, 3.0]
    assert told([math.nan]) == [0.0]
    assert told([1e-20, math.nan, 2e-20]) == pytest.approx([1e-20, 3e-20, 2e-20], rel=1e-12, abs=0)
    assert told([0.0, math.nan]) == [0.0, 1.0]


def test_diverging_trials_are_never_chosen() -> None:
    model = nn.Linear(5, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    auto = AutoLRS(model, optimizer, 1e-3, 1e30, **{**SHORT, "explore": 8, "total_steps": 40})
    for X, y in auto.steps(loader()):
        loss = (model(X) - y).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        auto.step(loss)
    rules = {c.rule for c in auto.candidates}
    assert "diverged" in rules
    assert all(math.isnan(c.forecast) == (c.rule == "diverged") for c in auto.candidates)
    assert auto.stages[0].rate < 1.0


def test_loss_that_stops_being_finite_in_a_stage_is_an_error_with_the_weights_before_it() -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    auto = AutoLRS(model, optimizer, 1e-3, 1e-2, **SHORT)
    before = digest(model.state_dict())
    with pytest.raises(NotFinite, match="Lower lr_max"):
        for i, X in enumerate(auto.steps([torch.ones(4, 1)])):
            loss = model(X).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            auto.step(loss * (math.nan if i >= 30 else 1.0))
    assert digest(model.state_dict()) == before


def test_all_trials_diverging_goes_on_with_the_lowest_rate_and_says_so() -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    auto = AutoLRS(model, optimizer, 1e-3, 1e-2, **SHORT)
    for _ in range(29):
        auto.step(math.nan)
    with pytest.warns(UserWarning, match="All 3 rates tried diverged"):
        auto.step(math.nan)
    assert auto.stages[0].rate == 1e-3


def test_a_loss_that_is_not_one_number_is_refused() -> None:
    model = torch.nn.Linear(2, 1)
    auto = AutoLRS(model, torch.optim.SGD(model.parameters(), 0.1), 1e-3, 1.0, total_steps=50, stage_steps=20)
    with pytest.raises(InvalidProblem, match=r"one number; got shape \(3,\)"):
        auto.step(torch.ones(3))
    auto.step(torch.ones(1))


def test_constant_loss_is_no_trouble() -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    auto = AutoLRS(model, optimizer, 1e-3, 1e-2, **SHORT)
    for _ in auto.steps([0]):
        auto.step(0.7)
    assert [c.forecast for c in auto.candidates] == pytest.approx([0.7] * 6)


def test_trials_of_the_longest_stages_are_judged_by_validation() -> None:
    calls: list[int] = []

    def validate() -> float:
        calls.append(1)
        torch.rand(3)  # draws of its own leave no trace
        return 0.5 + 1.0 / len(calls)

    _, _, auto = run(validate=validate, max_stage_steps=40)
    every = max(10 // 16, 1)
    assert len(calls) == len(auto.stages) * (1 + 3 * (10 // every))
    assert all(len(c.losses) == 10 // every for c in auto.candidates)
    plain = run(max_stage_steps=40)
    assert len(plain[2].stages) == 3


@pytest.mark.parametrize(("total", "lengths", "trials"), [(64, [40, 24], 6), (45, [40, 5], 3), (12, [12], 3)])
def test_last_stage_has_what_is_left_and_trials_to_match(total: int, lengths: list[int], trials: int) -> None:
    _, _, auto = run(total_steps=total)
    assert [s.steps for s in auto.stages] == lengths
    assert len(auto.candidates) == trials
    assert auto.trained == total
    for c in auto.candidates:
        assert len(c.losses) <= max(lengths[c.stage] // 4, 8)
    if lengths[-1] < 8:
        assert auto.stages[-1].rate == auto.stages[-2].rate


def test_validation_is_in_evaluation_mode_and_puts_every_module_back_as_it_was() -> None:
    model = network()
    model[1].eval()  # a frozen normalisation stays frozen
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []

    def validate() -> float:
        seen.append((any(m.training for m in model.modules()), torch.is_grad_enabled()))
        return 1.0

    auto = AutoLRS(model, optimizer, 1e-3, 1e-2, **{**SHORT, "max_stage_steps": 40}, validate=validate)
    for _ in range(5):
        auto.step(1.0)
    assert set(seen) == {(False, False)}
    assert [m.training for m in model.children()] == [True, False, True, True, True]


def test_warm_up_rises_and_the_groups_keep_their_ratio() -> None:
    model = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1))
    groups = [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[1].parameters(), "lr": 0.02}]
    optimizer = torch.optim.SGD(groups)
    auto = AutoLRS(model, optimizer, 1e-4, 1e-2, **SHORT, warmup_steps=10)
    seen = []
    for X in auto.steps([torch.ones(4, 1)]):
        seen.append([g["lr"] for g in optimizer.param_groups])
        loss = (model(X) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        auto.step(loss)
    rates = np.array(seen)
    np.testing.assert_allclose(rates[:, 1] / rates[:, 0], 0.2)
    np.testing.assert_allclose(rates[:10, 0], 1e-4 + (1e-3 - 1e-4) * np.arange(10) / 10)
    assert len(auto.rates()) == 120
    assert auto.stages[0].first == 10
    assert [f.title for f in auto.figures()] == ["The schedule that was found", "Trials"]


def _watched(pipe, path, asks: bool) -> None:
    """A run that tells each step, and goes on by itself or when it is sent something; at its end how it ended."""

    def watch(auto, model, optimizer, batch) -> None:
        pipe.send((auto.trained, auto.explored))
        if asks:
            pipe.recv()

    torch.set_num_threads(1)
    model, optimizer, auto = run(path=path, watch=watch)
    pipe.send((digest(model.state_dict(), optimizer.state_dict()), auto.rates().tolist()))


def _begun(path, *, asks: bool = False):
    here, there = COPIES.Pipe()
    process = COPIES.Process(target=_watched, args=(there, path, asks))
    process.start()
    there.close()
    return process, here


def _told(pipe) -> list:
    """All that a run tells to its end."""
    told = []
    with contextlib.suppress(EOFError):
        while True:
            told.append(pipe.recv())
    return told


def test_a_run_killed_three_times_ends_where_the_undisturbed_run_ends(tmp_path) -> None:
    """In a trial, in a stage, and in a trial of a late stage; each time it goes on from its file."""
    for when in ((0, 25), (27, 30), (120 - 45, 90)):
        killed, pipe = _begun(tmp_path / "run.auto", asks=True)
        while True:
            trained, explored = pipe.recv()
            if trained >= when[0] and explored >= when[1]:
                killed.kill()
                break
            pipe.send("on")
        killed.join(timeout=60)
        assert killed.exitcode == -signal.SIGKILL
    again = _told(_begun(tmp_path / "run.auto")[1])
    # in a process of its own, too: the last bit depends on the number of threads
    undisturbed = _told(_begun(None)[1])
    assert isinstance(undisturbed[-1][0], str)
    assert again[-1] == undisturbed[-1]
    assert len(again) < 120  # it did not start anew


def test_files_of_anything_else_are_refused(tmp_path) -> None:
    save_tree(tmp_path / "run.auto", {"x": 1})
    with pytest.raises(CheckpointMismatch, match="not saved by AutoLRS"):
        run(path=tmp_path / "run.auto")
    model, optimizer, _ = run()
    snapshot = Snapshot(model, optimizer)
    for other, words in (
        (nn.Linear(5, 1), "weight is not there"),
        (nn.Sequential(nn.Linear(4, 16)), r"\(16, 5\)"),
    ):
        before = digest(other.state_dict())
        with pytest.raises(CheckpointMismatch, match=words):
            snapshot.restore(other, torch.optim.SGD(other.parameters(), lr=0.1))
        assert digest(other.state_dict()) == before


class TestValidation:
    """What ``validate`` does wrong is said of it, and of no rate."""

    def auto(self, validate, **options):
        model = nn.Sequential(nn.Linear(5, 1), nn.Dropout(0.1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        options = {"total_steps": 80, "stage_steps": 80, "max_stage_steps": 80, "explore": 3, **options}
        return model, optimizer, AutoLRS(model, optimizer, 1e-3, 0.1, validate=validate, **options)

    def train(self, model, optimizer, auto) -> None:
        for X, y in auto.steps(loader()):
            loss = (model(X) - y).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            auto.step(loss)

    @pytest.mark.parametrize("value", [math.nan, math.inf, torch.tensor(math.nan)])
    def test_no_finite_loss_at_a_stages_start(self, value) -> None:
        with pytest.raises(NotFinite, match=r"validate\(\) gave (nan|inf) for the weights of step 0"):
            self.auto(lambda: value)

    @pytest.mark.parametrize("value", [None, "0.5", torch.ones(2), 1j])
    def test_no_number(self, value) -> None:
        with pytest.raises(InvalidProblem, match=r"validate\(\) has to return a loss, one number; got a"):
            self.auto(lambda: value)

    def test_no_finite_loss_in_any_trial(self) -> None:
        told = iter([1.0])
        model, optimizer, auto = self.auto(lambda: next(told, math.nan))
        with pytest.raises(NotFinite, match=r"validate\(\) gave no finite loss in any of 3 trials"):
            self.train(model, optimizer, auto)

    def test_an_error_of_its_own_leaves_modes_and_random_states(self) -> None:
        def fails():
            torch.rand(3)
            raise KeyError("no such file")

        model = nn.Sequential(nn.Linear(5, 1), nn.Dropout(0.1).eval())
        state = torch.get_rng_state()
        with pytest.raises(KeyError, match="no such file"):
            held_out_loss(model, fails)
        assert (model.training, model[0].training, model[1].training) == (True, True, False)
        assert torch.equal(torch.get_rng_state(), state)


def test_a_run_that_ended_counts_no_steps_that_were_rolled_back() -> None:
    model = nn.Linear(5, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    auto = AutoLRS(model, optimizer, 1e-3, 0.1, **SHORT)

    def train() -> None:
        for X, y in auto.steps(loader()):
            loss = (model(X) - y).square().mean()
            if auto.trained >= 60:
                loss = loss * math.nan
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            auto.step(loss)

    with pytest.raises(NotFinite, match="weights are those of step 40"):
        train()
    assert (auto.trained, len(auto.rates()), len(auto.stages)) == (40, 40, 1)
    with pytest.raises(InvalidProblem, match=r"This run has ended\. The loss stopped being finite"):
        train()
    with pytest.raises(InvalidProblem, match="This run has ended"):
        auto.step(1.0)
    assert auto.trained == 40


def test_a_group_added_later_keeps_its_share_of_the_rate() -> None:
    model = nn.Linear(5, 1)
    optimizer = torch.optim.SGD([model.weight], lr=0.1)
    auto = AutoLRS(model, optimizer, 1e-3, 0.1, **SHORT)
    rate = optimizer.param_groups[0]["lr"]
    optimizer.add_param_group({"params": [model.bias], "lr": rate / 2})
    auto.step(1.0)
    assert optimizer.param_groups[1]["lr"] == pytest.approx(optimizer.param_groups[0]["lr"] / 2)


def test_file_of_other_settings_is_refused(tmp_path) -> None:
    run(path=tmp_path / "run.auto")
    with pytest.raises(CheckpointMismatch, match="another explore"):
        run(path=tmp_path / "run.auto", explore=4)


def _worker(rank: int, port: int, queue: multiprocessing.Queue) -> None:
    store = torch.distributed.TCPStore("127.0.0.1", port, 2, rank == 0)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(nn.Linear(5, 1))
    optimizer = torch.optim.Adam(model.parameters())
    auto = AutoLRS(model, optimizer, 1e-4, 0.3, **SHORT)
    data = torch.randn(64, 5, generator=torch.Generator().manual_seed(rank))
    for X in auto.steps(data.split(16)):
        loss = (model(X) - X.sum(1, keepdim=True)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        auto.step(loss)
    decisions = [(c.rate, c.losses, c.forecast) for c in auto.candidates]
    queue.put((rank, decisions, auto.rates().tolist(), digest(model.state_dict())))
    torch.distributed.destroy_process_group()


def test_two_workers_agree_bitwise_on_every_decision(two_workers) -> None:
    found = two_workers(_worker)
    assert found[0][1:] == found[1][1:]
    assert len(found[0][1]) == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_replay_gives_kept_batches_again_and_comes_back_to_its_place(workers: int) -> None:
    replay = Replay(loader(workers), keep=10)
    torch.manual_seed(5)
    for _ in range(4):
        replay.next()
    replay.mark()
    first = [digest(replay.next()) for _ in range(9)]  # beyond the epoch's end
    replay.rewind()
    assert [digest(replay.next()) for _ in range(9)] == first
    state = replay.state_dict()
    later = [digest(replay.next()) for _ in range(12)]
    again = Replay(loader(workers), keep=10)
    again.load_state_dict(state)
    assert [digest(again.next()) for _ in range(12)] == later


def test_bad_input() -> None:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for low, high in ((0.0, 1.0), (-1.0, 1.0), (1.0, 0.1), (0.1, 0.1), (0.1, math.inf)):
        with pytest.raises(InvalidParameter, match="lr_min"):
            AutoLRS(model, optimizer, low, high, total_steps=10)
    for option in (
        {"explore": 0},
        {"explore": 2.5},
        {"total_steps": "10"},
        {"warmup_steps": 2.5},
        {"stage_steps": 1},
        {"explore_fraction": 0.0},
        {"max_stage_steps": 9},
    ):
        with pytest.raises(InvalidParameter, match=next(iter(option))):
            AutoLRS(model, optimizer, 0.1, 1.0, **{**SHORT, **option})
    auto = AutoLRS(model, optimizer, 0.1, 1.0, **SHORT)
    with pytest.raises(InvalidProblem, match="gives no batch"):
        next(auto.steps([]))
    with pytest.raises(InvalidProblem, match="once only"):
        next(auto.steps(iter([1])))
    with pytest.raises(InvalidProblem, match="Call step"):
        list(auto.steps([1]))
    finished = run()[2]
    with pytest.raises(InvalidProblem, match="All 120 training steps"):
        finished.step(0.1)


class TestGuard:
    """A rate that does well in its trial and kills the network later."""

    def run(self, tmp_path=None, deadly=0.02, stop=None, **options):
        """Each step takes its rate off a weight; beyond ten steps of a stage a deadly rate puts the loss back."""
        model = nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            model.weight.fill_(1.5)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        settings = {**SHORT, "explore": 5, **options}
        auto = AutoLRS(model, optimizer, 1e-3, 1e-1, path=tmp_path, **settings)
        for made, _ in enumerate(auto.steps([0])):
            if made == stop:
                break
            rate = optimizer.param_groups[0]["lr"]
            with torch.no_grad():
                model.weight -= 0.5 * rate
            killed = not auto.exploring and auto._count >= 10 and rate > deadly
            auto.step(2.5 if killed else float(model.weight.detach()))
        return auto, float(model.weight.detach())

    def test_goes_back_and_on_at_the_next_lower_rate_that_was_tried(self) -> None:
        auto, weight = self.run()
        assert auto.done
        first = [c.rate for c in auto.candidates if c.stage == 0]
        best = min((c for c in auto.candidates if c.stage == 0), key=lambda c: c.forecast).rate
        assert best > 0.02
        assert auto.stages[0].rate == max(rate for rate in first if rate <= 0.02)
        assert auto.explored > sum(len(c.losses) for c in auto.candidates)
        assert auto.rates().max() <= 0.02
        assert weight == pytest.approx(1.5 - 0.5 * auto.rates().sum(), abs=1e-5)

    def test_without_it_the_stage_stays_lost(self) -> None:
        auto, _ = self.run(guard=False)
        assert auto.stages[0].rate > 0.02
        assert auto.explored == sum(len(c.losses) for c in auto.candidates)

    def test_the_lowest_rate_is_gone_on_with(self) -> None:
        auto, _ = self.run(deadly=0.0)
        assert auto.done
        for i, stage in enumerate(auto.stages):
            assert stage.rate == min(c.rate for c in auto.candidates if c.stage == i)

    def test_losses_that_are_no_numbers_go_back_too(self) -> None:
        model = nn.Linear(1, 1, bias=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        auto = AutoLRS(model, optimizer, 1e-3, 1e-1, **{**SHORT, "explore": 5})
        for _ in auto.steps([0]):
            rate = optimizer.param_groups[0]["lr"]
            auto.step(math.nan if not auto.exploring and rate > 0.02 else 1.0 - rate)
        assert auto.done
        assert auto.rates().max() <= 0.02

    def test_a_run_that_went_back_is_resumed(self, tmp_path) -> None:
        whole, weight = self.run()
        self.run(tmp_path / "auto", stop=75)  # 50 steps of trials, 25 of a stage: it has gone back
        auto, again = self.run(tmp_path / "auto")
        assert (auto.stages, auto.explored, auto.trained) == (whole.stages, whole.explored, whole.trained)
        assert again == weight

    def test_no_flag_is_refused(self) -> None:
        with pytest.raises(InvalidParameter, match="AutoLRS needs guard True or False"):
            self.run(guard="yes")


@pytest.mark.parametrize("count", [3, 16, 40])
def test_drawing_ahead_leaves_global_streams_alone_and_gives_every_batch_once(count) -> None:
    def batches():
        for k in range(count):
            yield k, float(torch.rand(())), float(np.random.random())

    class Loader:
        def __iter__(self):
            return batches()

    torch.manual_seed(3)
    np.random.seed(3)
    alone = [*batches(), *batches()]
    torch.manual_seed(3)
    np.random.seed(3)
    replay = Replay(Loader(), keep=20)
    replay.mark()
    given = []
    for _ in range(2 * count):
        before = torch.get_rng_state()
        given.append(replay.next())
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(5)  # the model's own draws
    assert given == alone

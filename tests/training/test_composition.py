"""Each of our optimizers under each of our controllers and torch's schedulers, against rates set by hand."""

from __future__ import annotations

import io
import logging
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as torchs

from thalweg.training import (
    REX,
    ArmijoSGD,
    AutoLRS,
    GradientNormRecorder,
    GroupL2,
    Huber,
    LinearDecay,
    Lion,
    LionK,
    Lp,
    ProfileSchedule,
    PseudoHuber,
    RefinedSchedule,
    TargetSurrogate,
    ThresholdedL1,
    TopK,
    refine,
)

STEPS = 12
X = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True)

OPTIMIZERS = {
    "lion": lambda p, lr: Lion(p, lr=lr, weight_decay=0.1),
    "lion max_norm": lambda p, lr: Lion(p, lr=lr, max_norm=2.0, implicit_decay=True),
    "lion foreach": lambda p, lr: Lion(p, lr=lr, foreach=True),
    "lion bf16": lambda p, lr: Lion(p, lr=lr, momentum_dtype=torch.bfloat16),
    "lion-k lp": lambda p, lr: LionK(p, lr=lr, K=Lp(2), weight_decay=0.1),
    "lion-k groups": lambda p, lr: LionK(p, lr=lr, K=GroupL2()),
    "lion-k huber": lambda p, lr: LionK(p, lr=lr, K=Huber(0.1)),
    "lion-k smooth": lambda p, lr: LionK(p, lr=lr, K=PseudoHuber(0.1)),
    "lion-k sparse": lambda p, lr: LionK(p, lr=lr, K=ThresholdedL1(0.01)),
    "lion-k top": lambda p, lr: LionK(p, lr=lr, K=TopK(2)),
    "surrogate": lambda p, lr: TargetSurrogate(p, eta=lr, inner_steps=3),
    "surrogate sgd": lambda p, lr: TargetSurrogate(
        p, eta=lr, inner_steps=2, inner=lambda q: torch.optim.SGD(q, lr=1e-6)
    ),
}
REFINED = refine(np.linspace(3.0, 1.0, STEPS))
SCHEDULES = {
    "rex": lambda o: REX(o, STEPS),
    "warm-up": lambda o: REX(o, STEPS, warmup_steps=3, floor=0.1),
    "linear": lambda o: LinearDecay(o, STEPS),
    "cosine": lambda o: ProfileSchedule(o, STEPS, "cosine", sampling=4),
    "refined": lambda o: RefinedSchedule(o, STEPS, REFINED),
    "torch linear": lambda o: torchs.LinearLR(o, 0.25, total_iters=4),
    "torch cosine": lambda o: torchs.CosineAnnealingLR(o, STEPS),
    "torch step": lambda o: torchs.StepLR(o, 4),
    "torch lambda": lambda o: torchs.LambdaLR(o, lambda t: 1 / (1 + t)),
    "torch restarts": lambda o: torchs.CosineAnnealingWarmRestarts(o, 5),
    "torch one cycle": lambda o: torchs.OneCycleLR(o, 1e-2, total_steps=STEPS + 1, cycle_momentum=False),
    "torch plateau": lambda o: torchs.ReduceLROnPlateau(o, patience=1),
    "sequence": lambda o: torchs.SequentialLR(
        o, [torchs.LinearLR(o, 0.25, total_iters=4), REX(o, STEPS - 4)], [4]
    ),
    "sequence of ours": lambda o: torchs.SequentialLR(
        o, [LinearDecay(o, 6, floor=0.5), REX(o, STEPS - 6, warmup_steps=2)], [6]
    ),
    "chain": lambda o: torchs.ChainedScheduler([torchs.LinearLR(o, 0.25, total_iters=4), REX(o, STEPS)]),
    "chain ours first": lambda o: torchs.ChainedScheduler(
        [REX(o, STEPS, warmup_steps=2), torchs.ExponentialLR(o, 0.9)]
    ),
    "chain of ours": lambda o: torchs.ChainedScheduler([LinearDecay(o, STEPS), REX(o, 2 * STEPS)]),
}
#: Losses that a plateau is judged by: one and the same for all optimizers.
PLATEAU = [3.0, 2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1))


def parameters(model: nn.Module) -> list[dict[str, object]]:
    """Two groups, the second with another rate where an optimizer has rates for groups."""
    return [{"params": list(model[0].parameters())}, {"params": list(model[2].parameters())}]


def advance(model: nn.Module, optimizer, step: int) -> float:
    """One step in the way that the optimizer wants it."""
    rows = slice(16 * (step % 4), 16 * (step % 4) + 16)
    x, y = X[rows], Y[rows]
    if isinstance(optimizer, TargetSurrogate):
        return optimizer.step(lambda: model(x), lambda z: (z - y).square().mean())

    def closure():
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        return loss

    if isinstance(optimizer, ArmijoSGD):
        return float(optimizer.step(closure).detach())
    loss = closure()
    optimizer.step()
    return float(loss.detach())


def follow(schedule, step: int) -> None:
    schedule.step(*([PLATEAU[step]] if isinstance(schedule, torchs.ReduceLROnPlateau) else []))


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def rates_of(optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def expected_rates(schedule: str) -> np.ndarray:
    """What the schedule gives on torch's SGD, which nothing else touches; shape (steps, groups)."""
    optimizer = torch.optim.SGD(parameters(network()), lr=1e-2)
    made, found = SCHEDULES[schedule](optimizer), []
    for step in range(STEPS):
        found.append(rates_of(optimizer))
        optimizer.step()
        follow(made, step)
    return np.array(found)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_optimizer_under_a_schedule_is_one_with_rates_set_by_hand(optimizer: str, schedule: str) -> None:
    """Also through a checkpoint in the middle, which is read with ``weights_only``."""
    rates = expected_rates(schedule)
    model, plain = network(), network()
    ours = OPTIMIZERS[optimizer](parameters(model), 1e-2)
    made = SCHEDULES[schedule](ours)
    theirs = OPTIMIZERS[optimizer](parameters(plain), 1e-2)
    for step in range(STEPS):
        np.testing.assert_allclose(rates_of(ours), rates[step], rtol=1e-12, atol=1e-18)
        for group, rate in zip(theirs.param_groups, rates_of(ours), strict=True):
            group["lr"] = rate
        if rates[step].all() or not isinstance(ours, TargetSurrogate):
            advance(model, ours, step)
            advance(plain, theirs, step)
        assert torch.equal(weights(model), weights(plain))
        follow(made, step)
        if step == 5:
            file = io.BytesIO()
            torch.save((ours.state_dict(), made.state_dict()), file)
            file.seek(0)
            saved = torch.load(file, weights_only="lambda" not in schedule)
            ours = OPTIMIZERS[optimizer](parameters(model), 1e-2)
            made = SCHEDULES[schedule](ours)
            ours.load_state_dict(saved[0])
            made.load_state_dict(saved[1])


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, "armijo"])
def test_an_optimizer_under_auto_lrs_is_one_with_the_rates_that_it_found(optimizer: str) -> None:
    """Trials leave no trace in any of them, a schedule or recorder beside it included."""
    make = {**OPTIMIZERS, "armijo": lambda p, lr: ArmijoSGD(p, lr=lr)}[optimizer]
    model, plain = network(), network()
    ours, theirs = make(parameters(model), 1e-2), make(parameters(plain), 1e-2)
    overruled = LinearDecay(ours, 10**6)
    options = {"total_steps": 40, "stage_steps": 16, "max_stage_steps": 32, "explore": 2}
    auto = AutoLRS(model, ours, 1e-3, 3e-2, explore_fraction=0.5, **options)
    for step in auto.steps(range(4)):
        loss = advance(model, ours, step)
        overruled.step()
        auto.step(loss)
    assert auto.explored > 0
    for i, rate in enumerate(auto.rates()):
        for group in theirs.param_groups:
            group["lr"] = float(rate)
        advance(plain, theirs, i)
    assert torch.equal(weights(model), weights(plain))


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, "armijo"])
def test_a_recorder_leaves_an_optimizer_alone_and_sees_its_gradients(optimizer: str) -> None:
    make = {**OPTIMIZERS, "armijo": lambda p, lr: ArmijoSGD(p, lr=lr)}[optimizer]
    model, plain = network(), network()
    ours, theirs = make(parameters(model), 1e-2), make(parameters(plain), 1e-2)
    by_closure = isinstance(ours, ArmijoSGD | TargetSurrogate)
    recorder, seen = GradientNormRecorder(ours, attach=not by_closure), []
    for step in range(4):
        advance(model, ours, step)
        advance(plain, theirs, step)
        if by_closure:
            recorder.record()
        seen.append(float(torch.cat([p.grad.flatten() for p in plain.parameters()]).norm()))
    np.testing.assert_allclose(recorder.norms("l2"), seen, rtol=1e-5)
    assert torch.equal(weights(model), weights(plain))


@pytest.mark.parametrize("schedule", ["rex", "torch cosine", "sequence", "chain"])
def test_a_line_search_begins_where_a_schedule_says(schedule: str) -> None:
    """`ArmijoSGD` sets its own rate; a schedule scales it, and the loss falls all the same."""
    model = network()
    optimizer = ArmijoSGD(parameters(model), lr=1.0)
    made, losses = SCHEDULES[schedule](optimizer), []
    for step in range(STEPS):
        losses.append(advance(model, optimizer, 0))
        follow(made, step)
    assert (np.diff(losses) <= 0).all()
    assert losses[-1] < 0.5 * losses[0]


def test_a_plateau_and_a_chain_scale_what_is_left_to_them() -> None:
    optimizer = Lion(parameters(network()), lr=1.0)
    schedule = LinearDecay(optimizer, 10)
    plateau = torchs.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
    found = []
    for step in range(10):
        found.append(rates_of(optimizer)[0])
        optimizer.step()
        schedule.step()
        plateau.step(1.0 if step < 4 else 0.5)  # rises nowhere: halved while it does not fall
    halvings = np.cumsum([0, 0, 1, 1, 1, 0, 1, 1, 1, 1])
    np.testing.assert_allclose(found, 0.5**halvings * (1 - np.arange(10) / 10))


def _sharded(rank: int, port: int, queue) -> None:
    from torch.distributed.fsdp import fully_shard

    torch.set_num_threads(1)
    store = torch.distributed.TCPStore("127.0.0.1", port, 2, rank == 0)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=2)
    found = {}
    for name in ("lion", "lion bf16", "lion-k huber", "lion-k sparse"):
        model = network()
        fully_shard(model)
        found[name] = _trained(model, OPTIMIZERS[name])
    queue.put((rank, found))
    torch.distributed.destroy_process_group()


def _trained(model: nn.Module, make) -> list[list[float]]:
    """Weights, norms and rates after a chain of schedules, and after AutoLRS from there."""
    optimizer = make(list(model.parameters()), 1e-2)
    recorder = GradientNormRecorder(optimizer)
    chain = SCHEDULES["chain"](optimizer)
    for step in range(STEPS):
        advance(model, optimizer, step)
        chain.step()
    norms = [*recorder.norms("l1"), *recorder.norms("l2")]
    auto = AutoLRS(model, optimizer, 1e-3, 3e-2, total_steps=20, stage_steps=10, explore=2)
    for step in auto.steps(range(4)):
        auto.step(advance(model, optimizer, step))
    whole = [getattr(p, "full_tensor", lambda p=p: p)().detach().flatten() for p in model.parameters()]
    return [torch.cat(whole).tolist(), norms, auto.rates().tolist()]


def test_sharded_over_two_workers_they_train_as_on_one(two_workers) -> None:
    found = two_workers(_sharded)
    for name, sharded in found[0][1].items():
        alone = _trained(network(), OPTIMIZERS[name])
        assert sharded == found[1][1][name]
        for ours, theirs in zip(sharded, alone, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)


def test_eight_threads_train_as_one() -> None:
    """Networks of their own, with the passes over memory that all of them share."""

    def trained(seed: int) -> tuple[list[float], list[float]]:
        model = nn.Linear(5, 1)
        with torch.no_grad():
            model.weight.fill_(0.1 * seed)
            model.bias.fill_(0.0)
        optimizer = OPTIMIZERS["lion"](model.parameters(), 1e-2)
        recorder, schedule = GradientNormRecorder(optimizer), REX(optimizer, 30)
        for step in range(30):
            advance(model, optimizer, step)
            schedule.step()
        return weights(model).tolist(), recorder.norms("l2").tolist()

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(trained, range(8)))
    assert together == [trained(seed) for seed in range(8)]


class Regression(nn.Module):
    """A model as Hugging Face's Trainer wants it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = network()

    def forward(self, inputs=None, labels=None):
        out = self.net(inputs)
        return {"loss": (out - labels).square().mean(), "logits": out}


TRAINED = ("lion", "lion-k lp", "lion bf16")
AUTO = {"total_steps": 40, "stage_steps": 20, "max_stage_steps": 20, "explore": 2, "explore_fraction": 0.4}


@pytest.mark.parametrize("optimizer", TRAINED)
def test_hugging_faces_trainer(optimizer: str, tmp_path, monkeypatch) -> None:
    transformers = pytest.importorskip("transformers")
    from thalweg.training.transformers import AutoRate, GradientNorms

    # The folder tests/datasets, on the path here, is not the package of that name.
    monkeypatch.setattr("transformers.trainer.is_datasets_available", lambda: False)
    quiet = {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no"}

    def trainer(max_steps: int, schedule, *callbacks):
        arguments = transformers.TrainingArguments(
            str(tmp_path), max_steps=max_steps, per_device_train_batch_size=16, use_cpu=True, **quiet
        )
        model = Regression()
        made = OPTIMIZERS[optimizer](model.parameters(), 1e-2)
        rows = [{"inputs": x, "labels": y} for x, y in zip(X, Y, strict=True)]
        found = transformers.Trainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            callbacks=list(callbacks),
            optimizers=(made, SCHEDULES[schedule](made)),
        )
        found.train()
        return found

    norms = GradientNorms()
    done = trainer(STEPS - 1, "chain", norms)
    assert rates_of(done.optimizer)[0] == pytest.approx(expected_rates("chain")[-1, 0])
    assert len(norms.recorder.norms("l2")) == STEPS - 1
    rate = AutoRate(1e-4, 1e-1, **AUTO)
    trainer(1000, "rex", rate)
    assert rate.auto.done


@pytest.mark.parametrize("optimizer", TRAINED)
def test_lightnings_trainer(optimizer: str, tmp_path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pl = pytest.importorskip("lightning.pytorch")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        from thalweg.training.lightning import AutoRate, GradientNorms

        class Module(pl.LightningModule):
            def __init__(self, schedule: str | None) -> None:
                super().__init__()
                self.net, self.schedule, self.used = network(), schedule, []

            def training_step(self, batch, index):
                self.used.append(rates_of(self.optimizers())[0])
                return (self.net(batch[0]) - batch[1]).square().mean()

            def configure_optimizers(self):
                made = OPTIMIZERS[optimizer](self.net.parameters(), 1e-2)
                if self.schedule is None:
                    return made
                scheduler = {"scheduler": SCHEDULES[self.schedule](made), "interval": "step"}
                return {"optimizer": made, "lr_scheduler": scheduler}

        def fit(module, callback, **options):
            quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
            quiet |= {"enable_model_summary": False, "accelerator": "cpu", "devices": 1}
            batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=16)
            pl.Trainer(default_root_dir=tmp_path, callbacks=[callback], **quiet, **options).fit(
                module, batches
            )

        module, norms = Module("sequence"), GradientNorms()
        fit(module, norms, max_steps=STEPS)
        rate = AutoRate(1e-4, 1e-1, **AUTO)
        fit(Module(None), rate, max_epochs=-1)
    np.testing.assert_allclose(module.used, expected_rates("sequence")[:, 0], rtol=1e-12)
    assert len(norms.recorder.norms("l2")) == STEPS
    assert rate.auto.done

"""The callbacks inside the real Trainers of Lightning and of Hugging Face."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from thalweg.core import InvalidProblem
from thalweg.datasets import load_series

OPTIONS = {"total_steps": 60, "stage_steps": 20, "max_stage_steps": 40, "explore": 3, "explore_fraction": 0.4}
X = torch.randn(64, 5, generator=torch.Generator().manual_seed(0))
Y = X.sum(1, keepdim=True)


@pytest.fixture
def lightning(monkeypatch):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lightning.pytorch as pl

        yield pl


def lightning_module(pl, schedule: bool = False):
    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = nn.Linear(5, 1)
            self.seen: list[float] = []

        def training_step(self, batch, index):
            return (self.layer(batch[0]) - batch[1]).square().mean()

        def on_after_backward(self) -> None:
            self.seen.append(float(sum(p.grad.square().sum() for p in self.parameters()).sqrt()))

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.05)
            if schedule:
                return [optimizer], [torch.optim.lr_scheduler.ConstantLR(optimizer)]
            return optimizer

    return Module()


def fit(pl, module, callback, tmp_path, **options):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "devices": 1}
    trainer = pl.Trainer(default_root_dir=tmp_path, callbacks=[callback], **quiet, **options)
    trainer.fit(module, DataLoader(TensorDataset(X, Y), batch_size=16))
    return trainer


def test_lightning_records_norms_before_clipping(lightning, tmp_path) -> None:
    from thalweg.training.lightning import GradientNorms

    module, callback = lightning_module(lightning), GradientNorms(tmp_path / "norms.npz")
    fit(lightning, module, callback, tmp_path, max_steps=7, gradient_clip_val=0.01)
    np.testing.assert_allclose(callback.recorder.norms("l2"), module.seen, rtol=1e-5)
    np.testing.assert_allclose(load_series(tmp_path / "norms.npz", "l2"), module.seen, rtol=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_lightning_trains_with_auto_rate_and_stops(lightning, tmp_path, accumulate: int) -> None:
    from thalweg.training.lightning import AutoRate

    module = lightning_module(lightning)
    callback = AutoRate(
        1e-4,
        0.5,
        validate=lambda m: float((m.layer(X) - Y).square().mean()),
        **OPTIONS,
    )
    trainer = fit(lightning, module, callback, tmp_path, max_epochs=-1, accumulate_grad_batches=accumulate)
    assert callback.auto.done
    assert [s.steps for s in callback.auto.stages] == [20, 40]
    assert trainer.global_step >= 60 + callback.auto.explored
    assert float((module.layer(X) - Y).square().mean().detach()) < 0.1


def test_lightning_with_a_schedule_is_refused(lightning, tmp_path) -> None:
    from thalweg.training.lightning import AutoRate

    with pytest.raises(InvalidProblem, match="leave the schedule out"):
        fit(
            lightning,
            lightning_module(lightning, True),
            AutoRate(1e-4, 0.5, **OPTIONS),
            tmp_path,
            max_steps=5,
        )


@pytest.fixture
def transformers(monkeypatch):
    import transformers

    # The folder tests/datasets, on the path here, is not the package of that name.
    monkeypatch.setattr("transformers.trainer.is_datasets_available", lambda: False)
    return transformers


class Regression(nn.Module):
    """A model as the Trainer wants it: keyword arguments in, a dict with the loss out."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(5, 1)

    def forward(self, inputs=None, labels=None):
        out = self.layer(inputs)
        return {"loss": (out - labels).square().mean(), "logits": out}


def hugging_face(transformers, callbacks, tmp_path, max_steps: int, **options):
    rows = [{"inputs": x, "labels": y} for x, y in zip(X, Y, strict=True)]
    quiet = {
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "logging_strategy": "no",
        "use_cpu": True,
    }
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=max_steps,
        per_device_train_batch_size=16,
        learning_rate=0.05,
        lr_scheduler_type="constant",
        **quiet,
        **options,
    )
    trainer = transformers.Trainer(
        model=Regression(), args=arguments, train_dataset=rows, callbacks=callbacks
    )
    trainer.train()
    return trainer


def test_hugging_face_records_norms(transformers, tmp_path) -> None:
    from thalweg.training.transformers import GradientNorms

    seen: list[float] = []

    class Watch(transformers.TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **parts):
            seen.append(float(sum(p.grad.square().sum() for p in model.parameters()).sqrt()))

    callbacks = [GradientNorms(tmp_path / "norms.csv"), Watch()]
    hugging_face(transformers, callbacks, tmp_path, 5, max_grad_norm=0.0)
    np.testing.assert_allclose(load_series(tmp_path / "norms.csv", "l2"), seen, rtol=1e-5)
    assert len(seen) == 5


@pytest.mark.parametrize("accumulate", [1, 2])
def test_hugging_face_trains_with_auto_rate_and_stops(transformers, tmp_path, accumulate: int) -> None:
    from thalweg.training.transformers import AutoRate

    callback = AutoRate(1e-4, 0.5, validate=lambda m: float(m(X, Y)["loss"]), **OPTIONS)
    trainer = hugging_face(transformers, [callback], tmp_path, 1000, gradient_accumulation_steps=accumulate)
    assert callback.auto.done
    assert trainer.state.global_step == 60 + callback.auto.explored
    for stage in (0, 1):
        assert len({c.rate for c in callback.auto.candidates if c.stage == stage}) == 3
    assert float(trainer.model(X, Y)["loss"].detach()) < 0.1


def test_hugging_face_rate_is_the_chosen_one_in_every_step(transformers, tmp_path) -> None:
    from thalweg.training.transformers import AutoRate

    used: list[float] = []

    class Watched(AutoRate):
        def on_pre_optimizer_step(self, args, state, control, optimizer=None, **parts):
            if not self.auto.exploring:
                used.append(optimizer.param_groups[0]["lr"])

    callback = Watched(1e-4, 0.5, **OPTIONS)
    hugging_face(transformers, [callback], tmp_path, 1000)
    np.testing.assert_allclose(used, callback.auto.rates())

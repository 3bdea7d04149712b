"""The scikit-learn classifier, and the callback for Lightning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.utils.estimator_checks import check_estimator
from torch import nn

from thalweg.adaptation import EPO, MGDA, AdaptedClassifier, FixedWeights, PreferenceLP
from thalweg.core import InvalidProblem, NotFinite


def test_it_keeps_scikit_learns_contract():
    check_estimator(AdaptedClassifier(steps=30))


@pytest.fixture
def sensors(rng):
    y = np.arange(300) % 2
    X = rng.standard_normal((300, 4)) + 2.0 * y[:, None] * np.array([1.0, 1.0, 0.0, 0.0])
    turned = X @ np.linalg.qr(rng.standard_normal((4, 4)))[0] * 0.4 + X * np.array([2.0, 0.5, 1.0, 1.0]) + 3.0
    return X, y, turned


def test_it_adapts_to_shifted_sensors(sensors):
    X, y, turned = sensors
    plain = AdaptedClassifier(steps=200).fit(X, y).score(turned, y)
    adapted = AdaptedClassifier(steps=300).fit(X, y, X_target=turned)
    assert adapted.score(turned, y) > plain + 0.1
    assert 0 <= adapted.doubt_ <= 1


def test_equal_seeds_give_equal_answers(sensors):
    X, y, turned = sensors
    a, b = (AdaptedClassifier(steps=30).fit(X, y, turned).predict_proba(turned) for _ in range(2))
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_the_unit_of_the_table_does_not_count(sensors, unit):
    X, y, turned = sensors
    one = AdaptedClassifier(steps=30).fit(X, y, turned).predict_proba(turned)
    other = AdaptedClassifier(steps=30).fit(X * unit, y, turned * unit).predict_proba(turned * unit)
    np.testing.assert_allclose(other, one, atol=1e-5)


def test_a_constant_column_is_not_measured_in_rounding(sensors):
    X, y, turned = sensors
    X, turned = (np.column_stack([table, np.full(len(table), 0.1)]) for table in (X, turned))
    fitted = AdaptedClassifier(steps=30).fit(X, y, turned)
    moved = turned.copy()
    moved[:, -1] += 1e-9
    np.testing.assert_allclose(fitted.predict_proba(moved), fitted.predict_proba(turned), atol=1e-5)


def test_bad_targets_are_refused(sensors):
    X, y, turned = sensors
    with pytest.raises(InvalidProblem, match="columns of X"):
        AdaptedClassifier().fit(X, y, turned[:, :2])
    with pytest.raises(NotFinite, match="X_target holds 300 NaN"):
        AdaptedClassifier().fit(X, y, turned * np.array([1.0, np.nan, 1.0, 1.0]))
    with pytest.raises(InvalidProblem, match="a tenth is held out"):
        AdaptedClassifier().fit(X, y, turned[:3])


def test_a_lightning_module_is_trained_along_the_combined_gradient():
    lightning = pytest.importorskip("lightning.pytorch")
    from thalweg.adaptation.lightning import CombinedGradients

    class Two(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body, self.heads = nn.Linear(4, 3), nn.Linear(3, 2)

        def training_step(self, batch, index):
            self.objectives = list((self.heads(self.body(batch[0])) - batch[1]).square().mean(0))
            return sum(self.objectives)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    X, y = torch.randn(8, 4), torch.randn(8, 2)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, y), batch_size=8)
    module, plain = Two(), Two()
    callback = CombinedGradients(MGDA(), lambda m: m.body.parameters())

    def trainer(*callbacks):
        return lightning.Trainer(
            max_steps=1,
            callbacks=list(callbacks),
            logger=False,
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )

    trainer(callback).fit(module, loader)
    losses = list((plain.heads(plain.body(X)) - y).square().mean(0))
    total = sum(2 * float(a) * loss for a, loss in zip(callback.last.weights, losses, strict=True))
    (body,) = torch.autograd.grad(total, [plain.body.weight], retain_graph=True)
    (head,) = torch.autograd.grad(sum(losses), [plain.heads.weight])
    torch.testing.assert_close(module.body.weight, plain.body.weight - 0.1 * body)
    torch.testing.assert_close(module.heads.weight, plain.heads.weight - 0.1 * head)
    with pytest.raises(InvalidProblem, match="needs c = G g"):
        trainer(CombinedGradients(PreferenceLP(), lambda m: m.body.parameters())).fit(Two(), loader)


def test_complex_numbers_are_refused_whose_imaginary_part_would_be_lost():
    X, y = np.random.default_rng(0).standard_normal((40, 3)), np.arange(40) % 2
    with pytest.raises(InvalidProblem, match="X_target is complex"):
        AdaptedClassifier().fit(X, y, X_target=X * (1 + 1j))
    with pytest.raises(InvalidProblem, match="FixedWeights is complex"):
        FixedWeights((1 + 1j, 1.0))
    with pytest.raises(InvalidProblem, match="EPO's ray is complex"):
        EPO((1 + 1j, 1.0))

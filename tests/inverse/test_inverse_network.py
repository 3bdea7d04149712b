"""The network, its training and its file; models of diffusers; phantoms."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from thalweg import Checkpoint, Stop, solve
from thalweg.core import (
    InvalidParameter,
    InvalidProblem,
    MissingExtra,
    NotFinite,
    UnknownName,
    UnreadableFile,
)
from thalweg.inverse import (
    DDS,
    DenoiserLearning,
    DiffusersDenoiser,
    EMATraining,
    GaussianPrior,
    Inpainting,
    InverseProblem,
    PseudoInverse,
    Radon,
    Schedule,
    UNet,
    load_diffusers,
    load_unet,
    peak_signal_noise_ratio,
    pretrained_unet,
    save_unet,
    train_unet,
)
from thalweg.inverse.phantoms import birdcage, ellipses, ellipsoids, photo_patches, shepp_logan
from thalweg.inverse.unet import PRETRAINED
from thalweg.inverse.unet_training import RECIPE


def small(seed=0, **options):
    torch.manual_seed(seed)
    return UNet(widths=(4, 8), **options)


def learning(seed=0):
    return DenoiserLearning(lambda count, name: ellipses(count, 8, name), batch=4, seed=seed)


def test_a_resumed_training_has_the_same_bits(tmp_path):
    stop = Stop(steps=7)
    whole = solve(learning(), EMATraining(small(), steps=7), stop=stop)
    saved = [Checkpoint(tmp_path / "run", every=3)]
    solve(learning(), EMATraining(small(), steps=7), stop=Stop(steps=3), callbacks=saved)
    resumed = solve(learning(), EMATraining(small(), steps=7), stop=stop, resume=tmp_path / "run")
    for name, value in whole.x.state_dict().items():
        assert torch.equal(value, resumed.x.state_dict()[name]), name


def test_the_answer_is_the_moving_average_of_the_weights():
    network = small()
    problem, method = learning(), EMATraining(network, steps=20, decay=0.5)
    state = method.init(problem, 0)
    average = [p.detach().clone() for p in network.parameters()]
    for t in range(6):
        state = method.step(problem, state)
        keep = min(0.5, (1 + t) / (10 + t))
        average = [
            keep * a + (1 - keep) * p.detach() for a, p in zip(average, network.parameters(), strict=True)
        ]
    for a, p in zip(average, state.x.parameters(), strict=True):
        torch.testing.assert_close(a, p)


def test_training_lowers_the_held_out_loss():
    network = small()
    before = learning().metrics(network)["loss"]
    after = solve(learning(), EMATraining(network, steps=60), stop=Stop(steps=60)).metrics["loss"]
    assert after < 0.95 * before


def test_the_loss_is_that_of_v():
    network, problem = small().double(), learning()
    x0, z, t = problem.drawn(3)
    signal, noise = (
        torch.as_tensor(level)[t][:, None, None, None]
        for level in (network.schedule.signal, network.schedule.noise)
    )
    eps = network(signal * x0 + noise * z, t)
    wanted = (((eps - z) / signal) ** 2).mean()  # v - v_true = (eps - z) / signal
    torch.testing.assert_close(problem.loss(network, (x0, z, t)), wanted, rtol=1e-4, atol=1e-6)


def test_batches_depend_on_seed_and_number_alone():
    one, other = learning(), learning(1)
    for a, b in zip(one.drawn(5), learning().drawn(5), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.drawn(5)[1], one.drawn(6)[1])
    assert not torch.equal(one.drawn(5)[1], other.drawn(5)[1])


@pytest.mark.parametrize("schedule", [Schedule.linear(), Schedule.cosine(100), Schedule.exploding(50)])
def test_a_file_gives_the_network_back(schedule, tmp_path):
    network = small(schedule=schedule, channels=2).eval()
    torch.nn.init.normal_(network.last.weight)
    save_unet(tmp_path / "net.safetensors", network, {"why": "test"})
    again = load_unet(tmp_path / "net.safetensors")
    x, t = torch.randn(2, 2, 8, 8), torch.tensor([0, schedule.length - 1])
    assert torch.equal(network(x, t), again(x, t))
    assert again.schedule.length == schedule.length
    np.testing.assert_array_equal(again.schedule.noise, schedule.noise)


def test_the_shipped_network_is_small_whole_and_says_its_recipe():
    from importlib import resources

    from safetensors import safe_open

    name, checksum, _ = PRETRAINED["ellipses"]
    with resources.as_file(resources.files("thalweg.inverse") / "pretrained" / name) as path:
        content = path.read_bytes()
        with safe_open(path, framework="pt") as file:
            about = file.metadata()
    assert len(content) <= 1_000_000
    assert hashlib.sha256(content).hexdigest() == checksum
    assert '"steps": 6000' in about["recipe"]
    assert RECIPE["steps"] == 6000


def test_the_shipped_network_is_worth_more_than_no_prior():
    x = ellipses(4, 32, (77, 1))
    A = Radon(32, 8)
    y = A.A(x)
    ours = DDS(pretrained_unet(), A, steps=20).solve(y)
    assert ours.converged
    assert (
        peak_signal_noise_ratio(ours.x, x)
        > peak_signal_noise_ratio(solve(InverseProblem(A, y), PseudoInverse()).x, x) + 3
    )


def test_a_network_of_two_channels_takes_complex_images():
    A = Inpainting(np.ones((8, 8)))
    assert DDS(small(), A, steps=2).solve(ellipses(1, 8)).x.dtype == torch.float64
    from thalweg.inverse import MaskedFFT

    F = MaskedFFT(np.ones((8, 8)))
    x = torch.complex(ellipses(1, 8), ellipses(1, 8, 1))
    torch.testing.assert_close(DDS(small(channels=2), F, steps=2).solve(F.A(x)).x, x, atol=1e-6, rtol=0)


def test_a_model_of_diffusers_answers_as_it_does_there(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    ).eval()
    scheduler = diffusers.DDPMScheduler(
        200, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"
    )
    model.save_pretrained(tmp_path / "unet")
    scheduler.save_pretrained(tmp_path / "scheduler")
    ours = load_diffusers(tmp_path)
    np.testing.assert_allclose(ours.schedule.signal**2, scheduler.alphas_cumprod.numpy(), rtol=1e-6)
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([150, 150])
    with torch.no_grad():
        said = model(x, t).sample
        signal, noise = ours.schedule.levels(150)
        x0 = scheduler.step(said, 150, x).pred_original_sample.clamp(-1, 1)
        mine = ((x - noise * ours(x, t)) / signal).clamp(-1, 1)
    torch.testing.assert_close(mine, x0, rtol=1e-4, atol=1e-4)
    A = Radon(8, 3)
    result = DDS(ours, A, steps=3).solve(A.A(ellipses(2, 8)))
    assert result.x.shape == (2, 8, 8)
    (tmp_path / "unet" / "config.json").unlink()
    with pytest.raises(UnreadableFile, match=r"holds no config\.json; expected a model of diffusers"):
        load_diffusers(tmp_path)


@pytest.mark.parametrize("name", ["DDPMScheduler", "DDIMScheduler", "ScoreSdeVeScheduler"])
def test_schedules_are_read_from_diffusers(name):
    diffusers = pytest.importorskip("diffusers")
    scheduler = getattr(diffusers, name)(num_train_timesteps=100)
    schedule = Schedule.from_diffusers(scheduler)
    assert schedule.length == 100
    assert schedule.explodes == (name == "ScoreSdeVeScheduler")


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_every_kind_of_prediction_gives_the_same_noise(kind):
    prior = GaussianPrior(np.zeros((4, 4)), np.eye(16))

    class Model(torch.nn.Module):
        def forward(self, x, t):
            signal, noise = prior.schedule.levels(int(t[0]))
            eps = prior(x, t)
            said = {
                "epsilon": eps,
                "sample": (x - noise * eps) / signal,
                "v_prediction": (eps - noise * x) / signal,
            }[kind]
            return type("Output", (), {"sample": said})()

    x, t = torch.randn(2, 1, 4, 4).double(), torch.tensor([400, 400])
    found = DiffusersDenoiser(Model(), prior.schedule, kind)(x, t)
    torch.testing.assert_close(found, prior(x, t))


def test_diffusers_is_named_where_it_is_absent(monkeypatch, tmp_path):
    import builtins

    true_import = builtins.__import__

    def without(name, *rest, **more):
        if name == "diffusers":
            raise ImportError(name)
        return true_import(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"thalweg\[diffusion\]"):
        load_diffusers(tmp_path)


def test_phantoms_are_repeatable_and_in_their_range():
    for made in (ellipses(3, 24, 5), ellipsoids(5, 24, 5), shepp_logan(24), photo_patches(3, 24, 5)):
        assert made.dtype == torch.float64
        assert float(made.abs().max()) <= 1
    assert torch.equal(ellipses(3, 24, 5), ellipses(3, 24, 5))
    assert not torch.equal(ellipses(3, 24, 5), ellipses(3, 24, 6))
    steps = ellipsoids(12, 24).diff(dim=0).abs().mean()
    assert float(steps) < 0.3 * float((ellipses(12, 24) - ellipses(12, 24, 1)).abs().mean())
    torch.testing.assert_close(birdcage(3, 9).abs().square().sum(0), torch.ones(9, 9).double())


def test_bad_training_is_refused(tmp_path):
    (tmp_path / "no.safetensors").write_bytes(b"nothing")
    nan = torch.full((2, 1, 8, 8), float("nan"))
    cases = [
        (lambda: DenoiserLearning(torch.zeros(3)), InvalidProblem, "images have shape"),
        (
            lambda: DenoiserLearning(torch.zeros(3, 8, 8, dtype=torch.int64)),
            InvalidProblem,
            "expected real numbers",
        ),
        (lambda: DenoiserLearning(nan), NotFinite, "NaN or infinity"),
        (lambda: EMATraining(small(), decay=1.0), InvalidParameter, "decay < 1"),
        (lambda: EMATraining(small(), step_size=0.0), InvalidParameter, "step_size > 0"),
        (
            lambda: EMATraining(small(schedule=Schedule.cosine())).init(learning(), 0),
            InvalidProblem,
            "another schedule",
        ),
        (lambda: UNet(widths=()), InvalidParameter, "widths >= 1"),
        (lambda: small()(torch.zeros(1, 1, 7, 8), torch.tensor([0])), InvalidProblem, "multiples of 2"),
        (lambda: load_unet(tmp_path / "no.safetensors"), UnreadableFile, "save_unet"),
        (lambda: pretrained_unet("ellipsis"), UnknownName, "Did you mean 'ellipses'"),
        (lambda: train_unet("cats"), InvalidParameter, "ellipses, photographs"),
        (lambda: Schedule.from_diffusers(object()), InvalidProblem, "neither alphas_cumprod"),
        (lambda: photo_patches(1, 4000), InvalidProblem, "side <="),
        (
            lambda: DiffusersDenoiser(torch.nn.Identity(), Schedule.linear(), "noise"),
            InvalidProblem,
            "expected epsilon",
        ),
    ]
    for make, kind, words in cases:
        with pytest.raises(kind, match=words):
            make()

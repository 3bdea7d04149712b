"""Training of denoisers, with a moving average of the weights; the recipe of the shipped one.

Ho, Jain and Abbeel (2020), "Denoising diffusion probabilistic models", algorithm 1; the loss is that of v.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from thalweg.core import InvalidProblem, Method, NotFinite, Problem, Result, State, Stop, solve
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, is_whole, require
from thalweg.inverse.familiarity import denoising_error
from thalweg.inverse.phantoms import ellipses, photo_patches
from thalweg.inverse.schedules import Schedule
from thalweg.inverse.unet import UNet

#: Batches held out for the final loss.
HELD_OUT = 4
#: Images on which a trained denoiser's usual error is measured.
KNOWN = 64
#: Steps over which the learning rate rises.
RISE = 100

#: Makes ``count`` images of the stream of random numbers named by integers.
Source = Callable[[int, tuple[int, ...]], Tensor]


@dataclass(frozen=True, eq=False)
class DenoiserLearning(Problem):
    """Learn to tell noise from images: ``min mean |v - (signal z - noise x0)|^2`` over images, times and noise.

    Args:
        images: shape (count, channels, height, width), or (count, height, width) for one channel, about in [-1, 1]; or
            a function of a count and a tuple of integers (the seed) that makes them.
        schedule: of the noise. Default `Schedule.linear`.
        batch: images a step. Default 32.
        seed: batch t depends on the seed and t alone.

    Metrics: ``loss`` on held-out noise (and held-out images, where a function makes them); 1 is about no help at all
    for images of unit size.

    Raises:
        InvalidProblem: images of another shape, none, or not finite.

    >>> learning = DenoiserLearning(lambda count, seed: ellipses(count, 8, seed), batch=4)
    >>> [part.shape for part in learning.drawn(0)]
    [torch.Size([4, 1, 8, 8]), torch.Size([4, 1, 8, 8]), torch.Size([4])]
    """

    images: Tensor | Source
    schedule: Schedule = field(default_factory=Schedule.linear)
    batch: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        require(is_whole(self.batch) and self.batch >= 1, "DenoiserLearning needs batch >= 1", got=self.batch)
        require(is_whole(self.seed) and self.seed >= 0, "DenoiserLearning needs seed >= 0", got=self.seed)
        if not callable(self.images):
            object.__setattr__(self, "images", _images(self.images))

    def drawn(self, t: int) -> tuple[Tensor, Tensor, Tensor]:
        """Images, noise and times of batch t; negative numbers are the held-out ones."""
        name = (self.seed, *((1, -t) if t < 0 else (0, t)))
        rng = generator(*name)
        if callable(self.images):
            x0 = _images(self.images(self.batch, name))
        else:
            x0 = self.images[torch.from_numpy(rng.integers(len(self.images), size=self.batch))]
        z = torch.from_numpy(rng.standard_normal(x0.shape)).to(x0.dtype)
        share = (rng.permutation(self.batch) + rng.random(self.batch)) / self.batch
        share = share**1.5  # small noise more often: there the details of an image are settled
        return x0, z, torch.from_numpy((share * self.schedule.length).astype(int))

    def loss(self, network: UNet, drawn: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Of the network's v on a batch."""
        parameter = next(network.parameters())
        x0, z = (part.to(parameter.device, parameter.dtype) for part in drawn[:2])
        t = drawn[2].to(parameter.device)
        signal, noise = network.levels[:, t][:, :, None, None, None]  # type: ignore[index]
        size = (signal**2 + noise**2).sqrt()
        v = (signal * z - noise * x0) / size
        return (network.velocity((signal * x0 + noise * z) / size, t) - v).square().mean()

    def metrics(self, x: UNet) -> dict[str, float]:
        """Judge a denoiser."""
        with torch.no_grad():
            losses = [self.loss(x, self.drawn(-k)) for k in range(1, 1 + HELD_OUT)]
        return {"loss": float(torch.stack(losses).mean())}


def _images(images: Tensor) -> Tensor:
    found = torch.as_tensor(images)
    found = found[:, None] if found.ndim == 3 else found
    if found.ndim != 4 or not found.numel() or not found.is_floating_point():
        raise InvalidProblem(
            f"DenoiserLearning: images have shape {tuple(found.shape)} of {found.dtype}; expected real numbers, "
            "(count, channels, height, width) or (count, height, width)."
        )
    if not bool(torch.isfinite(found).all()):
        raise NotFinite(
            "DenoiserLearning: images hold NaN or infinity. Remove or impute them before training."
        )
    return found


@dataclass(kw_only=True)
class DenoiserTrainingState(State):
    """``x`` is the average of the networks, ``network`` the one that is trained."""

    network: UNet
    optimizer: torch.optim.Adam
    t: int = 0


@dataclass(frozen=True, eq=False)
class EMATraining(Method[DenoiserLearning, DenoiserTrainingState]):
    """Adam on fresh batches; the answer is the moving average of the weights.

    Args:
        network: trained in place, on the device where it is. Its schedule must be the problem's.
        steps: of the schedule: the rate rises over a hundred steps and falls to a hundredth along a cosine.
        step_size: the largest; default 2e-3.
        decay: of the average, in [0, 1); default 0.995. It begins lower, at ``(1 + t) / (10 + t)``.
        clip: largest norm of a gradient; default 1.

    A run that is saved and resumed has the same bits as one that was never stopped.

    Raises:
        InvalidProblem: the network has another schedule. NotFinite: the loss is not a number.

    Cost per step: three evaluations of the network on a batch; memory for four networks.

    >>> network = UNet(widths=(4, 8))
    >>> learning = DenoiserLearning(lambda count, seed: ellipses(count, 8, seed), batch=4)
    >>> solve(learning, EMATraining(network, steps=2), stop=Stop(steps=2)).steps
    2
    """

    in_place: ClassVar[bool] = True

    network: UNet
    steps: int = 3000
    step_size: float = 2e-3
    decay: float = 0.995
    clip: float = 1.0

    def __post_init__(self) -> None:
        require(is_whole(self.steps) and self.steps >= 1, "EMATraining needs steps >= 1", got=self.steps)
        for name in ("step_size", "clip"):
            value = getattr(self, name)
            require(is_real(value) and 0 < value < math.inf, f"EMATraining needs {name} > 0", got=value)
        require(
            is_real(self.decay) and 0 <= self.decay < 1, "EMATraining needs 0 <= decay < 1", got=self.decay
        )

    def init(self, problem: DenoiserLearning, seed: int) -> DenoiserTrainingState:
        mine, wanted = self.network.schedule, problem.schedule
        alike = mine.length == wanted.length and np.array_equal(mine.noise, wanted.noise)
        require(alike, "EMATraining: the network has another schedule than the problem", error=InvalidProblem)
        network = self.network.train().requires_grad_(True)
        network.usual_error = None  # of the images that it had learned before
        adam = torch.optim.Adam(network.parameters(), self.step_size)
        average = copy.deepcopy(network).eval().requires_grad_(False)
        return DenoiserTrainingState(x=average, network=network, optimizer=adam)

    def step(self, problem: DenoiserLearning, state: DenoiserTrainingState) -> DenoiserTrainingState:
        network, adam, t = state.network, state.optimizer, state.t
        fall = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, t / self.steps)))
        adam.param_groups[0]["lr"] = self.step_size * min(1.0, (t + 1) / RISE) * fall
        loss = problem.loss(network, problem.drawn(t))
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NotFinite(f"The loss is {value} at step {t}; try a smaller step_size.")
        adam.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), self.clip)
        adam.step()
        keep = min(self.decay, (1 + t) / (10 + t))
        with torch.no_grad():
            mine = [p.detach() for p in network.parameters()]
            torch._foreach_lerp_(list(state.x.parameters()), mine, 1 - keep)
        state.t, state.metrics = t + 1, {"loss": value}
        return state


#: How the shipped denoiser was made: images a step, steps, and the size of the images.
RECIPE = {"function": "train_unet", "images": "ellipses", "side": 32, "batch": 32, "steps": 6000, "seed": 0}
SOURCES: dict[str, Callable[..., Tensor]] = {"ellipses": ellipses, "photographs": photo_patches}


def train_unet(
    images: str = "ellipses",
    *,
    side: int = 32,
    steps: int = 6000,
    batch: int = 32,
    seed: int = 0,
    network: UNet | None = None,
    **options: Any,  # noqa: ANN401 -- passed on to solve
) -> Result[UNet]:
    """Train a denoiser from scratch: the recipe of the shipped one, with its defaults.

    Args:
        images: ``"ellipses"``, or ``"photographs"``: patches of the two that scikit-learn brings.
        side: of the images; default 32.
        steps, batch: default 6 000 of 32 images: half an hour on one core.
        seed: of the weights and of all batches.
        network: trained in place; a new `UNet` by default.
        options: of `solve`: ``callbacks``, ``stop``, ``resume``, ``progress``.

    The network's ``usual_error`` is set, see `UNet`. For images of your own, `solve` a `DenoiserLearning` by
    `EMATraining`; `save_unet` keeps what comes out.

    >>> train_unet(side=8, steps=2, batch=2, network=UNet(widths=(4, 8))).steps
    2
    """
    require(images in SOURCES, f"train_unet: images is one of {', '.join(SOURCES)}", got=images)
    if network is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = UNet()
    made = functools.partial(_made, SOURCES[images], side)
    problem = DenoiserLearning(made, network.schedule, batch, seed)
    options = {"stop": Stop(steps=steps), **options}
    found = solve(problem, EMATraining(network, steps), seed=seed, **options)
    unseen = _images(made(KNOWN, (seed, 2))).float()
    found.x.usual_error = float(denoising_error(found.x, unseen).mean())
    return found


def _made(source: Callable[..., Tensor], side: int, count: int, seed: tuple[int, ...]) -> Tensor:
    return source(count, side, seed)

"""What can tell the noise in an image: functions, networks, models of diffusers, scores; and how they are asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn

from thalweg.core import InvalidProblem, MissingExtra, NotFinite, UnreadableFile
from thalweg.inverse.operators.base import Operator
from thalweg.inverse.schedules import Schedule

#: ``eps(x, t)``: the noise in real images of shape (batch, channels, height, width) at times of shape (batch,).
Denoiser = Callable[[Tensor, Tensor], Tensor]
Prediction = Literal["epsilon", "v_prediction", "sample"]
#: Images that a denoiser sees at once, at most.
AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class ScoreDenoiser:
    """A network that gives scores, as a denoiser: ``eps = -noise_t score(x, noise_t)``.

    Args:
        score: of images and noise levels, shape (batch,); the gradient of the logarithm of the density.
        schedule: `Schedule.exploding` as the network was trained.

    >>> unit = ScoreDenoiser(lambda x, noise: -x / (1 + noise**2)[:, None, None, None], Schedule.exploding(10))
    >>> unit(torch.ones(1, 1, 1, 1), torch.tensor([9])).round(decimals=4)
    tensor([[[[0.0200]]]])
    """

    score: Callable[[Tensor, Tensor], Tensor]
    schedule: Schedule

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        noise = torch.as_tensor(self.schedule.noise)[t.cpu()].to(x)
        return -noise[:, None, None, None] * self.score(x, noise)


class DiffusersDenoiser(nn.Module):
    """A ``UNet2DModel`` of diffusers as a denoiser, whatever it was trained to predict.

    Args:
        model: called as ``model(x, t).sample``.
        schedule: of the noise; `Schedule.from_diffusers` reads a scheduler's.
        prediction: ``"epsilon"``, ``"v_prediction"`` or ``"sample"``. Of an exploding schedule the model gives scores.

    `load_diffusers` makes one of a folder.

    Raises:
        InvalidProblem: an unknown kind of prediction.
    """

    def __init__(self, model: nn.Module, schedule: Schedule, prediction: Prediction = "epsilon") -> None:
        super().__init__()
        if prediction not in ("epsilon", "v_prediction", "sample"):
            raise InvalidProblem(
                f"DiffusersDenoiser: the model predicts {prediction!r}; expected epsilon, v_prediction or sample."
            )
        self.model, self.schedule, self.prediction = model, schedule, prediction
        self.channels: int | None = getattr(getattr(model, "config", None), "in_channels", None)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        signal, noise = (
            torch.as_tensor(level)[t.cpu()].to(x)[:, None, None, None]
            for level in (self.schedule.signal, self.schedule.noise)
        )
        if self.schedule.explodes:
            return -noise * cast(Tensor, self.model(x, noise[:, 0, 0, 0]).sample)[:, : x.shape[1]]
        found: Tensor = self.model(x, t).sample[:, : x.shape[1]]
        if self.prediction == "v_prediction":
            return signal * found + noise * x
        return found if self.prediction == "epsilon" else (x - signal * found) / noise


def load_diffusers(folder: str | Path, device: str | torch.device = "cpu") -> DiffusersDenoiser:
    """The denoiser in a folder of diffusers: ``unet/`` and ``scheduler/``, or a model with its scheduler beside.

    Nothing is fetched: the folder is on this machine.

    Raises:
        MissingExtra: diffusers is not installed. UnreadableFile: the folder lacks a part.
    """
    try:
        import diffusers
    except ImportError:
        raise MissingExtra("diffusers", "diffusion") from None
    path = Path(folder)
    nested = (path / "unet" / "config.json").is_file()
    model, scheduler = (path / "unet" if nested else path), (path / "scheduler" if nested else path)
    for place, file in ((model, "config.json"), (scheduler, "scheduler_config.json")):
        if not (place / file).is_file():
            raise UnreadableFile(
                f"{folder} holds no {(place / file).relative_to(path)}; expected a model of diffusers."
            )
    try:
        config = diffusers.DDPMScheduler.load_config(scheduler)
        kind = getattr(diffusers, config.get("_class_name", "DDPMScheduler"))
        levels = kind.from_config(config)
        network = diffusers.UNet2DModel.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise UnreadableFile(
            f"{folder} is no model of diffusers: {' '.join(str(error).split())[:200]}"
        ) from error
    prediction = config.get("prediction_type", "epsilon")
    found = DiffusersDenoiser(network, Schedule.from_diffusers(levels), prediction)
    return found.to(device).eval().requires_grad_(False)


def schedule_of(denoiser: Denoiser, given: Schedule | None) -> Schedule:
    """The schedule that is to be used: the denoiser's own, the one given, or the linear one.

    Raises:
        InvalidProblem: the given one is longer than the denoiser's.
    """
    own: Schedule | None = getattr(denoiser, "schedule", None)
    if given is not None and own is not None and given.length > own.length:
        raise InvalidProblem(
            f"The schedule has {given.length} times and the denoiser was trained for {own.length}; expected no more."
        )
    return given or own or Schedule.linear()


def noise_in(denoiser: Denoiser, x: Tensor, t: int, operator: Operator) -> Tensor:
    """What the denoiser says of a batch of the operator's images: eps, of the shape of x.

    Complex images are two channels, volumes a batch of slices. Channels beyond the image's are a learned variance and
    left out. A network gets its own precision.

    Raises:
        InvalidProblem: a denoiser for other channels, or an answer of another shape. NotFinite: NaN in the answer.
    """
    images = as_channels(x, operator)
    channels: int | None = getattr(denoiser, "channels", None)
    if channels is not None and channels != images.shape[1]:
        kind = "complex" if operator.complex_image else "real"
        raise InvalidProblem(
            f"The denoiser has {channels} channel{'s' if channels > 1 else ''} and the images are {kind} with "
            f"{images.shape[1]}; expected as many."
            + (
                " Complex images need a denoiser of two channels, or an operator with real=True."
                * (kind == "complex")
            )
        )
    parameter = next(denoiser.parameters(), None) if isinstance(denoiser, nn.Module) else None
    asked = images if parameter is None else images.to(parameter.device, parameter.dtype)
    found = torch.cat(
        [
            denoiser(part, torch.full((len(part),), t, device=part.device))
            for part in torch.split(asked, AT_ONCE)
        ]
    )
    sizes = (images.shape, (images.shape[0], 2 * images.shape[1], *images.shape[2:]))
    if found.shape not in sizes:
        raise InvalidProblem(
            f"The denoiser answers shape {tuple(found.shape)} to images of shape "
            f"{tuple(images.shape)}; expected the same."
        )
    if not bool(torch.isfinite(found).all()):
        raise NotFinite(f"The denoiser answers NaN or infinity at time {t}.")
    return as_images(found[:, : images.shape[1]].to(images), x, operator)


def as_channels(x: Tensor, operator: Operator) -> Tensor:
    """A batch of images as a denoiser sees it: real, shape (batch, channels, height, width)."""
    if operator.layout == "slices":
        x = x.flatten(0, 1)
    if operator.layout != "channels":
        x = x[:, None]
    return torch.cat([x.real, x.imag], 1) if x.is_complex() else x


def as_images(found: Tensor, like: Tensor, operator: Operator) -> Tensor:
    """The inverse of `as_channels`."""
    if like.is_complex():
        found = torch.complex(*(part.contiguous() for part in found.chunk(2, 1)))
    return found.reshape(like.shape)

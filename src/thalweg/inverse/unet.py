"""A small U-shaped denoiser, its file, and the one that is shipped.

Ronneberger, Fischer and Brox (2015), "U-Net"; Salimans and Ho (2022), "Progressive distillation", for v.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from thalweg.core import InvalidProblem, UnknownName
from thalweg.core.validation import is_whole, require
from thalweg.datasets.networks import load_tensors, save_tensors, shipped
from thalweg.inverse.schedules import Schedule

#: Features of the time.
TIME = 64


class UNet(nn.Module):
    """``eps(x, t)`` of images of shape (batch, channels, height, width), by residual blocks at halved resolutions.

    It works out ``v = signal eps - noise x0`` inside, which is as easy at all times, and gives eps of it.

    Args:
        channels: of the images: 1 for real ones, 2 for complex ones, 3 for colour. Default 1.
        widths: features at each resolution, the finest first. Default (32, 40, 40): 222 000 parameters.
        schedule: of the noise it is trained for. Default `Schedule.linear`.

    Sides must be multiples of ``2 ** (len(widths) - 1)``.

    ``usual_error`` is the mean `denoising_error` on images of the kind that it has learned, or None: set it after a
    training, and samplers tell which images are of another kind.

    Raises:
        InvalidProblem: images of other channels or sides.

    Cost of an evaluation: 76 million multiplications an image of 32 x 32 with the default widths.

    >>> UNet(widths=(4, 8))(torch.zeros(2, 1, 8, 8), torch.tensor([0, 999])).shape
    torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self, channels: int = 1, widths: Sequence[int] = (32, 40, 40), schedule: Schedule | None = None
    ) -> None:
        super().__init__()
        sizes = tuple(widths)
        require(is_whole(channels) and channels >= 1, "UNet needs channels >= 1", got=channels)
        positive = len(sizes) > 0 and all(is_whole(w) and w >= 1 for w in sizes)
        require(positive, "UNet needs widths >= 1, one or more", got=sizes)
        self.channels, self.widths = channels, sizes
        self.usual_error: float | None = None
        self.schedule = Schedule.linear() if schedule is None else schedule
        self.time = nn.Sequential(nn.Linear(TIME, TIME), nn.SiLU(), nn.Linear(TIME, TIME), nn.SiLU())
        self.first = nn.Conv2d(channels, sizes[0], 3, padding=1)
        self.down = nn.ModuleList(_Block(a, b) for a, b in zip((sizes[0], *sizes), sizes, strict=False))
        above = (*sizes[1:], sizes[-1])
        self.up = nn.ModuleList(_Block(a + b, b) for a, b in zip(above, sizes, strict=True))
        self.norm = nn.GroupNorm(_groups(sizes[0]), sizes[0])
        self.last = nn.Conv2d(sizes[0], channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]
        levels = torch.from_numpy(np.stack([self.schedule.signal, self.schedule.noise])).float()
        self.register_buffer("levels", levels, persistent=False)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # half the time on CPUs

    def settings(self) -> dict[str, object]:
        """The constructor's arguments but the schedule, for files."""
        return {"channels": self.channels, "widths": list(self.widths)}

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """eps; t holds the time of each image, shape (batch,)."""
        self._check(x)
        signal, noise = self.levels[:, t][:, :, None, None, None].to(x.dtype)  # type: ignore[index]
        size = (signal**2 + noise**2).sqrt()
        return (signal * self.velocity(x / size, t) + noise * x / size) / size

    def velocity(self, x: Tensor, t: Tensor) -> Tensor:
        """v; of an exploding schedule x is brought to variance one before."""
        angle = t[:, None].to(x.dtype) * torch.exp(
            torch.arange(TIME // 2, device=x.device, dtype=x.dtype) * (-math.log(10_000) / (TIME // 2))
        )
        time = self.time(torch.cat([angle.sin(), angle.cos()], 1))
        h, kept = self.first(x), []
        for i, block in enumerate(self.down):
            h = block(h if i == 0 else F.avg_pool2d(h, 2), time)
            kept.append(h)
        for i in reversed(range(len(self.up))):
            h = self.up[i](torch.cat([h, kept[i]], 1), time)
            if i:
                h = F.interpolate(h, scale_factor=2)
        return self.last(F.silu(self.norm(h)))

    def _check(self, x: Tensor) -> None:
        unit = 2 ** (len(self.widths) - 1)
        fits = x.ndim == 4 and x.shape[1] == self.channels and x.shape[2] % unit == 0 == x.shape[3] % unit
        if not fits:
            raise InvalidProblem(
                f"UNet: images have shape {tuple(x.shape)}; expected (batch, {self.channels}, height, width), sides "
                f"that are multiples of {unit}."
            )


class _Block(nn.Module):
    """Two convolutions with the time between, added to the input."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(_groups(before), before), nn.GroupNorm(_groups(after), after)
        self.conv1 = nn.Conv2d(before, after, 3, padding=1)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1)
        self.time = nn.Linear(TIME, after)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        inner = self.conv1(F.silu(self.norm1(h))) + self.time(time)[:, :, None, None]
        return self.skip(h) + self.conv2(F.silu(self.norm2(inner)))


def _groups(width: int) -> int:
    return next(groups for groups in (8, 4, 2, 1) if width % groups == 0)


#: Shipped denoisers by name: file, SHA-256 of its bytes, and `denoising_error` on 400 of its kind.
PRETRAINED: dict[str, tuple[str, str, float]] = {
    "ellipses": (
        "ellipses-32.safetensors",
        "bcfc3ddac66fc6b3e4c96bab4af95aad33b92d78ed8dc28e156ea4062d88f57b",
        0.0704,
    ),
}


def save_unet(path: str | Path, network: UNet, recipe: dict[str, object] | None = None) -> None:
    """Write a denoiser as safetensors; settings, schedule, usual error and ``recipe`` stand in its header."""
    schedule = {"signal": list(network.schedule.signal), "noise": list(network.schedule.noise)}  # type: ignore[arg-type]
    about = {
        "kind": "UNet",
        "settings": json.dumps(network.settings()),
        "schedule": "linear" if _is_linear(network.schedule) else json.dumps(schedule),
        "recipe": json.dumps(recipe or {}),
    }
    if network.usual_error is not None:
        about["usual_error"] = repr(float(network.usual_error))
    save_tensors(path, network.state_dict(), about)


def _is_linear(schedule: Schedule) -> bool:
    plain = Schedule.linear()
    return schedule.length == plain.length and np.array_equal(schedule.signal, plain.signal)


def load_unet(path: str | Path, device: str | torch.device = "cpu") -> UNet:
    """A denoiser that `save_unet` wrote, ready for use.

    Raises:
        UnreadableFile: absent, damaged, or not such a file.
    """

    def build(about: dict[str, str], tensors: dict[str, Tensor]) -> UNet:
        written = about["schedule"]
        schedule = Schedule.linear() if written == "linear" else Schedule(**json.loads(written))
        network = UNet(**json.loads(about["settings"]), schedule=schedule)
        network.load_state_dict(tensors)
        if "usual_error" in about:
            network.usual_error = float(about["usual_error"])
        return network

    found = load_tensors(path, build, "no UNet. save_unet() writes them")
    return found.to(device).eval().requires_grad_(False)


def pretrained_unet(name: str = "ellipses", device: str | torch.device = "cpu") -> UNet:
    """A denoiser shipped with the library; `train_unet` has the recipe.

    ``"ellipses"`` has learned `ellipses` of 32 x 32 pixels and is good for images like those. It is no prior for
    photographs or for medical images, and samplers tell where an image is of another kind.

    Raises:
        UnknownName: no such denoiser. UnreadableFile: its file is damaged.

    >>> pretrained_unet().channels
    1
    """
    if name not in PRETRAINED:
        raise UnknownName("denoiser", name, PRETRAINED)
    file, checksum, usual_error = PRETRAINED[name]
    with shipped("thalweg.inverse", file, checksum) as path:
        network = load_unet(path, device)
    network.usual_error = usual_error
    return network

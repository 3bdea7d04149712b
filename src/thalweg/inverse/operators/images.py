"""Photographs: blur, fewer pixels, holes; and the identity."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.validation import as_real, check_finite, is_real, is_whole, require
from thalweg.inverse.operators.base import SVD, Layout, Operator
from thalweg.numerics.tensor_checks import divisor


def _shaped(name: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], Layout]:
    """A checked image shape, and how a denoiser sees it."""
    sides = tuple(shape)
    fits = len(sides) in (2, 3) and all(is_whole(side) and side >= 1 for side in sides)
    require(
        fits,
        f"{name} needs a shape (height, width) or (channels, height, width)",
        got=shape,
        error=InvalidProblem,
    )
    return sides, "plane" if len(sides) == 2 else "channels"


class Inpainting(Operator):
    """``mask * x``: pixels that are known, on the full grid with zeros elsewhere.

    Args:
        mask: shape (height, width), of 0 and 1.
        channels: of colour images, shape (channels, height, width). Default None: shape (height, width).
        check: test the adjoint.

    A mask of ones is the identity: denoising.

    >>> Inpainting([[1, 0]]).A(np.array([[2.0, 3.0]]))
    array([[2., 0.]])
    """

    def __init__(self, mask: ArrayLike | Tensor, *, channels: int | None = None, check: bool = True) -> None:
        from thalweg.inverse.operators.fourier import as_mask

        self.mask = as_mask("Inpainting", mask)
        shape = tuple(self.mask.shape) if channels is None else (channels, *self.mask.shape)
        shape, self.layout = _shaped("Inpainting", shape)
        super().__init__(shape, shape, given={"mask": self.mask, "channels": channels}, check=check)

    def _forward(self, x: Tensor) -> Tensor:
        return self.on("mask", x) * x

    def _adjoint_of(self, y: Tensor) -> Tensor:
        return self._forward(y)

    def sampled(self, y: Tensor) -> Tensor:
        return self._forward(y)

    def norm(self) -> float:
        return 1.0

    def svd(self) -> SVD:
        return _PixelSVD(self.mask.expand(self.image_shape))


@dataclass(frozen=True, eq=False)
class _PixelSVD(SVD):
    def into(self, x: Tensor) -> Tensor:
        return x

    def back(self, c: Tensor) -> Tensor:
        return c

    def measured(self, y: Tensor) -> Tensor:
        return self.values.to(y) * y


def gaussian_kernel(deviation: float, side: int | None = None) -> Tensor:
    """A kernel that sums to one, shape (side, side); by default three deviations to each side.

    >>> gaussian_kernel(1.0).shape
    torch.Size([7, 7])
    """
    require(
        is_real(deviation) and 0 < deviation < math.inf, "gaussian_kernel needs deviation > 0", got=deviation
    )
    side = 2 * math.ceil(3 * deviation) + 1 if side is None else side
    require(is_whole(side) and side >= 1 and side % 2 == 1, "gaussian_kernel needs an odd side", got=side)
    line = torch.exp(-((torch.arange(side, dtype=torch.float64) - side // 2) ** 2) / (2 * deviation**2))
    kernel = line[:, None] * line[None, :]
    return kernel / kernel.sum()


class Blur(Operator):
    """The circular convolution with a kernel, by Fourier transforms.

    Args:
        shape: (height, width) or (channels, height, width).
        kernel: real, both sides odd and no longer than the image's; `gaussian_kernel` makes one.
        check: test the adjoint.

    >>> Blur((4, 4), [[0.5, 0.5, 0.0]]).A(np.eye(4))[0]
    array([0.5, 0. , 0. , 0.5])
    """

    def __init__(self, shape: tuple[int, ...], kernel: ArrayLike | Tensor, *, check: bool = True) -> None:
        shape, self.layout = _shaped("Blur", shape)
        k = as_real("Blur: kernel", kernel)
        fits = k.ndim == 2 and all(a % 2 == 1 and a <= b for a, b in zip(k.shape, shape[-2:], strict=True))
        if not fits:
            raise InvalidProblem(
                f"Blur: the kernel has shape {k.shape}; expected odd sides up to {shape[-2:]}."
            )
        check_finite("Blur: kernel", k)
        require(bool(np.any(k)), "Blur: the kernel is zero: nothing is measured", error=InvalidProblem)
        padded = np.zeros(shape[-2:])
        padded[: k.shape[0], : k.shape[1]] = k
        padded = np.roll(padded, (-(k.shape[0] // 2), -(k.shape[1] // 2)), (0, 1))
        self.transfer = torch.fft.fft2(torch.from_numpy(padded))
        super().__init__(shape, shape, given={"shape": shape, "kernel": k}, check=check)

    def _forward(self, x: Tensor) -> Tensor:
        return torch.fft.ifft2(self.on("transfer", x) * torch.fft.fft2(x)).real

    def _adjoint_of(self, y: Tensor) -> Tensor:
        return torch.fft.ifft2(self.on("transfer", y).conj() * torch.fft.fft2(y)).real

    def norm(self) -> float:
        return float(self.transfer.abs().max())

    def svd(self) -> SVD:
        return _BlurSVD(self.transfer.abs().expand(self.image_shape), self.transfer)


@dataclass(frozen=True, eq=False)
class _BlurSVD(SVD):
    transfer: Tensor

    def into(self, x: Tensor) -> Tensor:
        return torch.fft.fft2(x, norm="ortho")

    def back(self, c: Tensor) -> Tensor:
        return torch.fft.ifft2(c, norm="ortho")

    def measured(self, y: Tensor) -> Tensor:
        phase = self.transfer.conj() / divisor(self.transfer.abs())
        found = torch.fft.fft2(y, norm="ortho")
        return phase.to(found) * found


class SuperResolution(Operator):
    """Means of blocks of ``factor x factor`` pixels.

    Args:
        shape: (height, width) or (channels, height, width), sides that are multiples of the factor.
        factor: 2 or more.
        check: test the adjoint.

    >>> SuperResolution((2, 2), 2).A(np.array([[1.0, 2.0], [3.0, 6.0]]))
    array([[3.]])
    """

    def __init__(self, shape: tuple[int, ...], factor: int, *, check: bool = True) -> None:
        shape, self.layout = _shaped("SuperResolution", shape)
        fits = is_whole(factor) and factor >= 2 and all(side % factor == 0 for side in shape[-2:])
        require(fits, f"SuperResolution needs a factor >= 2 that divides the sides of {shape}", got=factor)
        self.factor = factor
        small = (*shape[:-2], shape[-2] // factor, shape[-1] // factor)
        super().__init__(shape, small, given={"shape": shape, "factor": factor}, check=check)

    def _forward(self, x: Tensor) -> Tensor:
        return _blocks(x, self.factor).mean(-1)

    def _adjoint_of(self, y: Tensor) -> Tensor:
        f = self.factor
        return y.repeat_interleave(f, -1).repeat_interleave(f, -2) / f**2

    def norm(self) -> float:
        return 1 / self.factor

    def svd(self) -> SVD:
        values = torch.zeros(*self.data_shape, self.factor**2, dtype=torch.float64)
        values[..., 0] = 1 / self.factor
        return _BlockSVD(values, self.factor)


@dataclass(frozen=True, eq=False)
class _BlockSVD(SVD):
    """A reflection of each block that takes its constant to the first coordinate."""

    factor: int

    def _reflected(self, blocks: Tensor) -> Tensor:
        v = torch.full((self.factor**2,), -1 / self.factor, dtype=blocks.dtype, device=blocks.device)
        v[0] += 1
        v = v / torch.linalg.vector_norm(v)
        return blocks - 2 * (blocks @ v)[..., None] * v

    def into(self, x: Tensor) -> Tensor:
        return self._reflected(_blocks(x, self.factor))

    def back(self, c: Tensor) -> Tensor:
        f = self.factor
        blocks = self._reflected(c)
        return blocks.reshape(*blocks.shape[:-1], f, f).transpose(-3, -2).flatten(-2).flatten(-3, -2)

    def measured(self, y: Tensor) -> Tensor:
        found = y.new_zeros(*y.shape, self.factor**2)
        found[..., 0] = y
        return found


def _blocks(x: Tensor, factor: int) -> Tensor:
    """Shape (..., height / f, width / f, f f)."""
    rows, columns = (side // factor for side in x.shape[-2:])
    split = x.reshape(*x.shape[:-2], rows, factor, columns, factor)
    return split.transpose(-3, -2).flatten(-2)

"""Magnetic resonance: a masked Fourier transform, several coils, and their maps from the data.

Pruessmann et al. (1999), "SENSE"; Walsh, Gmitro and Marcellin (2000), "Adaptive reconstruction of phased array MR
imagery", for the maps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.validation import check_finite, is_whole, require
from thalweg.inverse.operators.base import SVD, Operator
from thalweg.numerics.tensor_checks import divisor

#: How far the squared maps of a normalised set may sum from one.
NORMALISED = 1e-3
#: Complex numbers of the coils that a processor works on at once: what its cache holds.
AT_ONCE = 2**16


def fft2c(x: Tensor) -> Tensor:
    """The unitary Fourier transform of the last two dimensions, with the zero frequency in the middle."""
    return _centred(torch.fft.fft2(_cornered(x), norm="ortho"))


def ifft2c(y: Tensor) -> Tensor:
    """The inverse of `fft2c`."""
    return _centred(torch.fft.ifft2(_cornered(y), norm="ortho"))


@dataclass(frozen=True, eq=False)
class _Sampling:
    """``F^H mask F`` with the zero frequency in the corner, and not along an axis on which the mask does not vary.

    There the transform and its inverse cancel: masks of whole lines, one dimension's, need half the work.
    """

    axes: tuple[int, ...]

    @classmethod
    def of(cls, mask: Tensor) -> _Sampling:
        lines = tuple(axis for axis in (-2, -1) if not bool((mask.diff(dim=axis) == 0).all()))
        return cls(lines)

    def __call__(self, x: Tensor, mask: Tensor) -> Tensor:
        """Of images whose centre is in the corner; ``mask``, too."""
        if not self.axes:
            return mask * x
        found = torch.fft.fftn(x, dim=self.axes, norm="ortho")
        return torch.fft.ifftn(found.mul_(mask), dim=self.axes, norm="ortho")


def _cornered(x: Tensor) -> Tensor:
    """The centre moved to the corner, where a Fourier transform has it."""
    return torch.fft.ifftshift(x, (-2, -1))


def _centred(x: Tensor) -> Tensor:
    return torch.fft.fftshift(x, (-2, -1))


def as_mask(name: str, mask: ArrayLike | Tensor) -> Tensor:
    """A mask as a float64 tensor of zeros and ones, shape (height, width), with something in it."""
    found = torch.as_tensor(np.asarray(mask))
    if found.ndim != 2:
        raise InvalidProblem(f"{name}: the mask has shape {tuple(found.shape)}; expected (height, width).")
    if not bool(((found == 0) | (found == 1)).all()):
        raise InvalidProblem(f"{name}: the mask holds other numbers than 0 and 1.")
    require(bool(found.any()), f"{name}: the mask is empty: nothing is measured", error=InvalidProblem)
    return found.to(torch.float64)


class MaskedFFT(Operator):
    """``mask * F x``: frequencies of an image that were measured, on the full grid with zeros elsewhere.

    Args:
        mask: shape (height, width), of 0 and 1, the zero frequency in the middle; `thalweg.inverse.masks` makes them.
        real: images are real; the adjoint takes the real part. Default False: images are complex.
        check: test the adjoint.

    Raises:
        InvalidProblem: a mask of another form, or an empty one.

    Cost of a product: one Fourier transform; of `gram`: two, of one dimension where the mask is whole lines.

    >>> operator = MaskedFFT(np.ones((4, 4)))
    >>> bool(np.allclose(operator.AH(operator.A(np.eye(4))), np.eye(4))), operator.norm()
    (True, 1.0)
    """

    def __init__(self, mask: ArrayLike | Tensor, *, real: bool = False, check: bool = True) -> None:
        self.mask = as_mask("MaskedFFT", mask)
        shape = tuple(self.mask.shape)
        self.corner = _cornered(self.mask)
        self._sampling = _Sampling.of(self.corner)
        given = {"mask": self.mask, "real": real}
        super().__init__(shape, shape, complex_image=not real, complex_data=True, given=given, check=check)

    def _forward(self, x: Tensor) -> Tensor:
        return self.on("mask", x) * fft2c(x)

    def _adjoint_of(self, y: Tensor) -> Tensor:
        return self.real_if_real(ifft2c(self.on("mask", y) * y))

    def gram(self, x: Tensor) -> Tensor:
        return self.real_if_real(_centred(self._sampling(_cornered(x), self.on("corner", x))))

    def sampled(self, y: Tensor) -> Tensor:
        return self.on("mask", y) * y

    def norm(self) -> float:
        return 1.0 if self.complex_image else super().norm()

    def svd(self) -> SVD:
        return _FourierSVD(self.mask) if self.complex_image else super().svd()


@dataclass(frozen=True, eq=False)
class _FourierSVD(SVD):
    def into(self, x: Tensor) -> Tensor:
        return fft2c(x)

    def back(self, c: Tensor) -> Tensor:
        return ifft2c(c)

    def measured(self, y: Tensor) -> Tensor:
        return self.values.to(y.device, y.real.dtype) * y


class Sense(Operator):
    """``mask * F (map_c x)`` for each coil c: data of shape (coils, height, width).

    Args:
        maps: sensitivities, complex, shape (coils, height, width), with ``sum |map|^2`` 1, or 0 outside the body.
            `estimate_maps` finds them.
        mask: as for `MaskedFFT`.
        normalise: divide the maps by their root sum of squares. Default False: maps that are not normalised are told.
        real: images are real. Default False.
        check: test the adjoint.

    Raises:
        InvalidProblem: shapes that do not fit, maps that are not normalised.

    Cost of a product: a Fourier transform a coil; of `gram`: two, of one dimension where the mask is whole lines.

    >>> from thalweg.inverse.phantoms import birdcage
    >>> operator = Sense(birdcage(4, 8), np.ones((8, 8)))
    >>> operator.data_shape, round(operator.norm(), 6)
    ((4, 8, 8), 1.0)
    """

    def __init__(
        self,
        maps: ArrayLike | Tensor,
        mask: ArrayLike | Tensor,
        *,
        normalise: bool = False,
        real: bool = False,
        check: bool = True,
    ) -> None:
        self.mask = as_mask("Sense", mask)
        self.maps = _maps(maps)
        if self.maps.shape[1:] != self.mask.shape:
            raise InvalidProblem(
                f"Sense: maps have shape {tuple(self.maps.shape)} and the mask {tuple(self.mask.shape)}; expected "
                "(coils, height, width) and (height, width)."
            )
        power = self.maps.abs().square().sum(0)
        if normalise:
            self.maps = normalised_maps(self.maps)
        elif bool(((power - 1).abs() > NORMALISED).logical_and(power > NORMALISED).any()):
            raise InvalidProblem(
                f"Sense: the squares of the maps sum to {float(power.min()):.3g} to {float(power.max()):.3g}; expected "
                "1, or 0 outside the body. Pass normalise=True."
            )
        self.corner = _cornered(self.mask)
        self._sampling = _Sampling.of(self.corner)
        # one image is moved to the corner rather than one a coil
        self.sensed = _cornered(self.maps)
        self.conjugate = self.sensed.conj().resolve_conj()
        shape, coils = tuple(self.mask.shape), len(self.maps)
        given = {"mask": self.mask, "maps": self.maps, "real": real}
        super().__init__(
            shape, (coils, *shape), complex_image=not real, complex_data=True, given=given, check=check
        )

    def _forward(self, x: Tensor) -> Tensor:
        each = torch.fft.fft2(self.on("sensed", x) * _cornered(x)[:, None], norm="ortho")
        return self.on("mask", x) * _centred(each)

    def _adjoint_of(self, y: Tensor) -> Tensor:
        each = torch.fft.ifft2(_cornered(self.on("mask", y) * y), norm="ortho")
        return self._joined(each)

    def gram(self, x: Tensor) -> Tensor:
        maps, mask = self.on("sensed", x), self.on("corner", x)
        images = max(1, AT_ONCE // maps.numel()) if x.device.type == "cpu" else len(x)
        return torch.cat(
            [
                self._joined(self._sampling(maps * _cornered(part)[:, None], mask))
                for part in torch.split(x, images)
            ]
        )

    def _joined(self, coils: Tensor) -> Tensor:
        """One image of those of the coils, all with their centre in the corner."""
        return self.real_if_real(_centred((self.on("conjugate", coils) * coils).sum(1)))

    def sampled(self, y: Tensor) -> Tensor:
        return self.on("mask", y) * y


def normalised_maps(maps: ArrayLike | Tensor) -> Tensor:
    """Maps over their root sum of squares; zero where all are.

    >>> normalised_maps(np.full((2, 1, 1), 3.0)).abs().square().sum().round(decimals=6)
    tensor(1., dtype=torch.float64)
    """
    found = _maps(maps)
    size = found.abs().square().sum(0).sqrt()
    return torch.where(size > 1e-12 * size.max(), found / divisor(size), 0)


def estimate_maps(
    data: ArrayLike | Tensor, centre: int = 24, window: int = 5, *, real: bool = False
) -> Tensor:
    """Normalised maps from the fully measured middle of the data, shape (coils, height, width).

    Low-resolution images of the coils are made of the middle; a map is the leading eigenvector of their covariance in a
    window round each pixel, with the phase of the first coil that sees
    anything taken off.

    Args:
        data: shape (coils, height, width), complex, the zero frequency in the middle.
        centre: lines a side that are measured and used; default 24.
        window: pixels a side, odd; default 5.
        real: put the phase of the low-resolution image into the maps, so that what is to be found is real and
            positive: for ``Sense(maps, mask, real=True)``. Where the phase changes fast, it is not. Default False.

    Raises:
        InvalidProblem: another shape, or data that are zero in the middle.

    Cost: an eigenvector problem of ``coils x coils`` a pixel.
    """
    y = torch.as_tensor(np.asarray(data)) if not isinstance(data, Tensor) else data
    if y.ndim != 3:
        raise InvalidProblem(
            f"estimate_maps: data have shape {tuple(y.shape)}; expected (coils, height, width)."
        )
    require(is_whole(centre) and centre >= 2, "estimate_maps needs centre >= 2", got=centre)
    require(
        is_whole(window) and window >= 1 and window % 2 == 1, "estimate_maps needs an odd window", got=window
    )
    y = y.to(torch.complex128)
    check_finite("estimate_maps: data", torch.view_as_real(y.resolve_conj()).cpu().numpy())
    taper = [_taper(length, centre) for length in y.shape[1:]]
    low = ifft2c(y * taper[0][:, None] * taper[1][None, :])
    if not bool(low.abs().max() > 0):
        raise InvalidProblem(
            f"estimate_maps: the middle {centre} lines of the data are zero; nothing to estimate from."
        )
    R = torch.einsum("ihw,jhw->ijhw", low, low.conj())
    R = torch.view_as_real(R).permute(0, 1, 4, 2, 3).reshape(1, -1, *y.shape[1:])
    R = torch.nn.functional.avg_pool2d(R, window, 1, window // 2)
    coils = len(y)
    R = torch.view_as_complex(R.reshape(coils, coils, 2, *y.shape[1:]).permute(3, 4, 0, 1, 2).contiguous())
    leading = torch.linalg.eigh(R)[1][..., -1].permute(2, 0, 1)
    strength = low.abs().square().sum((1, 2))
    alive = int((strength > 1e-6 * strength.max()).int().argmax())
    shown = (leading.conj() * low).sum(0).conj() if real else leading[alive]
    phase = torch.where(shown.abs() > 0, shown / divisor(shown.abs()), torch.ones_like(shown))
    return normalised_maps(leading * phase.conj())


def _taper(length: int, centre: int) -> Tensor:
    away = (torch.arange(length, dtype=torch.float64) - length // 2).abs() / (centre / 2)
    return torch.where(away < 1, 0.5 * (1 + torch.cos(torch.pi * away)), 0.0)


def _maps(maps: ArrayLike | Tensor) -> Tensor:
    found = maps if isinstance(maps, Tensor) else torch.as_tensor(np.asarray(maps))
    if found.ndim != 3 or not found.numel():
        raise InvalidProblem(f"Maps have shape {tuple(found.shape)}; expected (coils, height, width).")
    found = found.to(torch.complex128).resolve_conj()
    check_finite("Maps", torch.view_as_real(found).cpu().numpy())
    return found

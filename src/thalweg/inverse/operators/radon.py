"""Tomography: sums along rays, parallel or from a point, with the matched adjoint.

A ray is sampled at every pixel's length and the image is interpolated linearly in both directions. The adjoint puts
back with the same weights, so that ``A^H A`` is symmetric to rounding.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.seeding import generator
from thalweg.core.validation import as_real, check_finite, is_real, is_whole, require
from thalweg.inverse.operators.base import Operator

Array = NDArray[np.float64]

#: Bytes up to which the weights are kept, as a sparse matrix and its transpose, if all were inside the image, as about
#: a third is; and bytes of an entry of both.
KEPT, ENTRY = 3 * 2**30, 32


class Rays(Operator):
    """Sums along given rays through a square image; parent of `Radon` and `FanBeam`.

    Args:
        side: pixels; the centre is the pixel ``side // 2``, with x to the right and y downwards.
        starts: where rays begin, in pixels from the centre, shape (views, detectors, 2).
        directions: of unit length, shape as ``starts``.
        reach: pixels along each ray.
        matrix: keep the weights as a sparse matrix, and its transpose. Default: where both take about a gigabyte
            at most. Without them weights are worked out in every product, which takes no memory
            and five to thirty times longer.
        given: what the rays were made of, for fingerprints.
        check: test the adjoint.

    Raises:
        InvalidProblem: shapes that do not fit, rays that miss the image.

    Cost of a product: ``4 views detectors reach`` multiplications an image.
    """

    def __init__(
        self,
        side: int,
        starts: ArrayLike,
        directions: ArrayLike,
        reach: int,
        *,
        matrix: bool | None = None,
        given: dict[str, object] | None = None,
        check: bool = True,
    ) -> None:
        name = type(self).__name__
        require(is_whole(side) and side >= 2, f"{name} needs side >= 2", got=side)
        self.side, self.reach = side, reach
        self.starts, self.directions = (
            as_real(f"{name}: starts", starts),
            as_real(f"{name}: directions", directions),
        )
        if self.starts.ndim != 3 or self.starts.shape[2] != 2 or self.starts.shape != self.directions.shape:
            raise InvalidProblem(
                f"{name}: starts have shape {self.starts.shape} and directions {self.directions.shape}; expected twice "
                "(views, detectors, 2)."
            )
        for what in ("starts", "directions"):
            check_finite(f"{name}: {what}", getattr(self, what))
        views, detectors = self.starts.shape[:2]
        self.matrix: Tensor | None = None
        self.transposed: Tensor | None = None
        fits = 4 * views * detectors * reach * ENTRY <= KEPT
        if fits if matrix is None else matrix:
            self.matrix, self.transposed = self._matrices(views, detectors)
        plain = {"side": side, "starts": self.starts, "directions": self.directions, "reach": reach}
        super().__init__((side, side), (views, detectors), given=given or plain, check=check)

    def weights(self, view: int) -> tuple[NDArray[np.int64], Array]:
        """Pixels that the rays of a view meet and their weights, shape (detectors, 4 reach) each."""
        along = np.arange(self.reach)
        c = self.side // 2
        x, y = (self.starts[view, :, None, k] + along * self.directions[view, :, None, k] + c for k in (0, 1))
        left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        places, weights = [], []
        for right in (0, 1):
            for below in (0, 1):
                i, j = top + below, left + right
                weight = (1 - np.abs(x - j)) * (1 - np.abs(y - i))
                inside = (i >= 0) & (i < self.side) & (j >= 0) & (j < self.side)
                places.append(np.where(inside, i * self.side + j, 0))
                weights.append(np.where(inside, weight, 0.0))
        return np.concatenate(places, 1), np.concatenate(weights, 1)

    def _matrices(self, views: int, detectors: int) -> tuple[Tensor, Tensor]:
        blocks = []
        for view in range(views):
            places, weights = self.weights(view)
            rows = np.repeat(np.arange(detectors), places.shape[1])
            block = sp.coo_array((weights.ravel(), (rows, places.ravel())), (detectors, self.side**2)).tocsr()
            block.eliminate_zeros()
            blocks.append(block)
        whole = sp.vstack(blocks, format="csr")
        return _as_torch(whole), _as_torch(whole.T.tocsr())

    def _forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(len(x), -1)
        if self.matrix is not None:
            out = torch.mm(self.on("matrix", x), flat.T.contiguous()).T
        else:
            out = torch.stack([self._view(flat, view) for view in range(self.data_shape[0])], 1)
        return out.reshape(len(x), *self.data_shape)

    def _adjoint_of(self, y: Tensor) -> Tensor:
        if self.transposed is not None:
            out = torch.mm(self.on("transposed", y), y.reshape(len(y), -1).T.contiguous()).T.contiguous()
        else:
            out = y.new_zeros(len(y), self.side**2)
            for view in range(self.data_shape[0]):
                places, weights = self._placed(view, y)
                out.index_add_(1, places.reshape(-1), (y[:, view, :, None] * weights).flatten(1))
        return out.reshape(len(y), *self.image_shape)

    def gram(self, x: Tensor) -> Tensor:
        if self.matrix is None or self.transposed is None:
            return super().gram(x)
        rays = torch.mm(self.on("matrix", x), x.reshape(len(x), -1).T.contiguous())
        return torch.mm(self.on("transposed", x), rays).T.contiguous().reshape(x.shape)

    def _view(self, flat: Tensor, view: int) -> Tensor:
        places, weights = self._placed(view, flat)
        return (flat[:, places] * weights).sum(2)

    def _placed(self, view: int, like: Tensor) -> tuple[Tensor, Tensor]:
        places, weights = self.weights(view)
        return torch.from_numpy(places).to(like.device), torch.from_numpy(weights).to(like)


class Radon(Rays):
    """The sinogram of parallel rays, shape (views, detectors), as scikit-image's ``radon`` gives it, transposed.

    Args:
        side: pixels of the square image.
        views: how many, evenly over ``span`` degrees; or angles in degrees, shape (views,). 8 of 180 degrees is a
            sparse view.
        span: degrees, default 180; less is a limited angle.
        detectors: pixels of a row, centred; default ``side``, which sees the inscribed circle.
        matrix, check: as for `Rays`.

    Raises:
        InvalidParameter: no view, a span that is not in (0, 360].

    >>> Radon(32, 8).data_shape, float(Radon(32, 24, span=120).angles[-1])
    ((8, 32), 115.0)
    """

    def __init__(
        self,
        side: int,
        views: int | ArrayLike,
        *,
        span: float = 180.0,
        detectors: int | None = None,
        matrix: bool | None = None,
        check: bool = True,
    ) -> None:
        require(is_whole(side) and side >= 2, "Radon needs side >= 2", got=side)
        self.angles = _angles("Radon", views, span)
        #: Degrees that the views cover: each stands for as many.
        self.span = span if is_whole(views) else 180.0
        count = side if detectors is None else detectors
        require(is_whole(count) and count >= 1, "Radon needs detectors >= 1", got=count)
        reach = 2 * math.ceil(side / math.sqrt(2)) + 1
        s = np.arange(count)[None, :] - float(count // 2)
        first = -(reach // 2)
        cos, sin = (f(np.deg2rad(self.angles))[:, None] for f in (np.cos, np.sin))
        starts = np.stack([cos * s + sin * first, cos * first - sin * s], -1)
        directions = np.broadcast_to(np.stack([sin, cos], -1), starts.shape)
        given: dict[str, object] = {
            "side": side,
            "angles": self.angles,
            "detectors": count,
            "span": self.span,
        }
        super().__init__(side, starts, directions, reach, matrix=matrix, given=given, check=check)


class FanBeam(Rays):
    """Rays from a point that turns round the image to a flat row of detectors, shape (views, detectors).

    Args:
        side: pixels of the square image.
        views: how many, evenly over ``span`` degrees; or angles in degrees.
        distance: of the source from the centre, in sides; default 1.5.
        span: degrees, default 360.
        detectors: default ``2 side``.
        matrix, check: as for `Rays`.

    The fan covers the inscribed circle.

    Raises:
        InvalidParameter: no view, a span that is not in (0, 360], a source inside the image.

    >>> FanBeam(16, 4).data_shape
    (4, 32)
    """

    def __init__(
        self,
        side: int,
        views: int | ArrayLike,
        *,
        distance: float = 1.5,
        span: float = 360.0,
        detectors: int | None = None,
        matrix: bool | None = None,
        check: bool = True,
    ) -> None:
        require(is_whole(side) and side >= 2, "FanBeam needs side >= 2", got=side)
        self.angles = _angles("FanBeam", views, span)
        outside = is_real(distance) and 0.75 <= distance < math.inf
        require(outside, "FanBeam needs a source outside the image, distance >= 0.75", got=distance)
        count = 2 * side if detectors is None else detectors
        require(is_whole(count) and count >= 1, "FanBeam needs detectors >= 1", got=count)
        far = distance * side
        widest = math.asin(0.5 / distance)
        # the row stands through the centre, and its rays touch the inscribed circle
        u = ((np.arange(count) + 0.5) / count * 2 - 1)[None, :] * far * math.tan(widest)
        turn = np.deg2rad(self.angles)[:, None]
        source = np.stack([np.sin(turn), np.cos(turn)], -1) * -far
        row = np.stack([np.cos(turn), -np.sin(turn)], -1) * u[..., None]
        way = row - source
        directions = way / np.linalg.norm(way, axis=-1, keepdims=True)
        half = math.ceil(side / math.sqrt(2)) + 1
        starts = source + directions * (far - half)
        given: dict[str, object] = {
            "side": side,
            "angles": self.angles,
            "distance": distance,
            "detectors": count,
        }
        super().__init__(
            side, starts, directions, 2 * half + side // 4, matrix=matrix, given=given, check=check
        )


def transmission_noise(sinogram: ArrayLike, photons: float, seed: int = 0) -> Array:
    """A sinogram as counts of photons give it: ``-log(max(Poisson(photons exp(-p)), 1) / photons)``.

    Args:
        sinogram: of attenuation, p >= 0 where rays are weakened.
        photons: sent along each ray, > 0. 1e4 is a low dose.
        seed: of the counts.

    The noise is not Gaussian and grows with p.

    >>> bool(np.abs(transmission_noise(np.ones((2, 3)), 1e8) - 1).max() < 1e-2)
    True
    """
    p = as_real("sinogram", sinogram)
    check_finite("sinogram", p)
    require(is_real(photons) and 0 < photons < math.inf, "transmission_noise needs photons > 0", got=photons)
    mean = photons * np.exp(-p)
    if mean.size and mean.max() > 1e18:
        raise InvalidProblem(
            f"transmission_noise: rays of {mean.max():.2g} photons, p down to {p.min():.3g}; expected p >= 0 or about."
        )
    counts = generator(seed, 0x34).poisson(mean)
    return np.asarray(-np.log(np.maximum(counts, 1) / photons))


def _angles(name: str, views: int | ArrayLike, span: float) -> Array:
    require(is_real(span) and 0 < span <= 360, f"{name} needs 0 < span <= 360 degrees", got=span)
    if is_whole(views):
        require(views >= 1, f"{name} needs views >= 1", got=views)
        return np.asarray(np.arange(views) * (span / views), dtype=np.float64)
    found = as_real(f"{name}: angles", views)
    if found.ndim != 1 or not found.size:
        raise InvalidProblem(f"{name}: angles have shape {found.shape}; expected (views,), one or more.")
    check_finite(f"{name}: angles", found)
    return found


def _as_torch(matrix: sp.csr_array) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its sparse rows a beta
        rows, columns, data = (
            torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data)
        )
        return torch.sparse_csr_tensor(rows, columns, data, matrix.shape)

"""A linear map of images to measurements, with its exact adjoint, for tensors, arrays and SciPy alike."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh_tridiagonal
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import is_real, require
from thalweg.numerics.tensor_checks import divisor

T = TypeVar("T", Tensor, NDArray[np.floating], NDArray[np.complexfloating])
#: How a denoiser sees an image: (height, width); (channels, height, width); or (depth, height, width) slice by slice.
Layout = Literal["plane", "channels", "slices"]
#: Largest mismatch of an adjoint in the test at construction.
MISMATCH = 1e-6
#: Side of the largest square matrix that is factored for a singular value decomposition.
DENSE = 4096
#: The norm's residual over the norm squared, where its search ends, and the most steps of it.
NORM_TOL, NORM_STEPS = 1e-3, 300


@dataclass(frozen=True, eq=False)
class SVD:
    """``A = U diag(values) V^H`` by its products; ``values`` has the shape of a spectrum, zero for the null space.

    `into` gives ``V^H x``, `back` ``V c``, and `measured` ``U^H y``, with zeros where ``values`` is zero; all for
    batches.
    """

    values: Tensor

    def into(self, x: Tensor) -> Tensor:
        """``V^H x``."""
        raise NotImplementedError

    def back(self, c: Tensor) -> Tensor:
        """``V c``."""
        raise NotImplementedError

    def measured(self, y: Tensor) -> Tensor:
        """``U^H y``."""
        raise NotImplementedError


class Operator(LinearOperator):
    """Base of operators: ``A``, its adjoint ``AH`` and its norm, for one image or a batch.

    ``A`` and ``AH`` take a tensor or an array, of the image's or the data's shape, or with a batch before it, and
    give back the same kind. The inner product is ``sum conj(u) v``; where the image is real and the data complex, its
    real part. An operator is a `scipy.sparse.linalg.LinearOperator` on flat vectors too, so that `thalweg.numerics` and
    SciPy solve with it (real images of complex data: real and imaginary parts one after the other).

    A new operator is a subclass with ``_forward`` and ``_adjoint_of``, which take and give batches, and what it is made
    of in ``given``. Its adjoint is tested by a random dot product when it is made, unless ``check=False``.

    Raises:
        InvalidProblem: ``_adjoint_of`` is not the adjoint of ``_forward``; images or data of another shape.
    """

    layout: Layout = "plane"

    def __init__(
        self,
        image_shape: tuple[int, ...],
        data_shape: tuple[int, ...],
        *,
        complex_image: bool = False,
        complex_data: bool = False,
        given: Mapping[str, object] | None = None,
        check: bool = True,
    ) -> None:
        self.image_shape, self.data_shape = tuple(image_shape), tuple(data_shape)
        self.complex_image, self.complex_data = complex_image, complex_data or complex_image
        self.given = dict(given or {})
        self._norm: float | None = None
        self._svd: SVD | None = None
        self._held: dict[tuple[str, torch.device, torch.dtype], Tensor] = {}
        parts = 2 if self.complex_data and not complex_image else 1
        shape = (parts * math.prod(self.data_shape), math.prod(self.image_shape))
        kind = np.complex128 if complex_image else np.float64
        super().__init__(np.dtype(kind), shape)  # type: ignore[call-arg]
        if check:
            found = self.mismatch()
            require(
                found <= MISMATCH,
                f"{type(self).__name__}: _adjoint_of is not the adjoint of _forward; <A x, y> and <x, A^H y> differ by "
                f"{found:.2g} of |A x| |y|. Mend it, or pass check=False",
                error=InvalidProblem,
            )

    @abstractmethod
    def _forward(self, x: Tensor) -> Tensor:
        """Images, shape (batch, *image_shape), to data."""

    @abstractmethod
    def _adjoint_of(self, y: Tensor) -> Tensor:
        """Data, shape (batch, *data_shape), to images."""

    def A(self, x: T) -> T:  # noqa: N802 -- the field's name
        """Measurements of an image or a batch."""
        return self._applied(x, "the image", self.image_shape, self.complex_image, forward=True)

    def AH(self, y: T) -> T:  # noqa: N802
        """The adjoint, of data or a batch."""
        return self._applied(y, "the data", self.data_shape, self.complex_data, forward=False)

    def gram(self, x: Tensor) -> Tensor:
        """``A^H A x`` of a batch of images."""
        return self._adjoint_of(self._forward(x))

    def norm(self) -> float:
        """The largest singular value, worked out once: from below, to three digits or more."""
        if self._norm is None:
            self._norm = self._largest()
        return self._norm

    def svd(self) -> SVD:
        """The singular value decomposition, where it has a fast form or the matrix is small; worked out once.

        Raises:
            InvalidProblem: no fast form, and more entries than 4096 x 4096.
        """
        if self._svd is None:
            if self.shape[0] * self.shape[1] > DENSE**2:
                raise InvalidProblem(
                    f"{type(self).__name__} is {self.shape[0]} x {self.shape[1]} and has no fast singular value "
                    f"decomposition; a matrix is factored up to {DENSE} x {DENSE}. Use DDS, which needs products only."
                )
            self._svd = _DenseSVD.of(self)
        return self._svd

    def pinv(self, y: T, cutoff: float = 1e-4) -> T:
        """The image of least norm that fits the data best; singular values below ``cutoff`` of the largest count as 0.

        By `svd` where there is one, else by at most 200 conjugate gradient steps, which the cutoff does not rule.
        """
        found = _as_tensor("the data", y, self.data_shape, self.complex_data)
        batch = found if found.ndim > len(self.data_shape) else found[None]
        try:
            svd = self.svd()
        except InvalidProblem:
            from thalweg.inverse.conjugate import batched_cg

            right = self._adjoint_of(batch)
            x = batched_cg(self.gram, right, torch.zeros_like(right), steps=200, tol=1e-6).x
        else:
            values = svd.values.to(batch.real.dtype)
            keep = values > cutoff * values.max()
            x = self.real_if_real(svd.back(torch.where(keep, svd.measured(batch) / divisor(values), 0.0)))
        return _like(x if found.ndim > len(self.data_shape) else x[0], y)

    def real_if_real(self, x: Tensor) -> Tensor:
        """``x``, without the zeros of an imaginary part where images are real."""
        return x.real if x.is_complex() and not self.complex_image else x

    def sampled(self, y: Tensor) -> Tensor:
        """``y`` with zeros where nothing is measured."""
        return y

    def measured(self, x: T, sigma: float = 0.0, seed: int = 0) -> T:
        """``A x + n``: noise of deviation ``sigma`` a number (complex: in each of the two parts)."""
        require(is_real(sigma) and 0 <= sigma < math.inf, "measured needs sigma >= 0", got=sigma)
        y: Tensor = torch.as_tensor(self.A(x))
        if sigma > 0:
            drawn = torch_generator(seed, 0x34)
            shape = (*y.shape, 2) if y.is_complex() else y.shape
            z = torch.randn(shape, generator=drawn, dtype=torch.float64)
            noise = (torch.view_as_complex(z) if y.is_complex() else z).to(y.device, y.dtype)
            y = y + self.sampled(sigma * noise)
        return _like(y, x)

    def mismatch(self, seed: int = 0) -> float:
        """``|<A x, y> - <x, A^H y>|`` over ``|A x| |y|`` for random x and y: rounding for a true adjoint."""
        drawn = torch_generator(seed, 0x34, 1)
        x = self._random(self.image_shape, self.complex_image, drawn)
        y: Tensor = self._random(self.data_shape, self.complex_data, drawn)
        Ax, AHy = self._forward(x), self._adjoint_of(y)
        gap = _inner(Ax, y) - _inner(x, AHy)
        if not self.complex_image:
            gap = gap.real
        size = float(torch.linalg.vector_norm(Ax) * torch.linalg.vector_norm(y))
        return abs(complex(gap)) / (size or 1.0)

    def tree(self) -> dict[str, object]:
        """What makes this operator, for fingerprints."""
        return {"kind": type(self).__qualname__, **self.given}

    def on(self, name: str, like: Tensor) -> Tensor:
        """The tensor that is kept under ``name``, on the device and in the precision of ``like``."""
        kept: Tensor = getattr(self, name)
        precision = like.real.dtype if like.is_complex() else like.dtype
        key = (name, like.device, precision)
        if key not in self._held:
            wide = precision == torch.float64
            kind = (torch.complex128 if wide else torch.complex64) if kept.is_complex() else precision
            self._held[key] = kept.to(like.device, kind)
        return self._held[key]

    def _largest(self) -> float:
        """By Lanczos' three terms on the Gram operator: copies of values that have converged do no harm here."""
        q = self._random(self.image_shape, self.complex_image, torch_generator(0x34))
        q /= torch.linalg.vector_norm(q)
        last, beta, top = torch.zeros_like(q), 0.0, 0.0
        diagonal: list[float] = []
        beside: list[float] = []
        for _ in range(NORM_STEPS):
            w = self.gram(q) - beta * last
            diagonal.append(float(torch.vdot(q.flatten(), w.flatten()).real))
            w -= diagonal[-1] * q
            beta = float(torch.linalg.vector_norm(w))
            end = len(diagonal) - 1
            values, vectors = eigh_tridiagonal(diagonal, beside, select="i", select_range=(end, end))
            top = float(values[0])
            if beta * abs(float(vectors[-1, 0])) <= NORM_TOL * top:
                break
            beside.append(beta)
            last, q = q, w / beta
        return math.sqrt(max(top, 0.0))

    def _random(self, shape: tuple[int, ...], is_complex: bool, drawn: torch.Generator) -> Tensor:
        return torch.randn(
            (1, *shape), generator=drawn, dtype=torch.complex128 if is_complex else torch.float64
        )

    def _applied(self, values: T, name: str, shape: tuple[int, ...], is_complex: bool, *, forward: bool) -> T:
        found = _as_tensor(f"{type(self).__name__}: {name}", values, shape, is_complex)
        single = found.ndim == len(shape)
        batch = found[None] if single else found
        out = self._forward(batch) if forward else self._adjoint_of(batch)
        return _like(out[0] if single else out, values)

    # SciPy's view: flat vectors, real and imaginary parts apart where only the data are complex.

    @property
    def _split(self) -> bool:
        return self.complex_data and not self.complex_image

    def _matmat(self, X: NDArray[np.generic]) -> NDArray[np.generic]:
        x = torch.from_numpy(np.ascontiguousarray(X.T)).reshape(-1, *self.image_shape)
        x = x.to(torch.complex128 if self.complex_image else torch.float64)
        y = self._forward(x).reshape(len(x), -1)
        flat = torch.cat([y.real, y.imag], 1) if self._split else y
        return np.asarray(flat.numpy().T)

    def _rmatmat(self, Y: NDArray[np.generic]) -> NDArray[np.generic]:
        flat = torch.from_numpy(np.ascontiguousarray(Y.T))
        half = flat.shape[1] // 2
        y = torch.complex(flat[:, :half].contiguous(), flat[:, half:].contiguous()) if self._split else flat
        y = y.reshape(-1, *self.data_shape).to(torch.complex128 if self.complex_data else torch.float64)
        return np.asarray(self._adjoint_of(y).reshape(len(y), -1).numpy().T)

    def _matvec(self, x: NDArray[np.generic]) -> NDArray[np.generic]:
        return self._matmat(x.reshape(-1, 1))[:, 0]

    def _rmatvec(self, y: NDArray[np.generic]) -> NDArray[np.generic]:
        return self._rmatmat(y.reshape(-1, 1))[:, 0]


@dataclass(frozen=True, eq=False)
class _DenseSVD(SVD):
    U: Tensor  # (k, measurements)
    V: Tensor  # (k, pixels)
    image_shape: tuple[int, ...]
    is_split: bool

    @classmethod
    def of(cls, operator: Operator) -> _DenseSVD:
        m, n = operator.shape
        matrix = torch.from_numpy(np.ascontiguousarray(operator.matmat(np.eye(n))))
        # wide ones get the rest of the basis, so that `back` gives every image
        U, s, Vh = torch.linalg.svd(matrix, full_matrices=m < n)
        s, U = torch.cat([s, s.new_zeros(n - len(s))]), torch.cat([U, U.new_zeros(m, n - U.shape[1])], 1)
        return cls(s, U.mH.contiguous(), Vh, operator.image_shape, operator._split)

    def into(self, x: Tensor) -> Tensor:
        return x.reshape(len(x), -1) @ self.V.to(x.device, x.dtype).mT

    def back(self, c: Tensor) -> Tensor:
        return (c @ self.V.to(c.device, c.dtype).conj()).reshape(len(c), *self.image_shape)

    def measured(self, y: Tensor) -> Tensor:
        flat = y.reshape(len(y), -1)
        flat = torch.cat([flat.real, flat.imag], 1) if self.is_split else flat
        return flat @ self.U.to(flat.device, flat.dtype).mT


def _inner(u: Tensor, v: Tensor) -> Tensor:
    return torch.vdot(u.reshape(-1).to(torch.complex128), v.reshape(-1).to(torch.complex128))


def _as_tensor(name: str, values: object, shape: tuple[int, ...], is_complex: bool) -> Tensor:
    """A floating or complex tensor of the shape, or with one dimension before it, or `InvalidProblem`."""
    try:
        found = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    except (TypeError, ValueError) as error:
        raise InvalidProblem(f"{name} is no array of numbers: {error}.") from error
    if tuple(found.shape[-len(shape) :]) != shape or found.ndim > len(shape) + 1 or not found.numel():
        raise InvalidProblem(
            f"{name} has shape {tuple(found.shape)}; expected {shape}, or (batch, {str(shape)[1:]}."
        )
    if found.is_complex() and not is_complex:
        raise InvalidProblem(f"{name} is complex and is real here; pass its real part if that is meant.")
    if not found.is_complex() and not found.is_floating_point():
        found = found.to(torch.float64)
    if is_complex and not found.is_complex():
        found = found.to(torch.complex64 if found.dtype == torch.float32 else torch.complex128)
    if found.dtype in (torch.float16, torch.bfloat16):
        found = found.float()
    return found


def _like(found: Tensor, given: T) -> T:
    return found if isinstance(given, Tensor) else found.numpy()

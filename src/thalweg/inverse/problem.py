"""Measurements to turn back into an image: what is given, and how well an answer meets it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from thalweg.core import InvalidProblem, Problem
from thalweg.core.validation import check_finite, is_real, require
from thalweg.inverse.operators.base import Operator, _as_tensor
from thalweg.inverse.quality import peak_signal_noise_ratio, ssim

#: Residual that a finished run may have, beside that of the noise.
FIT = 0.05


@dataclass(frozen=True, eq=False)
class InverseProblem(Problem):
    """``y = A x + n``: find the image x, or one image for each y of a batch.

    Args:
        operator: A.
        y: data, an array or a tensor of shape ``operator.data_shape``, or with a batch before it.
        sigma: deviation of the noise in each number of y (of complex ones, in each of the two parts). Default 0.
        truth: the images, where they are known; for metrics alone.
        device: where the images are worked out; default that of y.

    An answer is a tensor of shape ``operator.image_shape``, with a batch where y has one, as precise as y.

    Metrics: ``residual``, ``|y - A x| / |y|`` of the whole batch. With the truth also ``rmse``, and ``psnr`` and
    ``ssim`` on the range [-1, 1].

    Raises:
        InvalidProblem: shapes that do not fit, complex data of a real operator, numbers where nothing is measured.
        NotFinite: NaN in y. InvalidParameter: sigma < 0.

    >>> from thalweg.inverse import Inpainting
    >>> problem = InverseProblem(Inpainting([[1, 0]]), [[2.0, 0.0]])
    >>> problem.metrics(torch.tensor([[1.0, 5.0]]))
    {'residual': 0.5}
    """

    operator: Operator
    y: ArrayLike | Tensor
    sigma: float = 0.0
    truth: ArrayLike | Tensor | None = None
    device: str | None = None
    #: y as a batch.
    data: Tensor = field(init=False, compare=False)

    def __post_init__(self) -> None:
        require(
            is_real(self.sigma) and 0 <= self.sigma < math.inf,
            "InverseProblem needs sigma >= 0",
            got=self.sigma,
        )
        A = self.operator
        if not isinstance(A, Operator):
            raise InvalidProblem(
                f"InverseProblem: the operator is a {type(A).__name__}; expected an Operator of thalweg.inverse."
            )
        y = _as_tensor("InverseProblem: y", self.y, A.data_shape, A.complex_data).detach()
        check_finite(
            "InverseProblem: y", (torch.view_as_real(y.resolve_conj()) if y.is_complex() else y).cpu().numpy()
        )
        farthest = torch.finfo(y.real.dtype).max ** 0.45  # sums of squares are numbers
        if float(y.abs().max()) > farthest:
            raise InvalidProblem(
                f"InverseProblem: y reaches {float(y.abs().max()):.3g}; expected data up to {farthest:.3g}, whose "
                "squares are numbers. Scale y down."
            )
        y = y if self.device is None else y.to(self.device)
        data = y if y.ndim > len(A.data_shape) else y[None]
        if not torch.equal(A.sampled(data), data):
            raise InvalidProblem(
                "InverseProblem: y holds numbers where the mask measures nothing; pass operator.sampled(y)."
            )
        object.__setattr__(self, "y", y)
        object.__setattr__(self, "data", data)
        if self.truth is not None:
            truth = _as_tensor("InverseProblem: truth", self.truth, A.image_shape, A.complex_image).to(
                y.device
            )
            if truth.shape != self.answer(self.start()).shape:
                raise InvalidProblem(
                    f"InverseProblem: truth has shape {tuple(truth.shape)}; expected "
                    f"{tuple(self.answer(self.start()).shape)}, as y has."
                )
            object.__setattr__(self, "truth", truth)

    @property
    def is_batch(self) -> bool:
        """Whether y is a batch."""
        return self.data is self.y

    @property
    def level(self) -> float:
        """The residual that noise alone gives: ``sigma sqrt(numbers) / |y|``."""
        measured = self.operator.sampled(torch.ones_like(self.data)).abs().sum()
        numbers = float(measured) * (2 if self.operator.complex_data else 1)
        return self.sigma * math.sqrt(numbers) / (float(torch.linalg.vector_norm(self.data)) or 1.0)

    def start(self) -> Tensor:
        """Zeros for a batch of images."""
        wide = self.data.dtype in (torch.float64, torch.complex128)
        precision = torch.float64 if wide else torch.float32
        kind = (torch.complex128 if wide else torch.complex64) if self.operator.complex_image else precision
        return torch.zeros((len(self.data), *self.operator.image_shape), dtype=kind, device=self.data.device)

    def answer(self, batch: Tensor) -> Tensor:
        """A batch of images in the form that y has."""
        return batch if self.is_batch else batch[0]

    def residual(self, batch: Tensor) -> float:
        """``|y - A x| / |y|`` of a batch of images."""
        gap = float(torch.linalg.vector_norm(self.data - self.operator._forward(batch)))
        return gap / (float(torch.linalg.vector_norm(self.data)) or 1.0)

    def fits(self, residual: float) -> bool:
        """Whether a residual is that of the noise, or nearly zero without noise."""
        return residual <= 1.5 * self.level + FIT

    def metrics(self, x: ArrayLike | Tensor) -> dict[str, float]:
        """Judge an image, or a batch."""
        A = self.operator
        found = _as_tensor("x", x, A.image_shape, A.complex_image).to(self.start())
        batch = found if found.ndim > len(A.image_shape) else found[None]
        if len(batch) != len(self.data):
            raise InvalidProblem(
                f"x holds {len(batch)} images and y {len(self.data)} measurements of one each."
            )
        metrics = {"residual": self.residual(batch)}
        if self.truth is not None:
            error = batch - torch.as_tensor(self.truth).reshape(batch.shape)
            metrics["rmse"] = float(error.abs().square().mean().sqrt())
            if math.isfinite(metrics["rmse"]):
                metrics["psnr"] = peak_signal_noise_ratio(found, self.truth)
                if min(A.image_shape[-2:]) >= 7:
                    metrics["ssim"] = ssim(found, self.truth)
        return metrics


def repeated(values: ArrayLike | Tensor, times: int) -> Tensor:
    """A tensor of copies, shape (times, ...)."""
    tensor = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    return tensor[None].expand(times, *tensor.shape).contiguous()

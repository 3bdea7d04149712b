"""A volume measured slice by slice."""

from __future__ import annotations

from torch import Tensor

from thalweg.core import InvalidProblem
from thalweg.core.validation import is_whole, require
from thalweg.inverse.operators.base import Layout, Operator


class SliceStack(Operator):
    """One operator on every slice: images of shape (depth, height, width), data of shape (depth, *data).

    Args:
        operator: of one slice, with images of shape (height, width).
        depth: slices.
        check: test the adjoint.

    >>> from thalweg.inverse import Radon
    >>> SliceStack(Radon(16, 4), 3).data_shape
    (3, 4, 16)
    """

    layout: Layout = "slices"

    def __init__(self, operator: Operator, depth: int, *, check: bool = True) -> None:
        require(is_whole(depth) and depth >= 1, "SliceStack needs depth >= 1", got=depth)
        if operator.layout != "plane":
            raise InvalidProblem(
                f"SliceStack: the operator's images have shape {operator.image_shape}; expected (height, width)."
            )
        self.operator, self.depth = operator, depth
        super().__init__(
            (depth, *operator.image_shape),
            (depth, *operator.data_shape),
            complex_image=operator.complex_image,
            complex_data=operator.complex_data,
            given={"operator": operator, "depth": depth},
            check=check,
        )

    def _forward(self, x: Tensor) -> Tensor:
        return self._stacked(self.operator._forward(x.flatten(0, 1)))

    def _adjoint_of(self, y: Tensor) -> Tensor:
        return self._stacked(self.operator._adjoint_of(y.flatten(0, 1)))

    def gram(self, x: Tensor) -> Tensor:
        return self._stacked(self.operator.gram(x.flatten(0, 1)))

    def norm(self) -> float:
        return self.operator.norm()

    def sampled(self, y: Tensor) -> Tensor:
        return self._stacked(self.operator.sampled(y.flatten(0, 1)))

    def _stacked(self, slices: Tensor) -> Tensor:
        return slices.reshape(-1, self.depth, *slices.shape[1:])

"""What gives the plain value of a node: here the trace ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast


class PlainViews:
    """Truth, length, numbers and text of ``data``."""

    __slots__ = ()

    @property
    def data(self) -> object:
        """The plain value."""
        raise NotImplementedError

    def __str__(self) -> str:
        return str(self.data)

    def __format__(self, form: str) -> str:
        return format(self.data, form)

    def __bool__(self) -> bool:
        return bool(self.data)

    def __len__(self) -> int:
        return len(cast(Sequence[object], self.data))

    def __int__(self) -> int:
        return int(cast(int, self.data))

    def __float__(self) -> float:
        return float(cast(float, self.data))

    def __index__(self) -> int:
        return cast(int, self.data).__index__()

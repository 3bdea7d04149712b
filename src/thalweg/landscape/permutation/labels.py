"""Axes of tensors as products and sums of sets of units, joined where an operation makes them one."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass


@dataclass(eq=False)
class Units:
    """A set of units: one with others, split into factors, cut into runs, or itself."""

    size: int
    pinned: bool = False
    same: Units | None = None
    factors: list[Units] | None = None
    runs: list[Units] | None = None
    under: Units | None = None  # whose units have an order of these each
    repeated: bool = False  # one value many times: it hangs under whatever it meets

    def root(self) -> Units:
        """The set that stands for all that are joined with it."""
        at = self
        while at.same is not None:
            at = at.same
        return at

    def pin(self) -> None:
        """Its units stay where they are."""
        at = self.root()
        at.pinned = True
        for part in (*(at.factors or ()), *(at.runs or ())):
            part.pin()


Product = list[Units]
#: An axis: runs one after the other, each a product of sets of units, the slowest first.
Dim = list[Product]
Label = list[Dim]


def free(size: int) -> Dim:
    """An axis whose units may change places."""
    return [[Units(size)]] if size > 1 else [[]]


def fixed(size: int) -> Dim:
    """An axis whose units stay."""
    return [[Units(size, pinned=True)]] if size != 1 else [[]]


def size_of(product: Product) -> int:
    """How many entries a product has."""
    return math.prod(u.size for u in product)


def extent(dim: Dim) -> int:
    """How many entries an axis has."""
    return sum(size_of(product) for product in dim)


def resolved(dim: Dim) -> Dim:
    """The axis in sets of units that are neither joined, split nor cut."""
    found: Dim = []
    for product in dim:
        opened: Dim = [[]]
        for units in product:
            parts = _opened(units.root())
            if len(parts) > 1 and (opened != [[]]):  # runs inside a product are of no one's order
                units.pin()
                parts = [[Units(units.size, pinned=True)]]
            opened = (
                [[*left, *part] for left in opened for part in parts]
                if len(opened) == 1 or len(parts) == 1
                else []
            )
        found += opened
    return found


def _opened(units: Units) -> Dim:
    if units.factors is not None:
        return resolved([units.factors])
    if units.runs is not None:
        return [p for part in units.runs for p in resolved([[part]])]
    return [[units]]


def split(units: Units, outer: int) -> tuple[Units, Units]:
    """Factors of a set of units: ``outer`` of them, and what is inside each."""
    first, second = Units(outer, units.pinned), Units(units.size // outer, units.pinned)
    second.under = first
    first.under = units.under
    units.factors = [first, second]
    return first, second


def is_pinned(dim: Dim) -> bool:
    """Whether nothing of an axis moves."""
    return all(u.pinned for product in resolved(dim) for u in product)


def pin(dim: Dim) -> None:
    """Hold all of an axis in place."""
    for product in dim:
        for units in product:
            units.pin()


def join(a: Dim, b: Dim) -> None:
    """Make two axes one: what moves the one moves the other. Where their parts do not fit, they stay."""
    one, two = resolved(a), resolved(b)
    if [size_of(p) for p in one] != [size_of(p) for p in two]:
        ends = sorted({*_ends(one), *_ends(two)})
        cut(a, ends)
        cut(b, ends)
        one, two = resolved(a), resolved(b)
    if [size_of(p) for p in one] != [size_of(p) for p in two]:
        pin(a)
        pin(b)
        return
    for left, right in zip(one, two, strict=True):
        _join_products(left, right)


def _ends(dim: Dim) -> list[int]:
    total, found = 0, []
    for product in dim:
        total += size_of(product)
        found.append(total)
    return found


def cut(dim: Dim, ends: list[int]) -> None:
    """Cut an axis into runs that end at the places; products that cannot be cut there stay where they are."""
    start = 0
    for product in resolved(dim):
        size = size_of(product)
        inner = [e - start for e in ends if start < e < start + size]
        start += size
        if not inner:
            continue
        if len(product) == 1:
            bounds = [0, *inner, size]
            units = product[0]
            units.runs = [Units(j - i, units.pinned) for i, j in itertools.pairwise(bounds)]
        else:
            pin([product])


def _join_products(left: Product, right: Product) -> None:
    one, two = list(left), list(right)
    while one and two:
        u, v = one.pop(0).root(), two.pop(0).root()
        if u is v:
            continue
        if u.size == v.size:
            v.same = u
            if v.pinned:
                u.pin()
            if u.repeated or v.repeated:
                u.under = v.under if u.repeated else u.under
                u.repeated = u.repeated and v.repeated
            elif u.under is not v.under and not _is_same(u.under, v.under):
                u.under = _common(u.under, v.under)
        elif u.size > v.size and u.size % v.size == 0:
            one[:0] = split(u, v.size)
            two.insert(0, v)
        elif v.size > u.size and v.size % u.size == 0:
            two[:0] = split(v, u.size)
            one.insert(0, u)
        else:
            for units in (u, v, *one, *two):
                units.pin()
            return


def top(units: Units | None) -> Units | None:
    """The outermost set that a set hangs under, itself if none; sets that stay hold nothing under them."""
    if units is None:
        return None
    at = _first(units)
    while at.under is not None and not isinstance(at.under, Both) and not _first(at.under).pinned:
        at = _first(at.under)
    return None if at.pinned else at


def _first(units: Units) -> Units:
    at = units.root()
    while at.factors is not None:
        at = at.factors[0].root()
    return at


def _is_same(a: Units | None, b: Units | None) -> bool:
    return a is not None and b is not None and a.root() is b.root()


def _common(a: Units | None, b: Units | None) -> Units | None:
    """What both hang under, when the one's is a factor of the other's; decided for good at the end."""
    if a is None or b is None:
        return None
    return Both(1, one=a, two=b)


@dataclass(eq=False)
class Both(Units):
    """Two sets under which one hangs; they have to come out as one."""

    one: Units | None = None
    two: Units | None = None


def parent(units: Units) -> Units | None:
    """The set whose units have orders of these each, or None where there is none."""
    under = units.root().under
    if isinstance(under, Both):
        a, b = _settled(under.one), _settled(under.two)
        return a if a is b else None
    return _settled(under)


def _settled(units: Units | None) -> Units | None:
    if isinstance(units, Both):
        a, b = _settled(units.one), _settled(units.two)
        return a if a is b else None
    return top(units)


def regrouped(label: Label, shape: tuple[int, ...]) -> Label:
    """The label of a tensor looked at in another shape."""
    source, target, found = [d for d in label], list(shape), []
    while source or target:
        ins: list[Dim] = [source.pop(0)] if source else []
        outs = [target.pop(0)] if target else []
        i, o = math.prod(extent(d) for d in ins), math.prod(outs)
        while i != o:
            if i < o:
                ins.append(source.pop(0))
                i *= extent(ins[-1])
            else:
                outs.append(target.pop(0))
                o *= outs[-1]
        found += _regroup(ins, outs)
    return found


def _regroup(ins: list[Dim], outs: list[int]) -> list[Dim]:
    large = [d for d in ins if extent(d) > 1]
    if len([o for o in outs if o > 1]) <= 1 and len(large) <= 1:
        return [large[0] if o > 1 else [[]] for o in outs]
    opened = [resolved(d) for d in large]
    if any(len(d) > 1 for d in opened):
        if len([o for o in outs if o > 1]) == 1 and all(len(d) == 1 for d in opened[1:]):
            rest = [u for d in opened[1:] for u in d[0]]
            return [[[*product, *rest] for product in opened[0]] if o > 1 else [[]] for o in outs]
        for d in large:
            pin(d)
        return [fixed(o) for o in outs]
    line = [u for d in opened for u in d[0]]
    found: list[Dim] = []
    for o in outs:
        product, left = [], o
        while left > 1:
            units = line.pop(0)
            if left % units.size == 0:
                product.append(units)
                left //= units.size
            elif units.size % left == 0:
                first, second = split(units, left)
                product.append(first)
                line.insert(0, second)
                left = 1
            else:
                for d in large:
                    pin(d)
                return [fixed(n) for n in outs]
        found.append([product])
    return found

"""How the labels of an operation's outputs follow from those of its inputs, by ATen's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from thalweg.landscape.permutation import labels as axes
from thalweg.landscape.permutation.labels import Dim, Label, Units

Look = Callable[[Tensor], Label]
#: What operations take and give: tensors, numbers, lists of them.
Given = Any
Named = Mapping[str, Given]
Rule = Callable[[Look, Given, Named, Given], list[Label]]

RULES: dict[str, Rule] = {}

#: Operations on each number by itself that ATen does not mark as such.
ALSO_POINTWISE = {
    *("clone", "detach", "alias", "_to_copy", "dropout", "lift_fresh", "copy", "contiguous", "zeros_like"),
    *("ones_like", "empty_like", "full_like", "native_dropout", "masked_fill", "where", "fill", "rsub"),
    "zero",
}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Keep a rule under names of operations."""

    def keep(function: Rule) -> Rule:
        for name in names:
            RULES[name] = function
        return function

    return keep


def is_pointwise(func: Given, name: str) -> bool:
    """Whether an operation treats each number by itself."""
    return torch.Tag.pointwise in func.tags or name in ALSO_POINTWISE


def broadcast(labels: list[Label], rank: int) -> Label:
    """The label of numbers met one by one: axes of more than one unit are joined."""
    found: Label = []
    for k in range(1, rank + 1):
        dims = [label[-k] for label in labels if len(label) >= k and axes.extent(label[-k]) != 1]
        for other in dims[1:]:
            axes.join(dims[0], other)
        found.insert(0, dims[0] if dims else [[]])
    return found


def pointwise(look: Look, args: Given, kwargs: Named, out: Given) -> list[Label]:
    """Numbers met one by one."""
    given = [look(v) for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor)]
    results = [v for v in tree_leaves(out) if isinstance(v, Tensor)]
    return [broadcast(given, v.ndim) for v in results]


@rule("t")
def _t(look: Look, args: Given, kwargs: Named, out: Given) -> list[Label]:
    return [look(args[0])[::-1]]


@rule("transpose")
def _transpose(look: Look, args: Given, kwargs: Named, out: Given) -> list[Label]:
    label = list(look(args[0]))
    i, j = args[1], args[2]
    label[i], label[j] = label[j], label[i]
    return [label]


@rule("permute")
def _permute(look: Look, args: Given, kwargs: Named, out: Given) -> list[Label]:
    label = look(args[0])
    return [[label[i] for i in args[1]]]


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "unsqueeze", "squeeze", "flatten", "unflatten")
def _view(look: Look, args: Given, kwargs: Named, out: Tensor) -> list[Label]:
    return [axes.regrouped(look(args[0]), tuple(out.shape))]


@rule("expand")
def _expand(look: Look, args: Given, kwargs: Named, out: Tensor) -> list[Label]:
    """New axes hold one value many times: their units may change places."""
    label = look(args[0])
    new: Label = [[[]] for _ in range(out.ndim - len(label))]
    old = [*new, *label]
    repeated: Label = [[[Units(n, repeated=True)]] if n > 1 else [[]] for n in out.shape]
    return [[d if axes.extent(d) == n else r for d, n, r in zip(old, out.shape, repeated, strict=True)]]


def _matrix(a: Label, b: Label) -> Label:
    for one, two in zip(a[:-2], b[:-2], strict=True):
        if axes.extent(one) == axes.extent(two):
            axes.join(one, two)
    axes.join(a[-1], b[-2])
    return [*a[:-1], b[-1]]


@rule("mm", "bmm", "matmul")
def _mm(look: Look, args: Given, kwargs: Named, out: Given) -> list[Label]:
    return [_matrix(look(args[0]), look(args[1]))]


@rule("addmm", "baddbmm")
def _addmm(look: Look, args: Given, kwargs: Named, out: Tensor) -> list[Label]:
    return [broadcast([_matrix(look(args[1]), look(args[2])), look(args[0])], out.ndim)]


@rule("linear")
def _linear(look: Look, args: Given, kwargs: Named, out: Tensor) -> list[Label]:
    x, weight = look(args[0]), look(args[1])
    axes.join(x[-1], weight[1])
    found = [*x[:-1], weight[0]]
    return [broadcast([found, look(args[2])], out.ndim) if len(args) > 2 and args[2] is not None else found]


@rule("convolution", "_convolution", "mkldnn_convolution", "cudnn_convolution")
def _convolution(look: Look, args: Given, kwargs: Named, out: Tensor) -> list[Label]:
    x, weight, bias = look(args[0]), look(args[1]), args[2]
    transposed, groups = args[6], args[8]
    for dim in [*x[2:], *weight[2:]]:
        axes.pin(dim)
    into, outof = (weight[0], weight[1]) if transposed else (weight[1], weight[0])
    if groups == 1:
        axes.join(x[1], into)
    elif transposed:
        for dim in (x[1], into, outof):
            axes.pin(dim)
        outof = axes.fixed(out.shape[1])
    else:
        group = Units(groups)
        axes.join(x[1], [[group, *into[0]]])
        inner = Units(out.shape[1] // groups)
        axes.join(outof, [[group, inner] if inner.size > 1 else [group]])
        inner.under = group
    if bias is not None:
        axes.join(outof, look(bias)[0])
    return [[x[0], outof, *(axes.fixed(n) for n in out.shape[2:])]]


@rule("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "_native_batch_norm_legit",
      "_batch_norm_no_update", "_batch_norm_impl_index", "batch_norm")  # fmt: skip
def _batch_norm(look: Look, args: Given, kwargs: Named, out: Given) -> list[Label]:
    x = look(args[0])
    for value in args[1:5]:
        if isinstance(value, Tensor):
            axes.join(x[1], look(value)[0])
    return [x]


@rule("native_layer_norm", "layer_norm", "_fused_rms_norm", "rms_norm")
def _layer_norm(look: Look, args: Given, kwargs: Named, out: Given) -> list[Label]:
    x = look(args[0])
    for value in args[2:4]:
        if isinstance(value, Tensor):
            for one, two in zip(x[len(x) - value.ndim :], look(value), strict=True):
                axes.join(one, two)
    return [x]


@rule("native_group_norm")
def _group_norm(look: Look, args: Given, kwargs: Named, out: Given) -> list[Label]:
    x, groups = look(args[0]), args[6]
    inner = Units(args[4] // groups)
    group = Units(groups)
    inner.under = group
    axes.join(x[1], [[u for u in (group, inner) if u.size > 1]])
    for value in args[1:3]:
        if isinstance(value, Tensor):
            axes.join(x[1], look(value)[0])
    return [x]


@rule("_softmax", "_log_softmax", "_safe_softmax", "softmax", "log_softmax")
def _softmax(look: Look, args: Given, kwargs: Named, out: Given) -> list[Label]:
    return [look(args[0])]


@rule("mean", "sum", "amax", "amin", "var", "std", "linalg_vector_norm", "norm", "logsumexp", "var_mean")
def _reduce(look: Look, args: Given, kwargs: Named, out: Given) -> list[Label]:
    x, (first, *_) = look(args[0]), [v for v in tree_leaves(out) if isinstance(v, Tensor)]
    given = [v for v in [*args[1:], kwargs.get("dim")] if isinstance(v, list | tuple)]
    ints = [v for v in args[1:2] if isinstance(v, int) and not isinstance(v, bool)]
    dims = {d % len(x) for d in (given[0] if given else ints)} or set(range(len(x)))
    kept = first.ndim == len(x)
    label: Label = [[[]] if k in dims else d for k, d in enumerate(x) if kept or k not in dims]
    return [label] * len(tree_leaves(out))


@rule("max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d", "upsample_nearest2d",
      "upsample_bilinear2d", "avg_pool1d", "max_pool2d", "mkldnn_max_pool2d",
      "constant_pad_nd", "upsample_nearest1d")  # fmt: skip
def _pool(look: Look, args: Given, kwargs: Named, out: Given) -> list[Label]:
    x, value = look(args[0]), tree_leaves(out)[0]
    found: Label = []
    for k, (dim, n) in enumerate(zip(x, value.shape, strict=True)):
        if k >= 2 or axes.extent(dim) != n:
            axes.pin(dim)
            dim = axes.fixed(n)
        found.append(dim)
    return [found]


@rule("embedding")
def _embedding(look: Look, args: Given, kwargs: Named, out: Tensor) -> list[Label]:
    weight = look(args[0])
    axes.pin(weight[0])
    return [[*(axes.fixed(n) for n in out.shape[:-1]), weight[1]]]


@rule("cat")
def _cat(look: Look, args: Given, kwargs: Named, out: Tensor) -> list[Label]:
    parts = [look(v) for v in args[0] if v.numel()]
    along = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.ndim
    found: Label = []
    for k in range(out.ndim):
        if k == along:
            found.append([p if p else [Units(1, pinned=True)] for label in parts for p in label[k]])
        else:
            for other in parts[1:]:
                axes.join(parts[0][k], other[k])
            found.append(parts[0][k])
    return [found]


@rule("stack")
def _stack(look: Look, args: Given, kwargs: Named, out: Tensor) -> list[Label]:
    along = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % out.ndim
    found = broadcast([look(v) for v in args[0]], out.ndim - 1)
    return [[*found[:along], axes.fixed(len(args[0])), *found[along:]]]


def _run(dim: Dim, start: int, stop: int) -> Dim:
    """The entries of an axis from a place to another."""
    total = axes.extent(dim)
    if (start, stop) == (0, total):
        return dim
    axes.cut(dim, [e for e in (start, stop) if 0 < e < total])
    found, at = [], 0
    for product in axes.resolved(dim):
        size = axes.size_of(product)
        if start <= at and at + size <= stop:
            found.append(product)
        elif at < stop and at + size > start:
            axes.pin(dim)
            return axes.fixed(stop - start)
        at += size
    return found


@rule("split", "split_with_sizes", "chunk")
def _split(look: Look, args: Given, kwargs: Named, out: Given) -> list[Label]:
    x = look(args[0])
    along = (args[2] if len(args) > 2 else kwargs.get("dim", 0)) % len(x)
    found, start = [], 0
    for value in out:
        stop = start + value.shape[along]
        found.append([*x[:along], _run(x[along], start, stop), *x[along + 1 :]])
        start = stop
    return found


@rule("slice")
def _slice(look: Look, args: Given, kwargs: Named, out: Tensor) -> list[Label]:
    x = look(args[0])
    along = (args[1] if len(args) > 1 else 0) % len(x)
    total = axes.extent(x[along])
    start = 0 if len(args) < 3 or args[2] is None else min(args[2] + total if args[2] < 0 else args[2], total)
    if len(args) > 4 and args[4] != 1:
        axes.pin(x[along])
        dim = axes.fixed(out.shape[along])
    else:
        dim = _run(x[along], start, start + out.shape[along])
    return [[*x[:along], dim, *x[along + 1 :]]]


@rule("select", "unbind")
def _select(look: Look, args: Given, kwargs: Named, out: Given) -> list[Label]:
    x = look(args[0])
    along = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % len(x)
    axes.pin(x[along])
    label = [*x[:along], *x[along + 1 :]]
    return [label] * len(tree_leaves(out))


@rule("index")
def _index(look: Look, args: Given, kwargs: Named, out: Tensor) -> list[Label]:
    """Tables read by place: the axis that is read stays, the others keep their units."""
    x = look(args[0])
    read = [k for k, value in enumerate(args[1]) if value is not None]
    for k in read:
        axes.pin(x[k])
    new = [axes.fixed(n) for n in np.broadcast_shapes(*(args[1][k].shape for k in read))]
    if any(args[1][k].dtype == torch.bool for k in read):
        return [[axes.fixed(n) for n in out.shape]]
    rest = [d for k, d in enumerate(x) if k not in read]
    at = read[0] if read == list(range(read[0], read[-1] + 1)) else 0
    return [[*rest[:at], *new, *rest[at:]]]


@rule("roll")
def _roll(look: Look, args: Given, kwargs: Named, out: Tensor) -> list[Label]:
    x, dims = look(args[0]), args[2] if len(args) > 2 else ()
    for k in dims or range(len(x)):
        axes.pin(x[k])
    return [x]


@rule("as_strided")
def _as_strided(look: Look, args: Given, kwargs: Named, out: Tensor) -> list[Label]:
    """The same numbers in another layout, as pooling of channels-last images does; any other look holds all."""
    x = look(args[0])
    laid = zip(args[1], args[2], torch.empty(out.shape, device="meta").stride(), strict=True)
    if len(x) == out.ndim and all(n == 1 or given == plain for n, given, plain in laid):
        return [x]
    for dim in x:
        axes.pin(dim)
    return [[axes.fixed(n) for n in out.shape]]


@rule("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
      "_scaled_dot_product_efficient_attention", "_scaled_dot_product_cudnn_attention",
      "_scaled_dot_product_attention_math", "_scaled_dot_product_fused_attention_overrideable")  # fmt: skip
def _attention(look: Look, args: Given, kwargs: Named, out: Given) -> list[Label]:
    """Queries, keys, values of shape (batch, heads, places, inside); fewer key heads serve several query heads each."""
    q, k, v = (look(x) for x in args[:3])
    shared = axes.extent(q[1]) // max(axes.extent(k[1]), 1)
    if shared > 1:
        group, inside = Units(axes.extent(k[1])), Units(shared)
        inside.under = group
        axes.join(q[1], [[u for u in (group, inside) if u.size > 1]])
        if group.size > 1:
            axes.join(k[1], [[group]])
    else:
        axes.join(q[1], k[1])
    axes.join(k[1], v[1])
    axes.join(q[3], k[3])
    axes.join(k[2], v[2])
    return [[q[0], q[1], q[2], v[3]]]

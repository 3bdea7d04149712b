"""Networks of a width, trained whole; the seeds run in one batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.functional import cross_entropy

from thalweg.core import InvalidProblem, NotFinite
from thalweg.core.seeding import generator
from thalweg.core.validation import is_whole, require
from thalweg.landscape._stacked import MakeOptimizer, made
from thalweg.landscape.double_descent.data import Rows
from thalweg.landscape.double_descent.families import Family, Measured
from thalweg.landscape.double_descent.spectrum import Condition, Spectrum

Array = NDArray[np.float64]

#: Test errors are looked at about so many times, evenly in the logarithm of the steps.
LOOKS = 25


@dataclass(frozen=True)
class Networks(Family):
    """Networks by width, any `nn.Module`, all layers trained.

    Args:
        make: a module of a width, with fresh weights: ``lambda width: two_layer(64, width, 10)``.
        optimizer: called with the parameters: ``lambda p: torch.optim.Adam(p, lr=1e-2)``. All seeds are trained as one
            stack, so it has to treat each number by itself (no steps that depend on a norm over all parameters).
        loss: ``"squares"``, on y of shape (n,) or (n, k); ``"cross-entropy"``, on labels 0, 1, ... of shape (n,).
        batch: rows a step, the same for all seeds; None, the default, for all rows.
        dtype: of weights and data. Default float32.

    Raises:
        InvalidProblem: modules with buffers (batch normalisation keeps statistics that a stack cannot share; layer or
            group normalisation has none), outputs of another shape than y.

    Cost per step: that of the seeds' networks, as batched products.
    """

    make: Callable[[int], nn.Module]
    optimizer: MakeOptimizer
    loss: Literal["squares", "cross-entropy"] = "squares"
    batch: int | None = None
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        require(
            self.loss in ("squares", "cross-entropy"),
            "Networks: loss is 'squares' or 'cross-entropy'",
            got=self.loss,
        )
        require(
            self.batch is None or (is_whole(self.batch) and self.batch >= 1),
            "Networks needs batch >= 1, or None",
            got=self.batch,
        )

    def module(self, width: int, seed: int) -> nn.Module:
        """The module of a width, made under a seed."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            module = self.make(int(width))
        if not isinstance(module, nn.Module):
            raise InvalidProblem(
                f"Networks: make({width}) returned a {type(module).__name__}; expected an nn.Module."
            )
        names = [name for name, _ in module.named_buffers()]
        if names:
            raise InvalidProblem(
                f"Networks: the module has buffers ({names[0]}), which seeds in one stack cannot keep apart. Use "
                "nn.LayerNorm or nn.GroupNorm in place of batch normalisation."
            )
        return module.to(self.dtype)

    def threshold(self, rows: Rows) -> float:
        """The least width with as many parameters as there are targets."""
        wanted = len(rows.y) * self._outputs(rows)
        low, high = 0, 1
        while self._parameters(high) < wanted:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._parameters(middle) >= wanted else (middle, high)
        return float(high)

    def _parameters(self, width: int) -> int:
        return sum(p.numel() for p in self.module(width, 0).parameters())

    def _outputs(self, rows: Rows) -> int:
        if self.loss == "cross-entropy":
            return int(max(rows.y.max(), rows.y_test.max())) + 1
        return rows.y.shape[1] if rows.y.ndim == 2 else 1

    def measure(self, width: int, draws: Sequence[Rows], steps: int, seeds: Sequence[int]) -> Measured:
        modules = [self.module(width, seed) for seed in seeds]
        parameters, _ = stack_module_state(modules)
        data = [self._tensors(draws, name) for name in ("X", "y", "X_test", "y_test")]
        X, y, X_test, y_test = data
        base = modules[0].to("meta")

        def outputs(theta: dict[str, Tensor], rows: Tensor) -> Tensor:
            return vmap(lambda p, x: functional_call(base, p, (x,)), randomness="different")(theta, rows)

        self._check(outputs(parameters, X[:, :1]), y[:, :1])
        optimizer = made("Networks", self.optimizer, list(parameters.values()))
        draw = generator(seeds[0], width, 0x17)
        looks = {*np.logspace(0, math.log10(steps), LOOKS).astype(int).tolist(), steps}
        best = np.full(len(seeds), np.inf)
        for step in range(1, steps + 1):
            rows, wanted = X, y
            if self.batch is not None and self.batch < X.shape[1]:
                chosen = torch.from_numpy(draw.permutation(X.shape[1])[: self.batch])
                rows, wanted = X[:, chosen], y[:, chosen]
            optimizer.zero_grad(set_to_none=True)
            loss = self._losses(outputs(parameters, rows), wanted)
            torch.autograd.backward(loss.sum())
            optimizer.step()
            if step in looks:
                with torch.no_grad():
                    best = np.fmin(best, self._losses(outputs(parameters, X_test), y_test).double().numpy())
        with torch.no_grad():
            train = self._losses(outputs(parameters, X), y).double().numpy()
            test = self._losses(outputs(parameters, X_test), y_test).double().numpy()
            size = sum(p.double().flatten(1).square().sum(1) for p in parameters.values())
        train, test = (np.where(np.isfinite(v), v, np.inf) for v in (train, test))
        return Measured(
            width,
            train,
            test,
            np.sqrt(np.asarray(torch.as_tensor(size).numpy())),
            self._conditions(width, seeds, parameters, X),
            np.full(len(seeds), np.nan),
            np.full(len(seeds), np.nan),
            best,
        )

    def _tensors(self, draws: Sequence[Rows], name: str) -> Tensor:
        values = [np.asarray(getattr(rows, name)) for rows in draws]
        if len({v.shape for v in values}) > 1:
            raise InvalidProblem(
                f"Networks: {name} needs one shape for all seeds; got {[v.shape for v in values]}."
            )
        stacked = torch.from_numpy(np.stack(values))
        if name.startswith("y") and self.loss == "cross-entropy":
            labels = stacked.long()
            if stacked.ndim != 2 or bool((labels != stacked).any()) or bool((labels < 0).any()):
                raise InvalidProblem("Networks: the cross-entropy takes labels 0, 1, ... of shape (n,).")
            return labels
        return stacked.to(self.dtype)

    def _losses(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The mean loss of each seed."""
        if self.loss == "squares":
            return (outputs.reshape(y.shape) - y).square().flatten(1).mean(1)
        return cross_entropy(outputs.movedim(-1, 1), y, reduction="none").mean(1)

    def _check(self, outputs: Tensor, y: Tensor) -> None:
        if not bool(torch.isfinite(outputs).all()):
            raise NotFinite("Networks: outputs are NaN or infinite before any training.")
        if self.loss == "cross-entropy":
            good = outputs.ndim == 3 and outputs.shape[-1] > int(y.max())
        else:
            good = outputs.numel() == y.numel()
        if not good:
            raise InvalidProblem(
                f"Networks: a row has outputs of shape {tuple(outputs.shape[2:])}; its targets have shape "
                f"{tuple(y.shape[2:])}."
            )

    def _conditions(
        self, width: int, seeds: Sequence[int], parameters: dict[str, Tensor], X: Tensor
    ) -> list[Condition]:
        """Of what the last linear layer sees of the rows to train on."""
        found = []
        for k, seed in enumerate(seeds):
            module = self.module(width, seed)
            layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
            if not layers:
                return []
            seen: list[Tensor] = []
            handle = layers[-1].register_forward_pre_hook(
                lambda _, given, seen=seen: seen.append(given[0].detach())
            )
            with torch.no_grad():
                functional_call(module, {name: p[k] for name, p in parameters.items()}, (X[k],))
            handle.remove()
            features = seen[0].flatten(0, -2).double().numpy()
            if not np.isfinite(features).all() or not features.any():
                found.append(Condition(math.inf, math.nan, 0.0, 0, 0.0, 0))
            else:
                found.append(Spectrum(features, np.zeros(len(features))).condition)
        return found


def two_layer(inputs: int, width: int, outputs: int, *, bias: bool = True) -> nn.Sequential:
    """``Linear, ReLU, Linear``.

    >>> two_layer(2, 5, 1)(torch.zeros(3, 2)).shape
    torch.Size([3, 1])
    """
    return nn.Sequential(nn.Linear(inputs, width, bias=bias), nn.ReLU(), nn.Linear(width, outputs, bias=bias))


def small_cnn(side: int, width: int, outputs: int, channels: int = 1) -> nn.Sequential:
    """Two convolutions of 3 x 3 with ``width`` and ``2 width`` channels, pooling, and a linear layer; square images.

    Rows are images, flat or of shape (channels, side, side).

    >>> small_cnn(8, 4, 10)(torch.zeros(3, 64)).shape
    torch.Size([3, 10])
    """
    require(is_whole(side) and side >= 4, "small_cnn needs images of 4 x 4 or more", got=side)
    last = side // 2 // 2
    return nn.Sequential(
        nn.Flatten(),
        nn.Unflatten(1, (channels, side, side)),
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * last * last, outputs),
    )

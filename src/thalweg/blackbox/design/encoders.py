"""Features of sequences, of soft ones too: what a proxy is linear in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from thalweg.blackbox.design.space import Codes, SequenceSpace, one_hot
from thalweg.core import InvalidProblem
from thalweg.core.validation import is_whole, require

#: From probabilities of letters, shape (batch, length, letters), to features, shape (batch, D); differentiable.
Features = Callable[[Tensor], Tensor]
#: Most features that an encoder without learning makes.
MOST = 20_000
#: Sequences encoded at once.
BATCH = 512


class Encoder(ABC):
    """Makes `Features` for a space; a frozen dataclass, so that equal ones are made once."""

    @abstractmethod
    def fitted(self, space: SequenceSpace, codes: Codes, seed: int) -> Features:
        """Features that may have learned from ``codes``, rows of the table.

        They take probabilities of letters, and a gradient must flow through them.
        """


@dataclass(frozen=True)
class OneHot(Encoder):
    """Letters by position: D = length x letters + 1, with a constant. The proxy is additive in positions.

    >>> features = OneHot().fitted(SequenceSpace("dna", 3), np.zeros((1, 3), int), 0)
    >>> features(torch.eye(4)[[0, 1, 2]][None]).shape
    torch.Size([1, 13])
    """

    def fitted(self, space: SequenceSpace, codes: Codes, seed: int) -> Features:
        return _with_constant


def _with_constant(soft: Tensor) -> Tensor:
    flat = soft.double().flatten(1)
    return torch.cat([flat, torch.ones_like(flat[:, :1])], 1)


@dataclass(frozen=True)
class LetterPairs(Encoder):
    """Letters by position, and pairs of letters by pairs of positions: a proxy with interactions.

    D grows with (length x letters)^2 / 2; for short sequences.

    Raises:
        InvalidProblem: more than 20 000 features.
    """

    def fitted(self, space: SequenceSpace, codes: Codes, seed: int) -> Features:
        first, second = np.triu_indices(space.positions, 1)
        count = len(first) * space.letters**2
        require(
            count <= MOST,
            f"LetterPairs makes {count} features of {space.positions} letters; at most {MOST}. Take KMers or "
            "MaskedLetters",
            got=space.positions,
            error=InvalidProblem,
        )
        left, right = torch.from_numpy(first), torch.from_numpy(second)

        def features(soft: Tensor) -> Tensor:
            soft = soft.double()
            pairs = soft[:, left, :, None] * soft[:, right, None, :]
            return torch.cat([_with_constant(soft), pairs.flatten(1)], 1)

        return features


@dataclass(frozen=True)
class KMers(Encoder):
    """How often each word of ``k`` letters stands in a sequence, over the places: D = letters^k + 1, no positions.

    Args:
        k: default 3.

    Raises:
        InvalidProblem: k longer than the sequence, or more than 20 000 words.
    """

    k: int = 3

    def __post_init__(self) -> None:
        require(is_whole(self.k) and self.k >= 1, "KMers needs k >= 1", got=self.k)

    def fitted(self, space: SequenceSpace, codes: Codes, seed: int) -> Features:
        require(
            self.k <= space.positions and space.letters**self.k <= MOST,
            f"KMers needs k <= {space.positions} and at most {MOST} words of {space.letters} letters",
            got=self.k,
            error=InvalidProblem,
        )

        def features(soft: Tensor) -> Tensor:
            words = words_of(soft.double(), self.k).mean(1)
            return torch.cat([words, torch.ones_like(words[:, :1])], 1)

        return features


def words_of(soft: Tensor, k: int) -> Tensor:
    """Probabilities of words of k letters, shape (batch, length - k + 1, letters^k): outer products of the letters'."""
    places = soft.shape[1] - k + 1
    words = soft[:, :places]
    for shift in range(1, k):
        words = (words[..., :, None] * soft[:, shift : shift + places, None, :]).flatten(2)
    return words


@dataclass(frozen=True)
class InfiniteNetwork(Encoder):
    """A fully connected ReLU network of infinite width, in closed form: the kernel of backward and forward BDI.

    The features of the table's rows have exactly the kernel's inner products, and so has any sequence with any row and
    with itself. With more rows than ``landmarks`` they are Nystrom's approximation.

    Args:
        layers: hidden layers, default 3. kernel: ``"ntk"``, of a network trained by gradient descent, or ``"nngp"``,
            of one whose last layer alone is trained. Default ``"ntk"``.
        landmarks: rows that features are made of, default 1000, the best first.

    Source: Chen et al. (2022), "Bidirectional learning for offline infinite-width model-based optimization"; the
    kernels by Cho and Saul (2009) and Jacot et al. (2018). Cost: ``O(m^3)`` once, ``O(m (m + length letters))`` a
    sequence, m landmarks.
    """

    layers: int = 3
    kernel: str = "ntk"
    landmarks: int = 1000

    def __post_init__(self) -> None:
        for name in ("layers", "landmarks"):
            value = getattr(self, name)
            require(is_whole(value) and value >= 1, f"InfiniteNetwork needs {name} >= 1", got=value)
        known = self.kernel in ("ntk", "nngp")
        require(known, "InfiniteNetwork: kernel is ntk or nngp", got=self.kernel)

    def between(self, x: Tensor, z: Tensor) -> Tensor:
        """The kernel of flat soft sequences, shapes (n, d) and (m, d): arc-cosine kernels, layer after layer."""
        norms = (x.square().sum(1)[:, None] * z.square().sum(1)[None]).sqrt()
        nngp = x @ z.T
        ntk = nngp
        for _ in range(self.layers):
            cosine = (nngp / norms).clamp(-1 + 1e-12, 1 - 1e-12)
            angle = torch.arccos(cosine)
            turned = (1 - cosine * cosine).sqrt() + (torch.pi - angle) * cosine
            nngp = norms * turned / torch.pi  # weights of variance 2 / fan-in keep the norms
            ntk = nngp + ntk * (torch.pi - angle) / torch.pi
        return ntk if self.kernel == "ntk" else nngp

    def itself(self, x: Tensor) -> Tensor:
        """The kernel of each with itself, shape (n,)."""
        return x.square().sum(1) * (self.layers + 1 if self.kernel == "ntk" else 1)

    def fitted(self, space: SequenceSpace, codes: Codes, seed: int) -> Features:
        rows = codes[: self.landmarks]
        Z = torch.from_numpy(one_hot(rows, space.letters)).flatten(1)
        values, vectors = torch.linalg.eigh(self.between(Z, Z))
        kept = values > 1e-12 * values[-1]
        whiten = vectors[:, kept] / values[kept].sqrt()

        def features(soft: Tensor) -> Tensor:
            x = soft.double().flatten(1)
            h = self.between(x, Z) @ whiten
            own = self.itself(x)
            left = (own - h.square().sum(1)).clamp(min=0)  # orthogonal to every row
            return torch.cat([h, (left + 1e-12 * own).sqrt()[:, None]], 1)

        return features


def encoded(features: Features, codes: Codes, letters: int) -> Tensor:
    """Features of sequences, shape (n, D), without gradient."""
    parts = []
    with torch.no_grad():
        for start in range(0, len(codes), BATCH):
            soft = torch.from_numpy(one_hot(codes[start : start + BATCH], letters)).float()
            parts.append(features(soft))
    return torch.cat(parts)


def check_soft(features: Features, space: SequenceSpace) -> None:
    """Refuse features that no gradient flows through.

    Raises:
        InvalidProblem: so, or another shape than (batch, D).
    """
    soft = torch.full((2, space.positions, space.letters), 1 / space.letters, requires_grad=True)
    h = features(soft)
    if h.ndim != 2 or len(h) != 2:
        raise InvalidProblem(f"The encoder's features have shape {tuple(h.shape)}; expected (2, D) of two.")
    gradient = torch.autograd.grad(h.sum(), soft, allow_unused=True)[0] if h.requires_grad else None
    if gradient is None:
        raise InvalidProblem(
            "The encoder has no soft input: no gradient reaches the letters' probabilities. Compute its features from "
            "the probabilities themselves, and not from their largest."
        )

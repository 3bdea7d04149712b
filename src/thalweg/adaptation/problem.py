"""Labels in one domain, use in another: what is given, and how good a network is there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from thalweg.adaptation.batches import Draws, LoaderDraws, Rows, Source, TensorDraws, as_rows, is_tensors
from thalweg.adaptation.refine import mutual_information
from thalweg.core import InvalidProblem, NotFinite, Problem, Stop
from thalweg.core.seeding import torch_generator
from thalweg.core.validation import require

#: Share of the target that is held out where none is given; rows judged at once; doubt of a run that converged.
HELD_OUT, JUDGED, SURE = 0.1, 1024, 0.2


class Adapted(nn.Module):
    """A network in two parts: ``head(backbone(x))``."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        found: Tensor = self.head(self.backbone(x))
        return found


@dataclass(frozen=True, eq=False)
class AdaptationTask(Problem):
    """Labelled examples of a source domain, unlabelled ones of a target domain, and a network in two parts.

    Args:
        backbone, head: make fresh modules; called under a seed. ``head(backbone(x))`` is logits, shape (n, K), or
            (n, K, height, width) for a class at each pixel.
        source: ``(inputs, labels)``, tensors; or a loader of such batches. Labels 0 to K - 1; -1 at pixels without.
        target: ``(inputs,)``; or a loader, of which what follows the inputs is ignored.
        held_out: target inputs that train nothing and guide the trade; by default a tenth of ``target`` is split off.
            It is needed beside a target loader.
        steps: the budget. Default 2 000.
        batch_size: rows of each of the three a step, if they are tensors. Default 32, the paper's.
        target_labels: labels of the target tensors: they judge and never train.
        device: where to train.

    The metrics of an answer, an `Adapted` network, are ``doubt``, 0 where held-out predictions are sure and even over
    the classes and 1 where they say nothing: ``1 - MI / log K``; and with tensors ``source_loss``,
    ``source_accuracy`` and, of labels that are known, ``target_accuracy``.

    Raises:
        InvalidProblem: no rows, lengths or shapes that differ, labels that are no whole numbers, no held-out loader.
        NotFinite: NaN or infinity in inputs.

    >>> source = torch.randn(40, 5), torch.arange(40) % 3
    >>> task = AdaptationTask(lambda: nn.Linear(5, 4), lambda: nn.Linear(4, 3), source, (torch.randn(30, 5),))
    >>> sorted(task.metrics(task.fresh_model(0)))
    ['doubt', 'source_accuracy', 'source_loss']
    """

    backbone: Callable[[], nn.Module]
    head: Callable[[], nn.Module]
    source: Source
    target: Source
    held_out: Source | None = None
    steps: int = 2000
    batch_size: int = 32
    target_labels: Tensor | None = None
    device: str = "cpu"
    parts: tuple[Source, Source, Source] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        require(self.steps >= 1, "AdaptationTask needs steps >= 1", got=self.steps, error=InvalidProblem)
        require(self.batch_size >= 2, "AdaptationTask needs batch_size >= 2", got=self.batch_size)
        for name, least in (("source", 2), ("target", 1), ("held_out", 1)):
            data = getattr(self, name)
            if data is None or not isinstance(data, tuple | list):
                continue
            if not is_tensors(data) or len(data) < least:
                raise InvalidProblem(
                    f"AdaptationTask.{name} needs {least} tensors, or a loader; got {data!r:.80}."
                )
            _check(name, tuple(data))
        self._check_pair()
        target, held_out = self.target, self.held_out
        if held_out is None:
            if not is_tensors(target):
                raise InvalidProblem(
                    "A target loader needs held_out: unlabelled target inputs, as (inputs,) or a loader."
                )
            target, held_out = _split((target[0],))  # type: ignore[index]
        elif is_tensors(target):
            target = (target[0],)  # type: ignore[index]
        object.__setattr__(self, "parts", (self.source, target, held_out))

    def _check_pair(self) -> None:
        if is_tensors(self.source):
            X, y = self.source[0], self.source[1]  # type: ignore[index]
            if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
                raise InvalidProblem(f"Source labels are {y.dtype}; expected whole numbers 0 to K - 1.")
            for name in ("target", "held_out"):
                other = getattr(self, name)
                if is_tensors(other) and other[0].shape[1:] != X.shape[1:]:
                    raise InvalidProblem(
                        f"Source rows have shape {tuple(X.shape[1:])}, {name} rows {tuple(other[0].shape[1:])}; "
                        "expected the same features in one order."
                    )
        if self.target_labels is not None:
            require(
                is_tensors(self.target) and len(self.target_labels) == len(self.target[0]),  # type: ignore[index]
                "AdaptationTask.target_labels needs one label for each row of target, which are tensors",
                got=tuple(self.target_labels.shape),
                error=InvalidProblem,
            )

    @property
    def is_split(self) -> bool:
        """Whether the held-out rows were split off the target here."""
        return self.held_out is None

    def recommended_stop(self) -> Stop:
        """The task's own length."""
        return Stop(steps=self.steps)

    def draws(self, seed: int) -> tuple[Draws, Draws, Draws]:
        """Endless batches of source, target and held-out rows."""
        made: list[Draws] = []
        for k, (name, data) in enumerate(zip(("source", "target", "held-out"), self.parts, strict=True)):
            if is_tensors(data):
                made.append(TensorDraws(data, self.batch_size, seed + 1_000_003 * k, self.device))  # type: ignore[arg-type]
            else:
                made.append(LoaderDraws(data, self.device, name))
        return made[0], made[1], made[2]

    def fresh_model(self, seed: int) -> Adapted:
        """The network with the initial weights of ``seed``; torch's global random state is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Adapted(self.backbone(), self.head()).to(self.device)

    @torch.no_grad()
    def metrics(self, x: nn.Module) -> dict[str, float]:
        """``doubt``, ``source_loss``, ``source_accuracy``, ``target_accuracy``, in evaluation mode."""
        found = {"doubt": self.doubt(x)}
        if is_tensors(self.source):
            found |= _judged(x, self.source[0], self.source[1], self.device, "source")  # type: ignore[index]
        if self.target_labels is not None:
            judged = _judged(x, self.target[0], self.target_labels, self.device, "target")  # type: ignore[index]
            found["target_accuracy"] = judged["target_accuracy"]
        return found

    @torch.no_grad()
    def doubt(self, x: nn.Module) -> float:
        """``1 - MI / log K`` of the predictions on held-out rows."""
        logits = torch.cat(list(predicted(x, self.parts[2], self.device)))
        return 1.0 - float(mutual_information(logits.double().log_softmax(1))) / math.log(logits.shape[1])


@torch.no_grad()
def predicted(x: nn.Module, data: Source, device: str) -> Iterator[Tensor]:
    """Logits of the rows, or pixels, of all data, (n, K), piece by piece, in evaluation mode.

    >>> [tuple(piece.shape) for piece in predicted(nn.Linear(2, 3), (torch.ones(5, 2),), "cpu")]
    [(5, 3)]
    """
    was_training = x.training
    x.eval()
    pieces = (
        ((data[0][i : i + JUDGED],) for i in range(0, len(data[0]), JUDGED))  # type: ignore[index]
        if is_tensors(data)
        else data
    )
    try:
        for piece in pieces:
            logits = x(as_rows(piece, device)[0])
            yield logits.movedim(1, -1).reshape(-1, logits.shape[1])
    finally:
        x.train(was_training)


def _judged(x: nn.Module, X: Tensor, y: Tensor, device: str, name: str) -> dict[str, float]:
    logits = torch.cat(list(predicted(x, (X,), device)))
    labels = y.reshape(-1).long().to(logits.device)
    known = labels >= 0
    loss = functional.cross_entropy(logits[known], labels[known])
    right = (logits.argmax(1) == labels)[known].double().mean()
    return {f"{name}_loss": float(loss), f"{name}_accuracy": float(right)}


def _check(name: str, data: Rows) -> None:
    lengths = [len(t) for t in data]
    if len(set(lengths)) != 1 or lengths[0] < 2:
        raise InvalidProblem(
            f"AdaptationTask.{name} needs tensors of one length >= 2; got lengths {lengths}."
        )
    if data[0].is_complex():
        raise InvalidProblem(f"AdaptationTask.{name}: inputs are complex; only real ones are taken here.")
    if data[0].is_floating_point() and not bool(torch.isfinite(data[0]).all()):
        raise NotFinite(
            f"AdaptationTask.{name}: inputs hold NaN or infinity. Remove or impute them before training."
        )


def _split(rows: Rows) -> tuple[Rows, Rows]:
    n = len(rows[0])
    count = max(2, round(HELD_OUT * n))
    if n - count < 2:
        raise InvalidProblem(
            f"AdaptationTask.target has {n} rows; a tenth is held out, and both parts need two or more."
        )
    order = torch.randperm(n, generator=torch_generator(0x01, n))
    kept, apart = order[count:].sort().values, order[:count].sort().values
    return tuple(t[kept] for t in rows), tuple(t[apart] for t in rows)

"""The trainer's step: one forward pass, a gradient for each objective, and the direction that a combiner makes of them.

Lv et al. (2021), "Pareto domain adaptation".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from thalweg.adaptation.alignment import BASES, AlignmentLoss, alignment_named, reversal_strength
from thalweg.adaptation.batches import Draws
from thalweg.adaptation.combiners import Combination, FixedWeights, GradientCombiner, PreferenceLP
from thalweg.adaptation.conflict import MGDA, CAGrad, NashMTL, PCGrad, UPGrad
from thalweg.adaptation.gradients import combined, parted, put_gradient, through
from thalweg.adaptation.pixels import check_labels, rows_of
from thalweg.adaptation.problem import SURE, AdaptationTask, Adapted
from thalweg.adaptation.refine import Form, Refiner, mutual_information
from thalweg.core import InvalidProblem, Method, NotFinite, State, Status, UnknownName
from thalweg.core.validation import require, require_counts, require_positive
from thalweg.training.snapshot import random_states, set_random_states

COMBINERS: dict[str, type[GradientCombiner]] = {
    "preference": PreferenceLP,
    "mgda": MGDA,
    "pcgrad": PCGrad,
    "cagrad": CAGrad,
    "upgrad": UPGrad,
    "nash": NashMTL,
    "linear": FixedWeights,
}


@dataclass(kw_only=True)
class AdaptState(State):
    """``x`` is the live `Adapted` network; the others go on with it."""

    x: Adapted
    heads: nn.ModuleDict  # "alignment" if there is one, and "refiner"
    optimizer: torch.optim.Optimizer
    source: Draws
    target: Draws
    held_out: Draws
    step: int = 0
    lowest: float = math.inf  # doubt so far
    best: dict[str, Tensor] = field(default_factory=dict)  # the network's state then

    def tree(self) -> dict[str, object]:
        return {**super().tree(), "rng": random_states()}

    def restored(self, tree: dict[str, object]) -> AdaptState:
        set_random_states(cast(dict[str, object], tree["rng"]))
        return super().restored({name: value for name, value in tree.items() if name != "rng"})


@dataclass(frozen=True)
class Adapt(Method[AdaptationTask, AdaptState]):
    """Train on source labels, align the domains, sharpen predictions on the target, and settle the three.

    The objectives are ``source``, cross-entropy; ``align``, of ``base``; and ``target``, ``log K - MI`` of refined
    target predictions. A combiner weighs their gradients on the backbone, guided by ``log K - MI`` of a held-out batch;
    heads and discriminators follow the plain sum of their own losses. With `FixedWeights` it is plain descent on the
    weighted sum, in one backward pass.

    Args:
        base: ``"dann"``, ``"cdan"``, ``"mdd"``, ``"mmd"``, ``"jan"``, ``"coral"`` or ``"source-only"``.
        combiner: a `GradientCombiner`, or ``"preference"``, ``"mgda"``, ``"pcgrad"``, ``"cagrad"``, ``"upgrad"``,
            ``"nash"``, ``"linear"`` (no weight for the target objective).
        refining: ``"bayes"``; ``"scaled logits"`` to compare with; ``"none"`` for the classifier's own predictions.
        rate: of SGD with Nesterov momentum 0.9, times ``(1 + 0.001 step)^-0.75``. Default 1e-3, for networks that were
            trained before; fresh ones need ten times that or more.
        weight_decay: default 1e-3.
        ramp: steps over which gradient reversal comes in, see `reversal_strength`. Default 1 000.
        hidden: width of the discriminators' two hidden layers. Default 1 024.
        forward: ``"joint"``, one pass of all rows, as published; ``"separate"``, one for each domain, so that batch
            normalisation does not mix them. Default ``"auto"``: joint where the network has batch normalisation, else
            separate, which is the same up to rounding and spares each loss the rows that it does not look at.
        pixels: most pixels of each domain a step, drawn anew, where there is a class at each pixel. Default 4 096.
        judge_every: steps between judgements of held-out doubt, by which the answer is chosen. Default 100.

    The metrics of a step are the objectives and the ``guide``, ``weight_...`` of each, ``cosine`` of source and
    alignment gradients, ``balance`` and ``guide_dropped`` (1 or 0), ``dropped`` (objectives without a gradient),
    ``reached`` (MI / log K of the held-out batch), ``rate``; ``doubt`` where it was judged.

    The answer is the network of the least held-out doubt. A run ends CONVERGED if that is at most 0.2.

    Raises:
        InvalidProblem: a frozen backbone, fewer than two classes, labels beyond them, one row or feature too few.
        NotFinite: no objective has a finite gradient.

    Cost per step: one forward and four backward passes of the backbone, over three batches if joint; memory of four
    gradients.

    >>> from thalweg import solve
    >>> source = torch.randn(40, 5), torch.arange(40) % 3
    >>> task = AdaptationTask(lambda: nn.Linear(5, 4), lambda: nn.Linear(4, 3), source, (torch.randn(30, 5),), steps=5)
    >>> solve(task, Adapt("coral", hidden=8)).steps
    5
    """

    in_place: ClassVar[bool] = True

    base: str = "dann"
    combiner: str | GradientCombiner = "preference"
    refining: Literal["bayes", "scaled logits", "none"] = "bayes"
    rate: float = 1e-3
    weight_decay: float = 1e-3
    ramp: float = 1000.0
    hidden: int = 1024
    forward: Literal["auto", "joint", "separate"] = "auto"
    pixels: int = 4096
    judge_every: int = 100

    def __post_init__(self) -> None:
        if self.base not in BASES:
            raise UnknownName("base", self.base, BASES)
        if isinstance(self.combiner, str) and self.combiner not in COMBINERS:
            raise UnknownName("combiner", self.combiner, COMBINERS)
        known = ("bayes", "scaled logits", "none")
        require(self.refining in known, f"Adapt needs refining in {known}", got=self.refining)
        require(
            self.forward in ("auto", "joint", "separate"),
            "Adapt needs forward 'auto', 'joint' or 'separate'",
            got=self.forward,
        )
        require_positive(self, "rate", "ramp")
        require(self.rate <= 1e6, "Adapt needs 0 < rate <= 1e6", got=self.rate)
        require_positive(self, "weight_decay", zero=True)
        require_counts(self, "hidden", "pixels", "judge_every")
        require(self.hidden <= 65536, "Adapt needs hidden <= 65536", got=self.hidden)

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the objectives, in their order."""
        return ("source", "target") if self.base == "source-only" else ("source", "align", "target")

    @property
    def settled_by(self) -> GradientCombiner:
        """The combiner as an object."""
        if not isinstance(self.combiner, str):
            return self.combiner
        if self.combiner == "linear":
            return FixedWeights((1.0,) * (len(self.objectives) - 1) + (0.0,))
        return COMBINERS[self.combiner]()

    def init(self, problem: AdaptationTask, seed: int) -> AdaptState:
        if isinstance(self.combiner, FixedWeights) and len(self.combiner.fixed) != len(self.objectives):
            raise InvalidProblem(
                f"FixedWeights has {len(self.combiner.fixed)} weights; {self.objectives} need one each."
            )
        model = problem.fresh_model(seed)
        if not any(p.requires_grad for p in model.backbone.parameters()):
            raise InvalidProblem(
                "The backbone is frozen: no parameter takes a gradient. Set requires_grad on a part of it."
            )
        probe = problem.draws(seed)[0].draw()
        if isinstance(problem.source, tuple | list):
            check_labels(problem.source[1], self._widths(model, probe[0])[1], problem.source[1].ndim > 1)
        heads = self._heads(model, probe[0], seed)
        torch.manual_seed(seed)  # for dropout and the like
        source, target, held_out = problem.draws(seed)
        note = f"{len(problem.parts[2][0])} target rows were held out." if problem.is_split else ""  # type: ignore[index]
        return AdaptState(
            x=model,
            heads=heads,
            optimizer=self._optimizer(model, heads),
            source=source,
            target=target,
            held_out=held_out,
            message=note,
        )

    @torch.no_grad()
    def _widths(self, model: Adapted, probe: Tensor) -> tuple[int, int]:
        """Width of the features, and number of classes, by a look at one batch; the model is left in training mode."""
        model.eval()
        z = model.backbone(probe)
        with torch.random.fork_rng(devices=[]):
            features, logits, _ = rows_of(z, model.head(z), None, self.pixels)
        model.train()
        K = logits.shape[1]
        require(K >= 2, "Adaptation needs a head of two classes or more", got=K, error=InvalidProblem)
        return features.shape[1], K

    def _heads(self, model: Adapted, probe: Tensor, seed: int) -> nn.ModuleDict:
        width, K = self._widths(model, probe)
        heads = nn.ModuleDict()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            alignment = alignment_named(self.base, width, K, self.hidden)
            if alignment is not None:
                heads["alignment"] = alignment
            if self.refining != "none":
                form: Form = "bayes" if self.refining == "bayes" else "scaled logits"
                heads["refiner"] = Refiner(width, K, form=form)
        return heads.to(probe.device).train()

    def _optimizer(self, model: Adapted, heads: nn.ModuleDict) -> torch.optim.Optimizer:
        trained = [p for p in (*model.parameters(), *heads.parameters()) if p.requires_grad]
        return torch.optim.SGD(
            trained, lr=self.rate, momentum=0.9, nesterov=True, weight_decay=self.weight_decay
        )

    def step(self, problem: AdaptationTask, state: AdaptState) -> AdaptState:
        batch = state.source.draw(), state.target.draw(), state.held_out.draw()
        return self.advance(problem, state, batch)

    def advance(
        self, problem: AdaptationTask, state: AdaptState, batch: tuple[Sequence[Tensor], ...]
    ) -> AdaptState:
        """One step on a batch of one's own: (inputs, labels), (target inputs,), (held-out inputs,)."""
        rate = self.rate * (1.0 + 0.001 * state.step) ** -0.75
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.zero_grad(set_to_none=True)
        combiner = self.settled_by
        told = (
            self._plain(state, batch, combiner)
            if isinstance(combiner, FixedWeights)
            else self._settled(state, batch, combiner)
        )
        state.optimizer.step()
        state.step += 1
        state.metrics = {**told, "rate": rate}
        ended = state.step == problem.steps
        if ended or state.step % self.judge_every == 0:
            self._judge(problem, state)
        if ended:
            state.x.load_state_dict(state.best)
            sure = state.lowest <= SURE
            state.status = Status.CONVERGED if sure else Status.EXHAUSTED
            said = f"The task's {problem.steps} steps are done; held-out doubt {state.lowest:.3g}."
            state.message = f"{said} {state.message}".strip()
        return state

    @torch.no_grad()
    def objectives_on(self, state: AdaptState, batch: tuple[Sequence[Tensor], ...]) -> dict[str, float]:
        """The objectives of a batch at a state, by name, without a step."""
        losses, *_ = self._losses(state, batch[:2], self._features(state.x, batch[:2]), guided=False)
        return {name: float(loss) for name, loss in zip(self.objectives, losses, strict=True)}

    def _judge(self, problem: AdaptationTask, state: AdaptState) -> None:
        doubt = problem.doubt(state.x)
        state.metrics["doubt"] = doubt
        if not math.isfinite(doubt):
            raise NotFinite(f"Held-out predictions are not finite after step {state.step}. Lower the rate.")
        if doubt < state.lowest:
            state.lowest = doubt
            state.best = {name: t.detach().clone() for name, t in state.x.state_dict().items()}

    def _is_joint(self, model: Adapted) -> bool:
        if self.forward != "auto":
            return self.forward == "joint"
        return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules())

    def _features(self, model: Adapted, batch: tuple[Sequence[Tensor], ...]) -> tuple[Tensor, ...]:
        inputs = [part[0] for part in batch]
        if not self._is_joint(model):
            return tuple(model.backbone(x) for x in inputs)
        return model.backbone(torch.cat(inputs)).split([len(x) for x in inputs])

    def _losses(
        self, state: AdaptState, batch: tuple[Sequence[Tensor], ...], features: Sequence[Tensor], guided: bool
    ) -> tuple[list[Tensor], Tensor | None, Tensor | None, float]:
        """The objectives, the guide, the loss of the refiner's discriminators, and log K."""
        whole = torch.cat(list(features)) if self._is_joint(state.x) else None
        logits = (
            [state.x.head(z) for z in features]
            if whole is None
            else state.x.head(whole).split([len(z) for z in features])
        )
        given = [batch[0][1], *[None] * (len(features) - 1)]
        rows = [rows_of(*parts, self.pixels) for parts in zip(features, logits, given, strict=True)]
        (zs, ls, y), (zt, lt, _) = rows[0], rows[1]
        if y is None:
            raise InvalidProblem("The source batch has no labels.")
        check_labels(y, ls.shape[1])
        losses = [functional.cross_entropy(ls, y)]
        if "alignment" in state.heads:
            alignment = cast(AlignmentLoss, state.heads["alignment"])
            strength = reversal_strength(state.step, self.ramp)
            losses.append(alignment.loss(zs, zt, ls, lt, y, strength))
        refiner = dict(state.heads.named_children()).get("refiner")
        log_q = self._refined(refiner, zt, lt)
        top = math.log(ls.shape[1])
        losses.append(top - mutual_information(log_q))
        guide = top - mutual_information(self._refined(refiner, *rows[2][:2])) if guided else None
        own = refiner.loss(zs, y, zt, log_q.exp()) if isinstance(refiner, Refiner) else None
        return losses, guide, own, top

    @staticmethod
    def _refined(refiner: nn.Module | None, features: Tensor, logits: Tensor) -> Tensor:
        if not isinstance(refiner, Refiner):
            return functional.log_softmax(logits, 1)
        return refiner.refined(features, logits)

    def _plain(
        self, state: AdaptState, batch: tuple[Sequence[Tensor], ...], combiner: FixedWeights
    ) -> dict[str, float]:
        """Descent on the weighted sum."""
        batch = batch[:2]
        losses, _, own, _ = self._losses(state, batch, self._features(state.x, batch), guided=False)
        parts = [w * loss for w, loss in zip(combiner.fixed, losses, strict=True) if w > 0]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        if not math.isfinite(float(total.detach())):
            raise NotFinite(f"The loss is {float(total)} in step {state.step + 1}. Lower the rate.")
        if own is not None:
            total = total + own
        total.backward()  # type: ignore[no-untyped-call]
        return self._told(losses, Combination(np.array(combiner.fixed)), None, 1.0)

    def _settled(
        self, state: AdaptState, batch: tuple[Sequence[Tensor], ...], combiner: GradientCombiner
    ) -> dict[str, float]:
        """Gradients on features first, then one backward pass of the backbone for each."""
        deep = self._features(state.x, batch if combiner.guided else batch[:2])
        cut = [z.detach().requires_grad_() for z in deep]
        losses, guide, own, top = self._losses(state, batch, cut, combiner.guided)
        shared = [p for p in state.x.backbone.parameters() if p.requires_grad]
        heads = [p for p in (*state.x.head.parameters(), *state.heads.parameters()) if p.requires_grad]
        found = [parted(loss, cut, heads) for loss in losses]
        steer = [] if guide is None else [parted(guide, cut, [])]
        m = len(losses)
        G = deep[0].new_empty(m + len(steer), sum(p.numel() for p in shared))
        for row, (at, _) in zip(G, (*found, *steer), strict=True):
            through(deep, at, shared, row)
        reached = 0.0 if guide is None else min(max(1.0 - float(guide.detach()) / top, 0.0), 1.0)
        flat, told, products = combined(G, combiner, losses, reached)
        for i, (_, gradients) in enumerate(found):
            if i not in told.dropped or bool(torch.isfinite(losses[i].detach())):
                for p, g in zip(heads, gradients, strict=True):
                    if g is not None:
                        p.grad = g if p.grad is None else p.grad + g
        if own is not None:
            own.backward()  # type: ignore[no-untyped-call]
        put_gradient(shared, flat)
        cosine = _cosine(products) if m == 3 else math.nan
        values = self._told(losses, told, guide, cosine)
        return {**values, "reached": reached} if guide is not None else values

    def _told(
        self, losses: Sequence[Tensor], told: Combination, guide: Tensor | None, cosine: float
    ) -> dict[str, float]:
        values = {name: float(loss.detach()) for name, loss in zip(self.objectives, losses, strict=True)}
        weights = {f"weight_{name}": float(w) for name, w in zip(self.objectives, told.weights, strict=True)}
        found = {**values, **weights, "dropped": float(len(told.dropped))}
        if guide is not None:
            found["guide"] = float(guide.detach())
        if told.mode:
            found |= {
                "balance": float(told.mode == "balance"),
                "guide_dropped": float(told.mode.endswith("dropped")),
            }
        if not isinstance(self.settled_by, FixedWeights) and math.isfinite(cosine):
            found["cosine"] = cosine
        return found


def _cosine(products: NDArray[np.float64]) -> float:
    """Of the first two gradients, by their products; 0 where one of them is 0."""
    size = math.sqrt(products[0, 0]) * math.sqrt(products[1, 1])
    return float(products[0, 1]) / size if size != 0 else 0.0

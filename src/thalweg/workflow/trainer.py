"""Improve a program on a set of examples: batches, candidates, and only what holds up on other examples is kept.

The training half of OpenTrace's design: guide, loader, candidates, validation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from thalweg.core import CheckpointMismatch, InvalidProblem, UnreadableFile
from thalweg.core.files import write_text
from thalweg.core.fingerprint import fingerprint
from thalweg.core.seeding import generator
from thalweg.core.validation import is_real, is_whole, require, require_counts, require_positive
from thalweg.workflow._worker import decode, encode
from thalweg.workflow.constraints import drawn
from thalweg.workflow.errors import ExecutionError
from thalweg.workflow.nodes import ExceptionNode, Node
from thalweg.workflow.optimizers import WorkflowOptimizer
from thalweg.workflow.optimizers.optimizer import Proposal
from thalweg.workflow.parallel import Runner, side_by_side
from thalweg.workflow.parameters import ParameterNode
from thalweg.workflow.propagate import Feedback, as_feedback

#: What judges an output: (input, output's value) to a score, larger is better, with or without words.
Guide = Callable[[object, object], Feedback | float]


@dataclass(frozen=True)
class Trained:
    """What came of a training run: the pool's best validation score by round, and why it ended.

    A restart empties the pool; the program is left with the best candidate of all, whose score is ``max(scores)``.
    """

    scores: list[float]
    rounds: int
    reason: str


@dataclass
class _Candidate:
    values: list[object]
    score: float
    tried: int = 0


@dataclass(frozen=True, kw_only=True)
class _Judge(Runner[tuple[list[object], object], float]):
    """Runs the program on an example, and asks the guide."""

    program: Callable[[object], Node]
    parameters: list[ParameterNode]
    guide: Guide
    failed: float

    def run(self, job: tuple[list[object], object]) -> float:
        """The score of values on an example; NaN where the program raised."""
        values, example = job
        for p, value in zip(self.parameters, values, strict=True):
            p.set(value)
        output, said = self.said(example)
        return math.nan if isinstance(output, ExceptionNode) else cast(float, said.score)

    def said(self, example: object) -> tuple[Node, Feedback]:
        """The output, or the node of the error, and what the guide says."""
        try:
            output = self.checked(self.program(example))
        except ExecutionError as error:
            assert isinstance(error.node, Node)  # noqa: S101, PT017
            return error.node, Feedback(self.failed, str(error.node.data))
        said = as_feedback(self.guide(example, output.data))
        if said.score is None:
            raise InvalidProblem("WorkflowTrainer: the guide has to give a score: Feedback(score, text).")
        return output, said


@dataclass
class WorkflowTrainer:
    """Batches of examples through a program; an optimizer's proposals as candidates; validation decides.

    Each round takes a candidate from the pool, runs a batch with its values, lets the optimizer propose, as often as
    ``candidates`` says, and scores the proposals on the validation examples, side by side where there are ``workers``.
    The pool keeps the ``beam`` best; with ``beam=1`` a proposal is kept only if it is better. The next candidate is the
    best one, less ``explore`` times the share of rounds it had: with 0 always the best, with more the others get their
    turn (a priority search).

    Args:
        program: from an input to a node.
        optimizer: of the program's parameters, such as `OptoPrime`.
        guide: says how good an output is; larger is better. A program that raises gets ``failed``, which has to be the
            worst score that there can be.
        beam: candidates kept.
        batch: examples a round.
        explore: how much those that were tried less are preferred.
        candidates: proposals a round, each of a batch of its own.
        patience: after as many rounds without a better candidate the run ends, or begins anew.
        restarts: how often it begins anew, from values drawn by `Bounds`, `Choices`, or around a number; others go back
            to their first value. The best candidate of all is kept, and the optimizer its memory.
        workers: processes that score. What is found does not hang on their number, if the program depends on its input
            and its parameters alone. Parameters that are made in an imported module are refused there.
        failed: the score of an example on which the program raised.
        checkpoint: a file to go on from, written each round, with the same examples to validate on; it holds data and
            no code that runs by itself, and nothing of the optimizer's memory.
        seed: makes the batches repeatable.

    Cost per round and candidate: ``batch`` runs, one proposal, one run for each validation example.
    """

    program: Callable[[object], Node]
    optimizer: WorkflowOptimizer
    guide: Guide
    beam: int = 1
    batch: int = 4
    explore: float = 0.0
    patience: int = 10
    failed: float = 0.0
    checkpoint: str | Path | None = None
    seed: int = 0
    candidates: int = 1
    restarts: int = 0
    workers: int = 1
    _pool: list[_Candidate] = field(default_factory=list, init=False)
    _scores: list[float] = field(default_factory=list, init=False)
    _firsts: list[object] = field(default_factory=list, init=False)
    _begun: list[int] = field(default_factory=list, init=False)  # rounds that a start began with
    _best: _Candidate = field(default_factory=lambda: _Candidate([], -math.inf), init=False)
    _least: float = field(default=math.inf, init=False)  # the worst score of a program that did not raise
    _raised: bool = field(default=False, init=False)
    _judged_on: str = field(default="", init=False)  # the hash of the examples to validate on

    def __post_init__(self) -> None:
        require_counts(self, "beam", "batch", "patience", "candidates", "workers")
        require_counts(self, "restarts", least=0)
        require_positive(self, "explore", zero=True)
        fits = is_real(self.failed) and math.isfinite(self.failed)
        require(fits, "WorkflowTrainer: failed is a finite score", got=self.failed)

    def fit(self, examples: Sequence[object], validation: Sequence[object], rounds: int = 20) -> Trained:
        """Improve the program, and leave it with the best candidate's values, also where something raises.

        Raises:
            InvalidProblem: no examples; a checkpoint, and values that are no plain data; the program raised, and
                ``failed`` is better than a score that came.
            CheckpointMismatch: a checkpoint of other parameters, or of other examples to validate on.
        """
        examples, validation = _listed(examples), _listed(validation)
        if not examples or not validation:
            raise InvalidProblem("WorkflowTrainer.fit needs at least one example and one to validate on.")
        require(is_whole(rounds) and rounds >= 1, "WorkflowTrainer.fit needs rounds >= 1", got=rounds)
        self._pool, self._scores, self._begun, self._firsts = [], [], [0], self._values()
        self._best, self._least, self._raised = _Candidate(self._firsts, -math.inf), math.inf, False
        self._judged_on = fingerprint(validation)
        if self.checkpoint is not None:
            _check_plain(self._firsts)
        try:
            return self._fitted(examples, validation, rounds)
        finally:
            self._set(self._best)

    def _fitted(self, examples: Sequence[object], validation: Sequence[object], rounds: int) -> Trained:
        if self.checkpoint is not None and Path(self.checkpoint).exists():
            self._load(Path(self.checkpoint))
        else:
            self._pool = [_Candidate(self._firsts, self._scored([self._firsts], validation)[0])]
            self._best, self._scores = self._pool[0], [self._pool[0].score]
        reason = "rounds"
        while len(self._scores) <= rounds:
            if self._stale() >= self.patience:
                if len(self._begun) > self.restarts:
                    reason = "patience"
                    break
                self._begin_anew(validation)
            else:
                self._round(examples, validation, len(self._scores))
            self._scores.append(self._pool[0].score)
            if self._pool[0].score > self._best.score:
                self._best = self._pool[0]
            self._save()
        return Trained(list(self._scores), len(self._scores) - 1, reason)

    def score(self, examples: Sequence[object]) -> float:
        """The mean score of the program as it is."""
        return self._scored([self._values()], _listed(examples))[0]

    def _judge(self) -> _Judge:
        return _Judge(
            program=self.program,
            parameters=self.optimizer.parameters,
            guide=self.guide,
            failed=self.failed,
        )

    def _scored(self, candidates: Sequence[list[object]], examples: Sequence[object]) -> list[float]:
        """The mean score of each candidate's values."""
        found = side_by_side(
            self._judge(), [(values, e) for values in candidates for e in examples], self.workers
        )
        self._check_failed(found)
        found = [self.failed if math.isnan(score) else score for score in found]
        n = len(examples)
        return [sum(found[i : i + n]) / n for i in range(0, len(found), n)]

    def _check_failed(self, scores: Sequence[float]) -> None:
        """Refuse that a program that raises, NaN among the scores, is better than one that does not."""
        self._least = min([self._least, *(score for score in scores if not math.isnan(score))])
        self._raised = self._raised or any(map(math.isnan, scores))
        if self._raised and self._least < self.failed:
            raise InvalidProblem(
                f"WorkflowTrainer: the program raised, which gets failed={self.failed:g}, and a score of "
                f"{self._least:g} is worse than that. Pass a failed that is the worst score that there can be."
            )

    def _round(self, examples: Sequence[object], validation: Sequence[object], turn: int) -> None:
        fresh: list[list[object]] = []
        for k in range(self.candidates):
            values = self._proposed(examples, (turn, k) if k else (turn,))
            if values is not None and not any(_same(values, known) for known in fresh):
                fresh.append(values)
        if fresh:
            scores = self._scored(fresh, validation)
            self._pool += [_Candidate(v, s) for v, s in zip(fresh, scores, strict=True)]
        self._pool.sort(key=lambda c: -c.score)  # a tie leaves the older one in front
        del self._pool[self.beam :]

    def _proposed(self, examples: Sequence[object], stream: tuple[int, ...]) -> list[object] | None:
        """What the optimizer makes of a candidate by a batch; None where that is in the pool."""
        total = sum(c.tried for c in self._pool) or 1
        chosen = max(self._pool, key=lambda c: c.score - self.explore * c.tried / total)
        chosen.tried += 1
        self._set(chosen)
        size = min(self.batch, len(examples))
        drawn_places = generator(self.seed, *stream).choice(len(examples), size, replace=False)
        judge = self._judge()
        self.optimizer.zero_feedback()
        for i in drawn_places.tolist():
            self.optimizer.backward(*judge.said(examples[i]))
        proposal: Proposal = self.optimizer.step()
        self.optimizer.zero_feedback()
        values = self._values()
        return None if not proposal or any(_same(values, c.values) for c in self._pool) else values

    def _begin_anew(self, validation: Sequence[object]) -> None:
        rng = generator(self.seed, len(self._scores), 0)
        begin = zip(self.optimizer.parameters, self._firsts, strict=True)
        values = [drawn(p.constraint, v, rng) for p, v in begin]
        self._begun.append(len(self._scores))
        self._pool = [_Candidate(values, self._scored([values], validation)[0])]

    def _stale(self) -> int:
        mine = self._scores[self._begun[-1] :]
        return len(mine) - 1 - mine.index(max(mine))

    def _values(self) -> list[object]:
        return [p.data for p in self.optimizer.parameters]

    def _set(self, candidate: _Candidate) -> None:
        self.optimizer.update(dict(zip(self.optimizer.parameters, candidate.values, strict=True)))

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        held = {
            "parameters": [p.name.rpartition(":")[0] for p in self.optimizer.parameters],
            "pool": [[encode(c.values), c.score, c.tried] for c in self._pool],
            "best": [encode(self._best.values), self._best.score, self._best.tried],
            "first": encode(self._firsts),
            "begun": self._begun,
            "scores": self._scores,
            "validation": self._judged_on,
            "least": None if math.isinf(self._least) else self._least,
            "raised": self._raised,
        }
        write_text(self.checkpoint, json.dumps(held))

    def _load(self, path: Path) -> None:
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            names, scores = held["parameters"], [float(s) for s in held["scores"]]
            best, *pool = [
                _Candidate(list(decode(v)), float(s), int(n))  # type: ignore[call-overload]
                for v, s, n in [held["best"], *held["pool"]]
            ]
            firsts, begun = list(decode(held["first"])), [int(b) for b in held["begun"]]  # type: ignore[call-overload]
            judged_on, least, raised = str(held["validation"]), held["least"], bool(held["raised"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UnreadableFile(f"{path} is no checkpoint of a trainer: {error}") from error
        if names != [p.name.rpartition(":")[0] for p in self.optimizer.parameters] or not pool:
            raise CheckpointMismatch(f"{path} is of other parameters: {', '.join(map(str, names))}.")
        if judged_on != self._judged_on:
            raise CheckpointMismatch(
                f"{path} has scores on other examples than these to validate on. Pass the same, or another checkpoint."
            )
        self._least, self._raised = math.inf if least is None else float(least), raised
        self._pool, self._scores, self._best = pool, scores, best
        self._firsts, self._begun = firsts, begun


def _listed(examples: Iterable[object]) -> list[object]:
    if isinstance(examples, Mapping | str):
        raise InvalidProblem(f"WorkflowTrainer.fit takes lists of examples; got a {type(examples).__name__}.")
    return list(examples)


def _same(one: list[object], other: list[object]) -> bool:
    """Whether values are alike by content, arrays too, which ``==`` compares entry by entry."""
    return fingerprint(one) == fingerprint(other)


def _check_plain(values: list[object]) -> None:
    try:
        encode(values)
    except TypeError as error:
        raise InvalidProblem(f"WorkflowTrainer: {error}; only plain data are kept in a checkpoint.") from None

"""Improve a program on a set of examples: batches, candidates, and only what holds up on other examples is kept.

The training half of OpenTrace's design: guide, loader, candidates, validation.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from thalweg.core import CheckpointMismatch, InvalidProblem, UnreadableFile
from thalweg.core.files import write_text
from thalweg.core.seeding import generator
from thalweg.core.validation import require
from thalweg.workflow._worker import decode, encode
from thalweg.workflow.errors import ExecutionError
from thalweg.workflow.nodes import Node
from thalweg.workflow.optimizers import WorkflowOptimizer
from thalweg.workflow.optimizers.optimizer import Proposal
from thalweg.workflow.propagate import Feedback, as_feedback

#: What judges an output: (input, output's value) to a score, larger is better, with or without words.
Guide = Callable[[object, object], Feedback | float]


@dataclass(frozen=True)
class Trained:
    """What came of a training run: validation scores of the kept candidate by round, and why it ended."""

    scores: list[float]
    rounds: int
    reason: str


@dataclass
class _Candidate:
    values: list[object]
    score: float
    tried: int = 0


@dataclass
class WorkflowTrainer:
    """Batches of examples through a program; an optimizer's proposals as candidates; validation decides.

    Each round takes a candidate from the pool, runs a batch with its values, lets the optimizer propose, and scores the
    proposal on the validation examples. The pool keeps the ``beam`` best; with ``beam=1`` a proposal is kept only if it
    is better. The next candidate is the best one, less ``explore`` times the share of rounds it had: with 0 always the
    best, with more the others get their turn (a priority search).

    Args:
        program: from an input to a node.
        optimizer: of the program's parameters, such as `OptoPrime`.
        guide: says how good an output is; larger is better. A program that raises gets ``failed``.
        beam: candidates kept.
        batch: examples a round.
        explore: how much those that were tried less are preferred.
        patience: the run ends after as many rounds without a better candidate.
        failed: the score of an example on which the program raised.
        checkpoint: a file to go on from, written each round; it holds data and no code that runs by itself.
        seed: makes the batches repeatable.

    Cost per round: ``batch`` runs, one proposal, one run for each validation example.
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
    _pool: list[_Candidate] = field(default_factory=list, init=False)
    _scores: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        for name in ("beam", "batch", "patience"):
            require(getattr(self, name) >= 1, f"WorkflowTrainer needs {name} >= 1", got=getattr(self, name))
        require(self.explore >= 0, "WorkflowTrainer needs explore >= 0", got=self.explore)
        require(math.isfinite(self.failed), "WorkflowTrainer: failed is a finite score", got=self.failed)

    def fit(self, examples: Sequence[object], validation: Sequence[object], rounds: int = 20) -> Trained:
        """Improve the program, and leave it with the best candidate's values.

        Raises:
            InvalidProblem: no examples.
            CheckpointMismatch: a checkpoint of other parameters.
        """
        if not len(examples) or not len(validation):
            raise InvalidProblem("WorkflowTrainer.fit needs at least one example and one to validate on.")
        require(rounds >= 1, "WorkflowTrainer.fit needs rounds >= 1", got=rounds)
        self._pool, self._scores = [], []
        if self.checkpoint is not None and Path(self.checkpoint).exists():
            self._load(Path(self.checkpoint))
        else:
            self._pool = [_Candidate(self._values(), self.score(validation))]
            self._scores = [self._pool[0].score]
        reason = "rounds"
        while len(self._scores) <= rounds:
            if self._stale() >= self.patience:
                reason = "patience"
                break
            self._round(examples, validation, len(self._scores))
            self._scores.append(self._pool[0].score)
            self._save()
        self._set(self._pool[0])
        return Trained(list(self._scores), len(self._scores) - 1, reason)

    def score(self, examples: Sequence[object]) -> float:
        """The mean score of the program as it is."""
        return sum(self._said(example)[1].score or 0.0 for example in examples) / len(examples)

    def _round(self, examples: Sequence[object], validation: Sequence[object], turn: int) -> None:
        total = sum(c.tried for c in self._pool) or 1
        chosen = max(self._pool, key=lambda c: c.score - self.explore * c.tried / total)
        chosen.tried += 1
        self._set(chosen)
        drawn = generator(self.seed, turn).choice(
            len(examples), min(self.batch, len(examples)), replace=False
        )
        self.optimizer.zero_feedback()
        for i in drawn.tolist():
            output, said = self._said(examples[i])
            self.optimizer.backward(output, said)
        proposal: Proposal = self.optimizer.step()
        self.optimizer.zero_feedback()
        values = self._values()
        if not proposal or any(values == c.values for c in self._pool):
            return
        self._pool.append(_Candidate(values, self.score(validation)))
        self._pool.sort(key=lambda c: -c.score)  # a tie leaves the older one in front
        del self._pool[self.beam :]

    def _said(self, example: object) -> tuple[Node, Feedback]:
        """The output, or the node of the error, and what the guide says."""
        try:
            output = self.program(example)
        except ExecutionError as error:
            assert isinstance(error.node, Node)  # noqa: S101, PT017
            return error.node, Feedback(self.failed, str(error.node.data))
        said = as_feedback(self.guide(example, output.data))
        if said.score is None:
            raise InvalidProblem("WorkflowTrainer: the guide has to give a score: Feedback(score, text).")
        return output, said

    def _stale(self) -> int:
        best = max(self._scores)
        return len(self._scores) - 1 - self._scores.index(best)

    def _values(self) -> list[object]:
        return [p.data for p in self.optimizer.parameters]

    def _set(self, candidate: _Candidate) -> None:
        self.optimizer.update(dict(zip(self.optimizer.parameters, candidate.values, strict=True)))

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        pool = [[encode(c.values), c.score, c.tried] for c in self._pool]
        names = [p.name.rpartition(":")[0] for p in self.optimizer.parameters]
        write_text(self.checkpoint, json.dumps({"parameters": names, "pool": pool, "scores": self._scores}))

    def _load(self, path: Path) -> None:
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            names, scores = held["parameters"], [float(s) for s in held["scores"]]
            pool = [_Candidate(list(decode(v)), float(s), int(n)) for v, s, n in held["pool"]]  # type: ignore[call-overload]
        except (ValueError, KeyError, TypeError) as error:
            raise UnreadableFile(f"{path} is no checkpoint of a trainer: {error}") from error
        if names != [p.name.rpartition(":")[0] for p in self.optimizer.parameters] or not pool:
            raise CheckpointMismatch(f"{path} is of other parameters: {', '.join(map(str, names))}.")
        self._pool, self._scores = pool, scores

"""Sequences with scores from a file: better ones proposed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self, cast

import typer

from thalweg.cli.case import Case
from thalweg.cli.methods import Maker
from thalweg.cli.options import Header, numbers_by_commas
from thalweg.core import Figure, InvalidParameter, InvalidProblem, Method, Problem, Result, Stop

if TYPE_CHECKING:
    from thalweg.blackbox.design import Encoder, Proposals, SequenceTable, Visited

#: Proposals that the command prints.
SHOWN = 5


def read(
    table: Annotated[
        Path,
        typer.Argument(
            help="Sequences and scores, larger is better: .csv, .tsv or .txt with a column of each, or .fasta with "
            "score=NUMBER in the titles; also .gz."
        ),
    ],
    alphabet: Annotated[str, typer.Option(help="dna, rna, protein, or the letters.")] = "dna",
    propose: Annotated[int, typer.Option(min=1, help="How many to propose.")] = 128,
    sequence: Annotated[
        str, typer.Option(help="Column of the sequences. Default: the only one of words.")
    ] = "",
    score: Annotated[
        str, typer.Option(help="Column or field of the scores. Default: score, or the only one of numbers.")
    ] = "",
    mask: Annotated[
        str, typer.Option(help="As long as a sequence: a letter stays, '.' is free, such as ..GT....")
    ] = "",
    allow: Annotated[
        str, typer.Option(help="Letters by position, from 0: 4:CT,7:AG. Elsewhere all are allowed.")
    ] = "",
    edits: Annotated[
        int | None, typer.Option(min=1, help="Most letters that may differ from the row it starts from.")
    ] = None,
    unscored: Annotated[
        Path | None, typer.Option(help="More sequences of the kind, without scores, to learn letters from.")
    ] = None,
    targets: Annotated[
        str, typer.Option(help="Targets by commas, such as 1,5,10: --report shows what each does.")
    ] = "",
    header: Header = None,
) -> Mapping[str, Problem]:
    """Propose better sequences than those of a table, without any further experiment."""
    from thalweg.blackbox.design import SequenceSpace, SequenceTable
    from thalweg.datasets.sequences import load_sequences

    _numbers(targets)
    found = load_sequences(table, sequence=sequence, score=score, header=header)
    if found.scores is None:
        raise InvalidProblem(f"{table} has no scores; write them into the titles: >name score=1.5.")
    extra = () if unscored is None else load_sequences(unscored, score=None, header=header).letters
    allowed = _allowed(allow)
    length = len(mask) or len(found.letters[0])
    space = SequenceSpace(alphabet, length, mask, allowed, edits)
    return {table.stem: SequenceTable(space, found.letters, found.scores, propose, extra)}


def _allowed(text: str) -> dict[int, str]:
    found = {}
    for part in filter(None, text.split(",")):
        place, colon, letters = part.partition(":")
        if not colon or not place.strip().isdecimal() or not letters:
            raise InvalidParameter(f"--allow is position:letters by commas, such as 4:CT,7:AG; got {part!r}.")
        if int(place) in found:
            raise InvalidParameter(
                f"--allow names position {int(place)} twice; write all its letters behind one."
            )
        found[int(place)] = letters.strip()
    return found


def _numbers(text: str) -> list[float]:
    found = numbers_by_commas(text)
    if found is None:
        raise InvalidParameter(f"--targets is numbers by commas, such as 1,5,10; got {text!r}.")
    return found


def _encoder(name: str) -> Encoder:
    """An encoder by its name, or by the folder of a pre-trained one."""
    from thalweg.blackbox.design import (
        InfiniteNetwork,
        KMers,
        LetterPairs,
        MaskedLetters,
        OneHot,
        PretrainedEncoder,
    )

    known: dict[str, Encoder] = {
        "masked": MaskedLetters(),
        "one-hot": OneHot(),
        "pairs": LetterPairs(),
        "k-mers": KMers(),
        "ntk": InfiniteNetwork(),
        "nngp": InfiniteNetwork(kernel="nngp"),
    }
    if name not in known and not Path(name).is_dir():
        raise InvalidParameter(
            f"encoder is one of {', '.join(known)}, or the folder of a pre-trained model; got {name!r}."
        )
    return known.get(name) or PretrainedEncoder(name)


def bidirectional(
    encoder: str = "masked",
    mode: Literal["forward", "backward", "bidirectional", "joint"] = "bidirectional",
    target: float = 10.0,
    gamma: float | None = None,
    together: int = 4,
    diversity: float = 0.1,
    steps: int | None = None,
    step_size: float = 0.1,
) -> Method:
    """encoder: masked, one-hot, pairs, k-mers, ntk, nngp or a model's folder; gamma none: adaptive."""
    from thalweg.blackbox.design import AdaptiveGamma, BidirectionalDesign

    return BidirectionalDesign(
        encoder=_encoder(encoder),
        mode=mode,
        target=target,
        gamma=AdaptiveGamma() if gamma is None else gamma,
        together=together,
        diversity=diversity,
        steps=steps,
        step_size=step_size,
    )


def ascent(
    encoder: str = "masked",
    on: Literal["ridge", "ensemble"] = "ridge",
    steps: int | None = None,
    step_size: float = 0.1,
) -> Method:
    """encoder: masked, one-hot, pairs, k-mers, ntk, nngp, or the folder of a pre-trained model."""
    from thalweg.blackbox.design import ProxyAscent

    return ProxyAscent(encoder=_encoder(encoder), on=on, steps=steps, step_size=step_size)


def policy(encoder: str = "masked", steps: int = 60, samples: int = 256, step_size: float = 1.0) -> Method:
    """encoder: masked, one-hot, pairs, k-mers, ntk, nngp, or the folder of a pre-trained model."""
    from thalweg.blackbox.design import LetterPolicy

    return LetterPolicy(encoder=_encoder(encoder), steps=steps, samples=samples, step_size=step_size)


def evolved(
    encoder: str = "masked", steps: int = 200, samples: int | None = None, spread: float = 0.5
) -> Method:
    """encoder: masked, one-hot, pairs, k-mers, ntk, nngp, or the folder of a pre-trained model."""
    from thalweg.blackbox.design import EvolvedLetters

    return EvolvedLetters(encoder=_encoder(encoder), steps=steps, samples=samples, spread=spread)


def improvement(encoder: str = "masked", steps: int = 8, q: int = 4, rows: int = 64) -> Method:
    """encoder: masked, one-hot, pairs, k-mers, ntk, nngp, or the folder of a pre-trained model."""
    from thalweg.blackbox.design import ImprovementDesign

    return ImprovementDesign(encoder=_encoder(encoder), steps=steps, q=q, rows=rows)


MAKERS: dict[str, Maker] = {
    "bidirectional-design": bidirectional,
    "proxy-ascent": ascent,
    "letter-policy": policy,
    "evolved-letters": evolved,
    "improvement-design": improvement,
}


@dataclass
class DesignCase(Case):
    """Proposals that differ and are new, best first."""

    endings = (".csv", ".fasta", ".fa", ".fna", ".faa")
    found: Proposals | None = field(default=None, init=False)

    @classmethod
    def of(
        cls,
        problems: Mapping[str, Problem],
        method: Method | None,
        stop: Stop,
        given: Mapping[str, object],
    ) -> Self:
        """A case that sees the designs of every step."""
        from thalweg.blackbox.design import Visited

        case = super().of(problems, method, stop, given)
        case.callbacks.append(Visited())
        return case

    def _problem(self) -> SequenceTable:
        return cast("SequenceTable", self.problem)

    def proposals(self, result: Result) -> Proposals:
        """Made once, however often they are told."""
        from thalweg.blackbox.design import collect_proposals

        if self.found is None:
            self.found = collect_proposals(self._problem(), result, cast("Visited", self.callbacks[0]))
        return self.found

    def write(self, path: Path, result: Result) -> None:
        """Proposals, best first: as a table, or as FASTA with the numbers in the titles."""
        self.proposals(result).write(path)

    def told(self, result: Result) -> dict[str, object]:
        found = self.proposals(result)
        return {
            "proposals": found.frame.to_dict("records"),
            "correlation": found.correlation,
            "diversity": found.diversity,
            "notes": list(found.notes),
        }

    def figures(self, result: Result) -> Sequence[Figure]:
        from thalweg.blackbox.design import (
            BidirectionalDesign,
            proposal_figures,
            sweep_figure,
            target_sweep,
        )

        figures = proposal_figures(self.proposals(result), self._problem())
        targets = _numbers(str(self.given.get("targets", "")))
        if targets:
            visited = cast("Visited", self.callbacks[0])
            method = visited.method
            if not isinstance(method, BidirectionalDesign):
                raise InvalidParameter("--targets are of bidirectional-design; other methods have no target.")
            figures.append(sweep_figure(target_sweep(self._problem(), method, targets, visited.seed)))
        return figures

    def said(self, result: Result) -> Sequence[str]:
        found = self.proposals(result)
        best = found.frame.head(SHOWN)
        lines = [
            f"{row.sequence}  predicted {row.predicted:.4g}, second opinion {row.second:.4g} +- {row.doubt:.2g}, "
            f"{row.distance} letters from the table"
            for row in best.itertuples()
        ]
        return [
            f"{len(found)} proposals; best row of the table {self._problem().values.max():.4g}; the second opinion's "
            f"rank correlation with rows held out is {found.correlation:.2f}.",
            *lines,
            *found.notes,
        ]

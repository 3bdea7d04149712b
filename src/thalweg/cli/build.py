"""`solve AREA` and `compare AREA`, made from an area's row: the reader's signature and the shared options together."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from thalweg.cli.areas import Area
from thalweg.cli.case import Case
from thalweg.cli.methods import is_ready, parsed
from thalweg.cli.options import Json, Method, Page, Seconds, Seed, Steps, Tolerance
from thalweg.cli.output import PAGES, check_outputs, strict_json
from thalweg.core import Figure, InvalidParameter, InvalidProblem, Problem, Result, Stop


def solve_command(area: Area) -> Callable[..., None]:
    """The command that solves one problem of the area."""

    def run(
        method: Method = "",
        tol: Tolerance = None,
        steps: Steps = None,
        seconds: Seconds = None,
        seed: Seed = 0,
        out: Annotated[
            Path | None, typer.Option(help="Write the answer here; the ending is the format.")
        ] = None,
        checkpoint: Annotated[Path | None, typer.Option(help="Keep the run here as it goes.")] = None,
        resume: Annotated[Path | None, typer.Option(help="Go on from a checkpoint.")] = None,
        report: Page = None,
        as_json: Json = False,
        **given: object,
    ) -> None:
        from thalweg.core import Checkpoint, recommended, solve

        check_outputs([(out, area.case.endings), (report, PAGES)], [*given.values(), resume, checkpoint])
        check_outputs([(checkpoint, ())], given.values())
        problems = area.read(**given)
        first = next(iter(problems.values()))
        chosen = parsed(method, area.methods(), first, area.name) if method else None
        case = area.case.of(problems, chosen, _stop(area, first, tol, steps, seconds), given)
        kept = [Checkpoint(checkpoint)] if checkpoint else []
        taken = recommended(case.problem) if case.method is None else case.method
        result = solve(
            case.problem,
            taken,
            stop=case.stop,
            callbacks=[*case.callbacks, *kept],
            seed=seed,
            resume=resume,
        )
        if out is not None:
            case.write(out, result)
        if report is not None:
            facts = {"from": ", ".join(problems), "method": taken.name, "status": result.status.value}
            _write_page(report, area, case, result, facts)
        told = {"method": taken.name, **case.told(result)}
        chosen_by = "" if method else ", chosen by the problem"
        lines = [f"Method: {taken.name}{chosen_by}", *case.said(result)]
        _tell(told, lines, result, {"Answer": out, "Report": report}, as_json)
        raise typer.Exit(0 if result.converged else 1)

    return _with_signature(
        run, area, "Ctrl-C ends with the best answer so far. Exit status 1 if it did not converge."
    )


def compare_command(area: Area) -> Callable[..., None]:
    """The command that runs several methods on problems of the area."""

    def run(
        method: Annotated[
            list[str] | None,
            typer.Option(help="Repeat it: --method NAME --method NAME:option=1. Default: all that fit."),
        ] = None,
        tol: Tolerance = None,
        steps: Steps = None,
        seconds: Annotated[float | None, typer.Option(min=0.0, help="Most seconds a run.")] = 60.0,
        seeds: Annotated[int, typer.Option(min=1, help="Runs of each, with seeds 0, 1, ...")] = 1,
        report: Page = None,
        as_json: Json = False,
        **given: object,
    ) -> None:
        from thalweg.workbench import Comparison, compare

        check_outputs([(report, PAGES)], given.values())
        found = Comparison([], [])
        for name, problem in area.read(**given).items():
            names = method or _fitting(area, problem)
            methods = {text: parsed(text, area.methods(), problem, area.name) for text in names}
            if len(methods) < len(names):
                raise InvalidParameter(
                    "A method is named twice; give it other options to tell the two apart."
                )
            stop = _stop(area, problem, tol, steps, seconds)
            found = found.joined(compare({name: problem}, methods, stop=stop, seeds=range(seeds)))
        if report is not None:
            found.report(report)
        if as_json:
            typer.echo(strict_json(found.rows))
            return
        known = {name for row in found.rows for name in row}
        found.show(next((name for name in area.shown if name in known), area.metric))
        if report is not None:
            typer.echo(f"Report: {report}")

    return _with_signature(run, area, "Runs several methods under one budget, and shows table and curves.")


def _stop(area: Area, problem: Problem, tol: float | None, steps: int | None, seconds: float | None) -> Stop:
    own = problem.recommended_stop().below
    metric = area.metric if area.metric in own or not own else next(iter(own))
    below = own if tol is None else {**own, metric: tol}
    return Stop(below=below, steps="auto" if steps is None else steps, seconds=seconds)


def _fitting(area: Area, problem: Problem) -> list[str]:
    """The methods that solve problems of this kind, need no option, and can be made for this one."""
    from thalweg.catalogue import METHODS

    classes, makers = METHODS[area.folder], area.methods()
    return [
        name
        for name, maker in makers.items()
        if isinstance(problem, classes[name].solves()) and is_ready(maker) and _is_made(area, name, problem)
    ]


def _is_made(area: Area, name: str, problem: Problem) -> bool:
    try:
        parsed(name, area.methods(), problem, area.name)
    except InvalidProblem:  # such as a policy that needs a context where there is none
        return False
    return True


def _with_signature(run: Callable[..., None], area: Area, closing: str) -> Callable[..., None]:
    """``run`` with the reader's parameters before its own, as Typer reads them."""
    own = inspect.signature(area.read, eval_str=True).parameters.values()
    shared = inspect.signature(run, eval_str=True).parameters.values()
    parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in (*own, *shared) if p.kind is not p.VAR_KEYWORD]
    signature = inspect.Signature([_explained(p, area) for p in parameters])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    run.__doc__ = f"{inspect.getdoc(area.read) or ''}\n\n{closing}"
    return run


def _explained(parameter: inspect.Parameter, area: Area) -> inspect.Parameter:
    """The shared options that an area's own words make plain."""
    words = {
        "tol": f"Bound of the {area.metric}. Default: the problem's own, {area.solved}.",
        "method": f"NAME or NAME:option=1,...; `thalweg list {area.name}` shows all. Default: chosen by the problem.",
    }
    if parameter.name not in words or parameter.annotation not in (Tolerance, Method):
        return parameter
    kind, option = parameter.annotation.__origin__, copy.copy(parameter.annotation.__metadata__[0])
    option.help = words[parameter.name]
    return parameter.replace(annotation=Annotated[kind, option])


def _write_page(path: Path, area: Area, case: Case, result: Result, facts: Mapping[str, str]) -> None:
    """What was solved and how it ended, the area's own lines and figures, and a curve of each metric."""
    from thalweg.core import Series
    from thalweg.workbench import render_figures

    row = {**facts, "steps": result.steps, "seconds": result.seconds, **result.metrics, "why": result.message}
    figures = list(case.figures(result))
    for name in result.history.names:
        values = result.history[name]
        here = values == values
        curve = Series.of(
            name, [s for s, h in zip(result.history.steps, here, strict=True) if h], values[here]
        )
        log = bool((values[here] > 0).all()) and bool(values[here].max() > 10 * values[here].min())
        figures.append(
            Figure(name, "As the method reports it, step by step.", "step", name, [curve], log_y=log)
        )
    title = f"thalweg solve {area.name}: {result.status.value} after {result.steps} steps"
    render_figures(figures, path, title, [row], case.said(result))


def _tell(
    told: Mapping[str, object],
    said: object,
    result: Result,
    files: Mapping[str, Path | None],
    as_json: bool,
) -> None:
    if as_json:
        common = {"status": result.status.value, "steps": result.steps, "seconds": result.seconds}
        typer.echo(strict_json({**common, "metrics": result.metrics, "message": result.message, **told}))
        return
    typer.echo(f"{result!r}. {result.message}")
    for line in said if isinstance(said, list | tuple) else ():
        typer.echo(line)
    for what, path in files.items():
        if path is not None:
            typer.echo(f"{what}: {path}")

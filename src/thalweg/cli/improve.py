"""``thalweg improve``: a traced program of one's own, changed until its score is better."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Annotated, cast

import typer

from thalweg.cli.options import Json, Page, Seed
from thalweg.cli.output import PAGES, check_outputs, strict_json
from thalweg.cli.own import from_file
from thalweg.core import InvalidParameter, UnknownName

if TYPE_CHECKING:
    from thalweg.workflow import Node, ParameterNode
    from thalweg.workflow.optimizers import WorkflowOptimizer

    Parameters = dict[str, ParameterNode]

SEARCHES = ("auto", "pattern", "bayes", "choices", "edits", "descent", "model")


def improve(
    program: Annotated[
        str,
        typer.Argument(
            help="FILE.py:NAME, a function without arguments, or a Module, that returns the node of its score."
        ),
    ],
    search: Annotated[
        str, typer.Option(help=f"One of {', '.join(SEARCHES)}. auto goes by what the parameters hold.")
    ] = "auto",
    runs: Annotated[int, typer.Option(min=1, help="Of the program.")] = 50,
    maximize: Annotated[bool, typer.Option("--maximize", help="Larger scores are better.")] = False,
    guide: Annotated[
        str, typer.Option(help="A function of the file, from the program's value to a score or a Feedback.")
    ] = "",
    scores: Annotated[
        tuple[float, float], typer.Option(help="Smallest and largest score, for --search choices.")
    ] = (0.0, 1.0),
    model: Annotated[
        str, typer.Option(help="A model's name, for --search model; the key is in OPENAI_API_KEY.")
    ] = "",
    base_url: Annotated[
        str, typer.Option(help="Its endpoint, such as http://localhost:8000/v1; OPENAI_BASE_URL by default.")
    ] = "",
    cache: Annotated[
        Path | None, typer.Option(help="A folder of the model's replies: equal requests are made once.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Begin at the values of a file that --out wrote.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the best values here, .json; Module.load reads them.")
    ] = None,
    report: Page = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Improve a program of your own, made of thalweg.workflow: its numbers, choices, texts and code.

    FILE.py is imported, which runs its code in this process; trainable code runs in the sandbox. Parameters are those
    of the Module, and those at the top of the file that it reads. Numbers are moved by a pattern search, choices and
    bounded numbers by Bayesian optimization, code by edits; a model changes anything. A run that raises counts as the
    worst so far. Ctrl-C ends with the best values so far. Exit status 1 if it was interrupted.

    Example: thalweg improve light.py:wait --runs 40 --out best.json --report run.html
    """
    from thalweg.workflow.improving import improve as improved
    from thalweg.workflow.modules import load_parameters, save_parameters

    check_outputs([(out, (".json",)), (report, PAGES)], [])
    run, held, judge = _program(program, guide)
    if start is not None:
        load_parameters(held, start)
    name = chosen(held) if search == "auto" else search
    optimizer = _optimizer(name, held, maximize, scores, model, base_url, cache, seed)

    def watch(row: Mapping[str, object]) -> None:
        told = f"failed: {row['failed']}" if row["failed"] else f"{row['score']:.6g}"
        typer.echo(f"{row['run']:4d}/{runs}  {told.splitlines()[0]}  best {row['best']:.6g}", err=True)

    found = improved(run, optimizer, runs, guide=judge, maximize=maximize, watch=watch)
    if out is not None:
        save_parameters(held, out)
    if report is not None:
        from thalweg.workflow.report import write_workflow_page

        write_workflow_page(report, found.output, found.course, f"thalweg improve {program}: {name}")
    values = {path: parameter.data for path, parameter in held.items()}
    if as_json:
        told = {"score": found.score, "first": found.first, "runs": len(found.course), "search": name}
        typer.echo(strict_json({**told, "complete": found.complete, "values": _sayable(values)}))
    else:
        for path, value in values.items():
            typer.echo(f"{path} = {value}" if not isinstance(value, str) else f"{path}:\n{value.rstrip()}")
        ended = "" if found.complete else " Interrupted."
        typer.echo(f"Score {found.score:.6g}, {found.first:.6g} at first, {len(found.course)} runs.{ended}")
    raise typer.Exit(0 if found.complete else 1)


def _program(
    text: str, guide: str
) -> tuple[Callable[[], Node], Parameters, Callable[[object], float] | None]:
    """What to run, its parameters by name, and what judges it."""
    from thalweg.workflow import Module, Node
    from thalweg.workflow.modules import parameters_by_name

    thing, module = from_file(text)
    if isinstance(thing, type) and issubclass(thing, Module):
        try:
            inspect.signature(thing).bind()
        except TypeError:
            raise InvalidParameter(
                f"{text} needs arguments. Write NAME = {thing.__name__}(...) in the file, and name that."
            ) from None
        thing = thing()
    if not callable(thing) or isinstance(thing, Node):
        raise InvalidParameter(f"{text} is a {type(thing).__name__}; expected a function or a Module.")
    try:
        inspect.signature(thing).bind()
    except (TypeError, ValueError):
        raise InvalidParameter(f"{text} needs arguments; expected what can be called without any.") from None
    held = parameters_by_name(_used(thing, vars(module)))
    if isinstance(thing, Module):
        own, mine = thing.parameters_dict(), {id(parameter) for parameter in thing.parameters()}
        held = own | {path: parameter for path, parameter in held.items() if id(parameter) not in mine}
    if not held:
        raise InvalidParameter(
            f"{text} has nothing to change. Make parameters at the top of the file, or in a Module: "
            "node(value, trainable=True), or @bundle(trainable=True)."
        )
    if not guide:
        return cast("Callable[[], Node]", thing), held, None
    if not callable(getattr(module, guide, None)):
        functions = [name for name, value in vars(module).items() if inspect.isfunction(value)]
        raise UnknownName("function for --guide", guide, functions)
    return cast("Callable[[], Node]", thing), held, getattr(module, guide)


def _used(thing: object, names: Mapping[str, object]) -> dict[str, object]:
    """What stands at the top of the file and a program reads, itself or by functions and classes that it calls."""
    from thalweg.workflow import Bundle

    found: dict[str, object] = {}
    if isinstance(thing, Bundle) and thing.parameter is not None:
        found[thing.operator.name] = thing
    waiting = [thing]
    while waiting:
        for code in _codes(waiting.pop(), str(names["__name__"])):
            waiting += [part for part in code.co_consts if isinstance(part, CodeType)]
            fresh = {name: names[name] for name in code.co_names if name in names and name not in found}
            found |= fresh
            waiting += fresh.values()
    return found


def _codes(thing: object, module: str) -> list[CodeType]:
    """The code of a function, or of a class of the file."""
    from thalweg.workflow import Bundle

    thing = thing.function if isinstance(thing, Bundle) else thing
    if isinstance(thing, CodeType):
        return [thing]
    if inspect.isfunction(thing):
        return [thing.__code__] if thing.__module__ == module else []
    kind = thing if isinstance(thing, type) else type(thing)
    if kind.__module__ != module:
        return []
    members = [value.function if isinstance(value, Bundle) else value for value in vars(kind).values()]
    return [member.__code__ for member in members if inspect.isfunction(member)]


def chosen(held: Parameters) -> str:
    """The search that suits what the parameters hold.

    Raises:
        InvalidParameter: none does.
    """
    from thalweg.core.validation import is_real
    from thalweg.workflow import Bounds, Choices
    from thalweg.workflow.code import Signature

    kinds = {path: parameter.constraint for path, parameter in held.items()}
    if all(isinstance(kind, Signature) for kind in kinds.values()):
        return "edits"
    if all(is_real(parameter.data) for parameter in held.values()) and not any(
        isinstance(kind, Choices) for kind in kinds.values()
    ):
        return "pattern"
    free = [path for path, kind in kinds.items() if not isinstance(kind, Bounds | Choices)]
    if free:
        raise InvalidParameter(
            f"No search changes all of {', '.join(held)} at once. Give {free[0]} Bounds or Choices, or ask a model: "
            "--search model --model NAME."
        )
    return "bayes"


def _optimizer(
    name: str,
    held: Parameters,
    maximize: bool,
    scores: tuple[float, float],
    model: str,
    base_url: str,
    cache: Path | None,
    seed: int,
) -> WorkflowOptimizer:
    from thalweg.workflow import LanguageModel
    from thalweg.workflow import optimizers as known

    if name not in SEARCHES:
        raise UnknownName("search", name, SEARCHES, see="`thalweg improve --help` explains them.")
    if (name == "model") != bool(model):
        raise InvalidParameter(
            "--search model and --model NAME go together; the other searches need no model."
        )
    parameters, direction = list(held.values()), "maximize" if maximize else "minimize"
    if name == "descent" and maximize:
        raise InvalidParameter("--search descent goes down. Let the program return the negative.")
    made: dict[str, Callable[[], WorkflowOptimizer]] = {
        "pattern": lambda: known.PatternSearch(parameters, direction),
        "bayes": lambda: known.BayesSearch(parameters, direction, seed=seed),
        "choices": lambda: known.ChoiceBandit(parameters, direction, scores, seed),
        "edits": lambda: known.CodeEdits(parameters, direction, seed=seed),
        "descent": lambda: known.TraceDescent(parameters),
        "model": lambda: known.OptoPrime(parameters, LanguageModel(model, base_url, cache=cache)),
    }
    return made[name]()


def _sayable(value: object) -> object:
    """A value as JSON takes it; others by their Python form."""
    if isinstance(value, dict):
        return {str(k): _sayable(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_sayable(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)

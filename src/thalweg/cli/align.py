"""``thalweg align``: a reward and its policy from pairs that people have labelled."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thalweg.cli.options import Json
from thalweg.cli.output import check_outputs, strict_json, write_arrays

if TYPE_CHECKING:
    from thalweg.bilevel.alignment import TabularMDP


def align(
    world: Annotated[
        Path,
        typer.Argument(
            help="A .npz with transitions (S, A, S), and perhaps start (a state or S chances) and reward (S, A)."
        ),
    ],
    pairs: Annotated[
        Path | None,
        typer.Argument(
            help="Labelled pairs: columns first, second (state:action ...), preferred; or a .npz."
        ),
    ] = None,
    by_state: Annotated[
        bool,
        typer.Option("--by-state", help="A reward of states alone, whatever is done there: fewer labels do."),
    ] = False,
    discount: Annotated[float, typer.Option(help="Of what comes a step later, in [0, 1).")] = 0.9,
    entropy: Annotated[float, typer.Option(help="Weight of the policy's entropy, > 0.")] = 0.1,
    penalty: Annotated[float, typer.Option(help="Of the squared reward; 0 for none.")] = 1e-3,
    steps: Annotated[int, typer.Option(min=1, help="Of Adam on the reward.")] = 500,
    mistakes: Annotated[float, typer.Option(help="Share of labels that you expect to be wrong.")] = 0.0,
    out: Annotated[
        Path | None, typer.Option(help="Write reward and policy, (S, A): .npz, or .npy, .csv.")
    ] = None,
    ask: Annotated[
        Path | None, typer.Option(help="Write new pairs of the policy's own behaviour, to be labelled.")
    ] = None,
    questions: Annotated[int, typer.Option(min=1, help="How many pairs --ask writes.")] = 20,
    length: Annotated[int, typer.Option(min=1, help="Steps of each piece that --ask writes.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Of what --ask draws.")] = 0,
    as_json: Json = False,
) -> None:
    """Fit a reward to labelled pairs, find its policy, and ask about what that policy does.

    Without pairs, --ask writes those of the policy that takes all actions alike: label them, and begin.
    """
    import numpy as np

    from thalweg.bilevel.alignment import (
        Alternation,
        LinearReward,
        PreferenceTask,
        TableReward,
        load_preferences,
        save_preferences,
    )
    from thalweg.core import InvalidParameter, Stop, solve
    from thalweg.core.files import ARRAY_ENDINGS
    from thalweg.core.seeding import generator

    check_outputs([(out, ARRAY_ENDINGS), (ask, ())], [world, pairs])
    if pairs is None and ask is None:
        raise InvalidParameter("align needs labelled pairs, or --ask FILE to write the first ones.")
    place = read_world(world, discount)
    reward = np.zeros((place.states, place.actions))
    policy = np.full_like(reward, 1.0 / place.actions)
    told: dict[str, object] = {}
    if pairs is not None:
        store = load_preferences(pairs, mistakes=mistakes)
        states = LinearReward(np.eye(place.states), actions=place.actions)
        model = states if by_state else TableReward(place.states, place.actions)
        task = PreferenceTask(place, model, store=store, entropy=entropy)
        found = solve(task, Alternation(penalty=penalty), stop=Stop(steps=steps))
        reward, policy = model.table(found.x, *reward.shape), task.policy_of(found.x)
        told = {"pairs": len(store), "steps": found.steps, "metrics": found.metrics}
    if out is not None:
        write_arrays(out, {"reward": reward, "policy": policy})
    if ask is not None:
        drawn = place.rollouts(policy, 2 * questions, length, generator(seed, 0xA5C))
        save_preferences(ask, drawn[:questions], drawn[questions:])
    if as_json:
        typer.echo(strict_json(told | {"out": str(out) if out else None, "ask": str(ask) if ask else None}))
        return
    if pairs is not None:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in found.metrics.items())
        typer.echo(f"{len(store)} labelled pairs, {found.steps} steps: {shown}.")
    if ask is not None:
        typer.echo(
            f"{questions} pairs to label in {ask}: put first, second or equal into the column preferred."
        )


def read_world(path: Path, discount: float) -> TabularMDP:
    """The world of a file of arrays."""
    from thalweg.bilevel.alignment import TabularMDP
    from thalweg.core import InvalidProblem
    from thalweg.datasets import load_arrays

    arrays = load_arrays(path)
    if "transitions" not in arrays or set(arrays) - {"transitions", "start", "reward"}:
        raise InvalidProblem(
            f"{path} holds the arrays {', '.join(arrays) or 'none'}; expected transitions, and perhaps start "
            "and reward."
        )
    start = arrays.get("start")
    begins = 0 if start is None else int(start) if start.shape == () and start.dtype.kind in "iu" else start
    return TabularMDP(arrays["transitions"], begins, discount, reward=arrays.get("reward"))  # type: ignore[arg-type]

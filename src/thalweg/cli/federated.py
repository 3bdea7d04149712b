"""``thalweg federated report``: is an aggregation scheme fair to clients of these speeds?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thalweg.cli.options import Header, Json
from thalweg.cli.output import strict_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from thalweg.distributed.federated import Aggregation

SCHEMES = ("fedavg", "fedfix", "fedbuff", "async", "sampled")
federated_app = typer.Typer(no_args_is_help=True, help="Training on data that stay with clients.")


@federated_app.command("report")
def report_federated(
    times: Annotated[
        Path,
        typer.Option(
            help="Seconds that tasks took: a row a task, a column a client (one row of means will do)."
        ),
    ],
    scheme: Annotated[str, typer.Option(help=f"One of {', '.join(SCHEMES)}.")] = "fedfix",
    interval: Annotated[
        float | None, typer.Option(help="Seconds between aggregations of fedfix; the median time by default.")
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            min=1, help="Updates an aggregation of fedbuff or sampled takes; 10 by default, or all clients."
        ),
    ] = None,
    corrected: Annotated[bool, typer.Option(help="Weigh clients by how rarely they come.")] = True,
    samples: Annotated[
        Path | None, typer.Option(help="Examples of each client, one row: importances; equal by default.")
    ] = None,
    header: Header = None,
    as_json: Json = False,
) -> None:
    """Expected weights, whom they favour, the window and what to change. Exit status 1 for a biased design."""
    import numpy as np

    from thalweg.core import InvalidParameter, UnknownName
    from thalweg.datasets import load_named_matrix
    from thalweg.distributed import federated

    table = load_named_matrix(times, header=header, name="the times")
    seen = federated.ClientTimes.recorded(table.values)
    names = table.names or tuple(str(i) for i in range(table.values.shape[1]))
    taken = min(10, seen.clients) if count is None else count
    made: dict[str, Callable[[], Aggregation]] = {
        "fedavg": federated.FedAvg,
        "fedfix": lambda: federated.FedFix(
            float(np.median(seen.means)) if interval is None else interval, corrected
        ),
        "fedbuff": lambda: federated.FedBuff(taken, corrected),
        "async": lambda: federated.AsyncFedAvg(corrected=corrected),
        "sampled": lambda: federated.Sampled(taken),
    }
    if scheme not in made:
        raise UnknownName("scheme", scheme, made, see="`thalweg federated report --help` shows all.")
    p = None
    if samples is not None:
        p = _shares(load_named_matrix(samples, header=header, name="the samples").values.ravel(), names)
    if scheme == "sampled" and taken > seen.clients:
        raise InvalidParameter(f"--count is at most the number of clients, {seen.clients}; got {taken}.")
    found = federated.design(made[scheme](), seen, p)
    if as_json:
        told: dict[str, object] = {
            "scheme": str(found.scheme),
            "unbiased": found.unbiased,
            "window": found.window,
        }
        told |= {
            "clients": names,
            "interval": found.interval,
            "expected": found.expected.tolist(),
            "q": found.q.tolist(),
        }
        told |= {"p": found.p.tolist(), "disparity": found.disparity, "neglected": found.neglected}
        typer.echo(strict_json(told | {"advice": found.advice()}))
    else:
        typer.echo(str(found))
        width = max(6, *map(len, names))
        typer.echo(f"{'client':{width}}   mean s        p     E[d]    q / p")
        for name, seconds, mine, d, q in zip(
            names, seen.means, found.p, found.expected, found.q, strict=True
        ):
            typer.echo(f"{name:>{width}} {seconds:8.3g} {mine:8.4f} {d:8.4f} {q / mine:8.3f}")
        typer.echo(
            "p: wanted importance; E[d]: expected weight in an aggregation; q / p: importance got over wanted."
        )
    raise typer.Exit(0 if found.unbiased else 1)


def _shares(examples: NDArray[np.float64], names: tuple[str, ...]) -> NDArray[np.float64]:
    """Importances of clients from how many examples they have."""
    from thalweg.core import InvalidProblem

    if len(examples) != len(names):
        raise InvalidProblem(
            f"--samples has {len(examples)} numbers; expected one for each of {len(names)} clients."
        )
    for name, count in zip(names, examples.tolist(), strict=True):
        if not 0 < count < float("inf"):
            raise InvalidProblem(
                f"--samples: client {name} has {count:g} examples; expected a positive number."
            )
    return examples / examples.sum()

"""``thalweg federated report``: is an aggregation scheme fair to clients of these speeds?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thalweg.cli.options import Header, Json
from thalweg.cli.output import strict_json

if TYPE_CHECKING:
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
    count: Annotated[int, typer.Option(help="Updates an aggregation of fedbuff or sampled takes.")] = 10,
    corrected: Annotated[bool, typer.Option(help="Weigh clients by how rarely they come.")] = True,
    samples: Annotated[
        Path | None, typer.Option(help="Examples of each client, one row: importances; equal by default.")
    ] = None,
    header: Header = None,
    as_json: Json = False,
) -> None:
    """Expected weights, whom they favour, the window and what to change. Exit status 1 for a biased design."""
    import numpy as np

    from thalweg.core import UnknownName
    from thalweg.datasets import load_named_matrix
    from thalweg.distributed import federated

    table = load_named_matrix(times, header=header, name="the times")
    seen = federated.ClientTimes.recorded(table.values)
    names = table.names or tuple(str(i) for i in range(table.values.shape[1]))
    made: dict[str, Callable[[], Aggregation]] = {
        "fedavg": federated.FedAvg,
        "fedfix": lambda: federated.FedFix(
            float(np.median(seen.means)) if interval is None else interval, corrected
        ),
        "fedbuff": lambda: federated.FedBuff(count, corrected),
        "async": lambda: federated.AsyncFedAvg(corrected=corrected),
        "sampled": lambda: federated.Sampled(count),
    }
    if scheme not in made:
        raise UnknownName("scheme", scheme, made, see="`thalweg federated report --help` shows all.")
    p = None
    if samples is not None:
        examples = load_named_matrix(samples, header=header, name="the samples").values.ravel()
        p = examples / examples.sum()
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

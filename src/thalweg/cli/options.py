"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Tolerance = Annotated[float, typer.Option(help="Relative residual to reach.")]
Steps = Annotated[int, typer.Option(help="Most iterations.")]
Seconds = Annotated[float | None, typer.Option(help="Most seconds.")]
Json = Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")]
Seed = Annotated[int, typer.Option(help="Makes the run repeatable.")]

"""The methods of discovery by name, and which of them suits a problem."""

from __future__ import annotations

from thalweg.core import Method, recommended
from thalweg.discovery.evolution import RandomPrograms, RegularizedEvolution
from thalweg.discovery.problem import ProgramSearch

#: The area's methods, by the names that tables and the command use.
METHODS: dict[str, type[Method]] = {
    "regularized-evolution": RegularizedEvolution,
    "random-programs": RandomPrograms,
}


@recommended.register
def for_program_search(problem: ProgramSearch) -> RegularizedEvolution:
    """A hundred programs, tournaments of two."""
    return RegularizedEvolution()

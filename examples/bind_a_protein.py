"""Propose DNA that a protein binds, from five hundred sequences that it hardly does.

Run it: ``python examples/bind_a_protein.py page.html``. The scores are measured (the transcription factor SIX6, all
sequences of eight letters), so that proposals can be judged by the truth, which they never see.
"""

import sys

import numpy as np

from thalweg.blackbox.design import SequenceDesign, proposal_figures, six6
from thalweg.workbench import render_figures


def main(page: str = "", rows: int = 500, n: int = 32) -> tuple[float, float, float]:
    """True scores: of the best row, the proposals' median and their best."""
    truth = six6()
    table = truth.offline(rows, seed=1)
    model = SequenceDesign("dna").fit(table.space.decode(table.codes), table.values)
    found = model.propose(n)
    worth = truth(table.space.encode(found.sequences))
    if page:
        render_figures(proposal_figures(found, table), page, "DNA for SIX6")
    return float(table.values.max()), float(np.median(worth)), float(worth.max())


if __name__ == "__main__":
    best_row, median, best = main(*sys.argv[1:2])
    print(f"best row {best_row:.2f}; proposals: median {median:.2f}, best {best:.2f}")

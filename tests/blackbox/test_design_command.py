"""``thalweg solve design``: from a table to ranked proposals, a page, and words for what is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest

from running import thalweg
from thalweg.datasets.sequences import load_sequences

FAST = ("--method", "bidirectional-design:encoder=one-hot,gamma=0.5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("design")
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("ACGT"), 6)) for _ in range(120)]
    scores = [text.count("G") + 0.5 * text.count("C") for text in texts]
    rows = "".join(f"{t},{s}\n" for t, s in zip(texts, scores, strict=True))
    (folder / "table.csv").write_text(f"sequence,score\n{rows}")
    (folder / "table.fasta").write_text(
        "".join(f">s{i} score={s}\n{t}\n" for i, (t, s) in enumerate(zip(texts, scores, strict=True)))
    )
    return folder


def test_a_table_becomes_ranked_proposals_and_a_page(folder):
    out, page = folder / "designs.csv", folder / "page.html"
    command = ("solve", "design", folder / "table.csv", "--alphabet", "dna", "--propose", 16, *FAST)
    done = thalweg(*command, "--out", out, "--report", page, "--targets", "1,10")
    assert done.returncode == 0, done.stderr
    assert "proposals; best row of the table" in done.stdout
    found = load_sequences(out, sequence="sequence", score="predicted")
    assert 0 < len(found.letters) <= 16
    assert found.letters[0] == "GGGGGG"
    text = page.read_text()
    for title in ("Predicted scores and distance", "Letters of the proposals", "What the target does"):
        assert title in text


def test_fasta_in_fasta_out_and_json(folder):
    out = folder / "designs.fasta"
    command = ("solve", "design", folder / "table.fasta", "--propose", 8, "--mask", "..A...", "--edits", 3)
    done = thalweg(*command, *FAST, "--out", out, "--json")
    told = json.loads(done.stdout)
    assert told["status"] in ("converged", "stalled")
    letters = load_sequences(out).letters
    assert [row["sequence"] for row in told["proposals"]] == list(letters)
    assert all(text[2] == "A" for text in letters)


def test_compare_and_list_know_the_methods(folder):
    methods = ("--method", "proxy-ascent:encoder=one-hot", "--method", "best-rows")
    done = thalweg("compare", "design", folder / "table.csv", "--propose", 8, *methods)
    assert done.returncode == 0, done.stderr
    assert "judged_median" in done.stdout
    listed = thalweg("list", "design").stdout
    assert "bidirectional-design" in listed
    assert "space-filling" not in listed
    assert "solve design" in thalweg("show", "bidirectional-design").stdout
    both = thalweg("list", "blackbox").stdout
    assert "proxy-ascent" in both
    assert "space-filling" in both


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("table.csv", "--alphabet", "rna"), "the alphabet is ACGU"),
        (("table.csv", "--allow", "4-CT"), "--allow is position:letters"),
        (("table.csv", "--mask", "AAA"), "leave nothing free"),
        (("table.csv", "--mask", "A."), "has 6 letters; expected 2"),
        (("table.csv", "--targets", "high"), "--targets is numbers"),
        (("table.csv", "--score", "yield"), "No column 'yield'"),
        (("missing.csv",), "No file"),
        (("table.csv", "--method", "bidirectional-design:encoder=nowhere"), "encoder is one of masked"),
        (("table.csv", "--method", "bidirectional-design:mode=up"), "No mode of bidirectional-design 'up'"),
        (("table.csv", "--out", "designs.npy"), "unknown ending"),
    ],
)
def test_bad_input_ends_in_one_line(folder, arguments, words):
    name, *rest = arguments
    done = thalweg("solve", "design", folder / name, *rest)
    assert done.returncode == 2
    assert words in " ".join((done.stderr + done.stdout).split())
    assert "Traceback" not in done.stderr


def test_fasta_without_scores_is_refused(folder):
    (folder / "bare.fasta").write_text(">x\nACGT\n>y\nACGA\n")
    done = thalweg("solve", "design", folder / "bare.fasta")
    assert "has no scores; write them into the titles" in " ".join((done.stderr + done.stdout).split())

"""Studies rerun, kept, skipped, and shown."""

from __future__ import annotations

import dataclasses
import json
import math
import os

import pytest

os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # before Ray is imported

from thalweg.catalogue import SYSTEMS, find, with_study
from thalweg.core import InvalidParameter, InvalidProblem, UnknownName, UnreadableFile
from thalweg.studies import Evidence, Figure, Series, Verdict, lion_k
from thalweg.workbench import Record, render_studies, reproduce


@pytest.fixture
def evidence():
    figure = Figure(
        "Fall", "It falls.", "step", "loss", [Series("a", [1.0, 2.0], [1.0, math.inf])], log_y=True
    )
    return Evidence(
        verdicts=[Verdict("it falls </script>", 0.5, 1.0), Verdict("it rises", math.nan, 1.0, ">=")],
        table=[{"method": "a", "loss": 0.25, "rounds": 10_000}],
        figures=[figure],
        costs={"problems": ["p"], "methods": {"a": [1.0], "b": [math.inf]}},
        notes="Some words.",
    )


@pytest.fixture
def instant(monkeypatch, evidence):
    """Study 12 comes back at once, and counts how often it was asked."""
    calls = []

    def run(scale, tell):
        calls.append(scale)
        tell(0.5, "half way")
        return evidence

    monkeypatch.setattr(lion_k, "run", run)
    return calls


class TestCatalogue:
    def test_there_are_35_systems_each_with_a_name_of_its_own(self):
        assert [s.number for s in SYSTEMS] == [f"{i:02d}" for i in range(1, 36)]
        assert len({s.slug for s in SYSTEMS}) == 35

    def test_every_export_and_every_study_is_there(self):
        import importlib

        for system in SYSTEMS:
            for export in system.exports:
                module, _, name = export.rpartition(".")
                assert hasattr(importlib.import_module(f"thalweg.{module}"), name)
            if system.study:
                assert callable(importlib.import_module(f"thalweg.studies.{system.study}").run)

    def test_a_system_is_found_by_number_and_by_slug(self):
        assert find("11") is find("rex-schedule")
        with pytest.raises(UnknownName, match="Did you mean 'rex-schedule'"):
            find("rex-schedul")


class TestEvidence:
    def test_a_verdict_is_the_documented_four(self, evidence):
        first, second = (v.to_dict() for v in evidence.verdicts)
        assert first == {"claim": "it falls </script>", "measured": 0.5, "required": 1.0, "holds": True}
        assert second["measured"] is None
        assert not second["holds"]

    def test_it_survives_json_with_its_infinities(self, evidence):
        text = json.dumps(evidence.to_dict(), allow_nan=False)
        back = Evidence.from_dict(json.loads(text))
        assert math.isnan(back.verdicts[1].measured)
        assert back.figures == [dataclasses.replace(evidence.figures[0], categories=[])]
        assert back.costs["methods"]["b"] == [math.inf]


class TestReproduce:
    def test_a_finished_study_is_kept_and_skipped_the_next_time(self, instant, tmp_path):
        for _ in range(2):
            records, failures = reproduce(["12"], folder=tmp_path, engine="sequential")
            assert [r.system.slug for r in records] == ["lion-k"]
            assert not failures
        assert instant == ["quick"]
        reproduce(["12"], folder=tmp_path, engine="sequential", fresh=True)
        assert instant == ["quick", "quick"]

    def test_scales_are_kept_apart(self, instant, tmp_path):
        reproduce(["12"], folder=tmp_path, engine="sequential", scale="smoke")
        reproduce(["12"], folder=tmp_path, engine="sequential", scale="paper")
        assert instant == ["smoke", "paper"]

    def test_a_study_that_breaks_down_does_not_take_the_others_with_it(self, monkeypatch, instant, tmp_path):
        from thalweg.studies import rex_schedule

        def broken(scale, tell):
            raise ZeroDivisionError("no budget")

        monkeypatch.setattr(rex_schedule, "run", broken)
        records, failures = reproduce(["11", "12"], folder=tmp_path, engine="sequential")
        assert [r.system.number for r in records] == ["12"]
        assert "no budget" in failures[0].trace
        assert [p.name for p in tmp_path.glob("*.json")] == ["12-lion-k.quick.json"]

    def test_progress_is_told(self, instant, tmp_path):
        seen = []
        reproduce(["12"], folder=tmp_path, engine="sequential", watch=seen.append)
        assert seen[-1]["12 lion-k"].startswith("100% done")

    def test_processes_run_real_studies(self, tmp_path):
        records, failures = reproduce(["27"], scale="smoke", folder=tmp_path, engine="loky", jobs=2)
        assert not failures
        assert records[0].evidence.verdicts

    def test_studies_run_on_ray(self, tmp_path):
        ray = pytest.importorskip("ray")
        try:
            records, failures = reproduce(["27", "31"], scale="smoke", folder=tmp_path, engine="ray", jobs=2)
        finally:
            ray.shutdown()
        assert not failures
        assert [r.system.number for r in records] == ["27", "31"]
        assert all(r.evidence.verdicts for r in records)

    def test_bad_input_is_refused(self, tmp_path):
        with pytest.raises(UnknownName, match="No system '99'"):
            reproduce(["99"], folder=tmp_path)
        with pytest.raises(InvalidProblem, match="has no study yet"):
            reproduce(["01"], folder=tmp_path)
        with pytest.raises(InvalidParameter, match="scale is one of"):
            reproduce(["12"], folder=tmp_path, scale="huge")
        with pytest.raises(InvalidParameter, match="engine is one of"):
            reproduce(["12"], folder=tmp_path, engine="threads")

    def test_a_damaged_record_is_refused(self, tmp_path):
        (tmp_path / "x.json").write_text("{}")
        with pytest.raises(UnreadableFile, match="damaged"):
            Record.load(tmp_path / "x.json")


class TestReport:
    def test_the_page_needs_no_network_and_shows_every_verdict(self, evidence, tmp_path):
        record = Record(find("12"), "quick", evidence, 3.0, {"python": "3"})
        page = render_studies([record], tmp_path / "r.html").read_text()
        assert "1 of 2 claims hold" in page
        assert "it falls &lt;/script&gt;" in page
        shell = page.split("<script>", 1)[0]
        assert "http://" not in shell
        assert "https://" not in shell
        assert 'src="' not in page.split("</style>", 1)[1].split("<script>", 1)[0]

    def test_all_with_a_study_can_be_listed(self):
        assert {s.number for s in with_study()} == {
            *(
                "02",
                "03",
                "04",
                "06",
                "07",
                "08",
                "10",
                "11",
                "12",
                "13",
                "16",
                "18",
                "20",
                "22",
                "23",
                "26",
                "27",
                "31",
                "35",
            )
        }

"""Studies rerun, kept, skipped, and shown."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner

os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # before Ray is imported

from thalweg.catalogue import SYSTEMS, find
from thalweg.cli import app
from thalweg.core import InvalidParameter, UnknownName, UnreadableFile
from thalweg.studies import Evidence, Figure, Series, Verdict, lion_k
from thalweg.workbench import (
    Record,
    evidence_folder,
    read_recorded,
    render_studies,
    reproduce,
    write_recorded,
)
from thalweg.workbench.code import code_of


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
    def test_it_survives_json_with_its_infinities(self, evidence):
        text = json.dumps(evidence.to_dict(), allow_nan=False)
        back = Evidence.from_dict(json.loads(text))
        assert back.verdicts[0] == evidence.verdicts[0]
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
        reproduce(["12"], folder=tmp_path, engine="sequential", scale="full")
        assert instant == ["smoke", "full"]

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

    def test_what_other_code_made_is_run_again(self, instant, tmp_path, monkeypatch):
        (record,), _ = reproduce(["12"], folder=tmp_path, engine="sequential")
        assert record.changed() == []
        kept = tmp_path / "12-lion-k.quick.json"
        data = json.loads(kept.read_text())
        data["code"]["training/lion.py"] = "0123456789abcdef"
        kept.write_text(json.dumps(data))
        assert Record.load(kept).changed() == ["training/lion.py"]
        (record,), _ = reproduce(["12"], folder=tmp_path, engine="sequential")
        assert instant == ["quick", "quick"]
        assert record.changed() == []
        assert Record.load(kept).changed() == []

    def test_a_damaged_record_is_made_again(self, instant, tmp_path):
        (tmp_path / "12-lion-k.quick.json").write_text('{"system": "12"')
        records, failures = reproduce(["12"], folder=tmp_path, engine="sequential")
        assert (len(records), failures, instant) == (1, [], ["quick"])

    def test_notes_of_a_killed_run_are_swept_and_those_of_a_living_one_stay(self, instant, tmp_path):
        child = subprocess.Popen([sys.executable, "-c", ""])
        child.wait()
        dead, old, mine = (tmp_path / f".progress-{n}" for n in (f"{child.pid}-x", "x", f"{os.getpid()}-x"))
        for folder in (dead, old, mine):
            folder.mkdir()
            (folder / "11").write_text("3% tuning")
        reproduce(["11"], scale="smoke", folder=tmp_path, engine="sequential")
        assert [folder.exists() for folder in (dead, old, mine)] == [False, False, True]

    def test_a_study_named_twice_is_run_once(self, instant, tmp_path):
        records, _ = reproduce(["12", "lion-k"], folder=tmp_path, engine="sequential")
        assert (len(records), instant) == (1, ["quick"])

    def test_studies_of_seconds_run_alone_after_the_others(self, monkeypatch, evidence, tmp_path):
        from thalweg.studies import bo_rep, rex_schedule

        running, order = set(), []

        def study(name):
            def run(scale, tell):
                running.add(name)
                order.append((name, set(running)))
                running.discard(name)
                return evidence

            return run

        for module, name in ((rex_schedule, "11"), (lion_k, "12"), (bo_rep, "31")):
            monkeypatch.setattr(module, "run", study(name))
        monkeypatch.setattr(rex_schedule, "timed", True, raising=False)
        records, failures = reproduce(["11", "12", "31"], folder=tmp_path, engine="sequential")
        assert order == [("12", {"12"}), ("31", {"31"}), ("11", {"11"})]
        assert [r.system.number for r in records] == ["11", "12", "31"]
        assert not failures

    def test_studies_of_seconds_are_kept_from_the_parallel_engine(self, monkeypatch, instant, tmp_path):
        """What is patched here is not patched in another process: the study that ran patched ran in this one."""
        monkeypatch.setattr(lion_k, "timed", True, raising=False)
        records, failures = reproduce(["10", "12"], scale="smoke", folder=tmp_path, engine="loky", jobs=2)
        assert not failures
        assert instant == ["smoke"]
        assert [r.system.number for r in records] == ["10", "12"]

    @pytest.mark.parametrize("engine", ["sequential", "loky"])
    def test_sigterm_leaves_no_notes_of_progress(self, engine, tmp_path):
        script = (
            "import sys\n"
            "from thalweg.workbench import reproduce\n"
            "watch = lambda notes: print(*notes.values(), sep='; ', flush=True)\n"
            f"reproduce(['12', '27'], scale='full', folder=sys.argv[1], engine='{engine}', jobs=2, watch=watch)\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as process:
            for line in process.stdout:
                if "%" in line:  # a study is under way
                    break
            assert len(list(tmp_path.glob(".progress-*"))) == 1
            process.terminate()
            assert process.wait(60) == 128 + signal.SIGTERM
        assert list(tmp_path.iterdir()) == []

    def test_processes_run_real_studies(self, tmp_path):
        records, failures = reproduce(["10"], scale="smoke", folder=tmp_path, engine="loky", jobs=2)
        assert not failures
        assert records[0].evidence.verdicts

    @pytest.mark.usefixtures("ray_engine")
    def test_studies_run_on_ray(self, tmp_path):
        records, failures = reproduce(["02", "10"], scale="smoke", folder=tmp_path, engine="ray", jobs=2)
        assert not failures
        assert [r.system.number for r in records] == ["02", "10"]
        assert all(r.evidence.verdicts for r in records)

    def test_bad_input_is_refused(self, tmp_path):
        with pytest.raises(UnknownName, match="No system '99'"):
            reproduce(["99"], folder=tmp_path)
        with pytest.raises(InvalidParameter, match="scale is one of"):
            reproduce(["12"], folder=tmp_path, scale="huge")
        with pytest.raises(InvalidParameter, match="engine is one of"):
            reproduce(["12"], folder=tmp_path, engine="threads")
        with pytest.raises(InvalidParameter, match="jobs >= 1; got 0"):
            reproduce(["12"], folder=tmp_path, jobs=0)

    def test_a_damaged_record_is_refused(self, tmp_path):
        (tmp_path / "x.json").write_text("{}")
        with pytest.raises(UnreadableFile, match="damaged"):
            Record.load(tmp_path / "x.json")


class TestRecorded:
    @pytest.fixture
    def full(self, instant, tmp_path):
        (record,), _ = reproduce(["12"], scale="full", folder=tmp_path / "runs", engine="sequential")
        return record

    def test_it_is_written_by_number_and_name_and_read_back(self, full, tmp_path):
        (path,) = write_recorded([full], tmp_path / "evidence")
        assert path == tmp_path / "evidence" / "12-lion-k.json"
        (back,) = read_recorded(tmp_path / "evidence").values()
        assert back.evidence.to_dict() == full.evidence.to_dict()
        assert (back.scale, back.machine, back.code) == ("full", full.machine, full.code)
        assert set(back.machine) >= {"processor", "cores", "python", "thalweg", "numpy"}

    def test_only_the_full_scale_is_recorded(self, instant, full, tmp_path):
        quick, _ = reproduce(["12"], folder=tmp_path / "runs", engine="sequential")
        with pytest.raises(InvalidParameter, match="what the full scale gave"):
            write_recorded([full, *quick], tmp_path / "evidence")
        assert not (tmp_path / "evidence").exists()

    def test_no_folder_holds_no_evidence(self, tmp_path):
        assert read_recorded(tmp_path / "nowhere") == {}

    def test_the_folder_is_that_of_the_checkout(self):
        assert evidence_folder().name == "evidence"
        assert (evidence_folder().parent / "pyproject.toml").exists()

    def test_the_command_writes_it_and_shows_it_beside_what_is_measured(self, instant, tmp_path):
        def command(*words):
            folders = ["--runs", str(tmp_path / "runs"), "--evidence", str(tmp_path / "evidence")]
            return CliRunner().invoke(app, [*words, *folders])

        done = command("reproduce", "12", "--scale", "full", "--record", "--engine", "sequential")
        assert done.exit_code == 0, done.output
        assert (tmp_path / "evidence" / "12-lion-k.json").exists()
        assert command("reproduce", "12", "--scale", "smoke", "--engine", "sequential").exit_code == 0
        page = (tmp_path / "runs" / "report.html").read_text()
        assert "Measured here at smoke scale" in page
        assert "Recorded at full scale" in page

    def test_the_report_of_the_recorded_needs_no_runs(self, full, tmp_path, monkeypatch):
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")  # where there are no runs
        write_recorded([full], tmp_path / "evidence")
        page = tmp_path / "page.html"
        done = CliRunner().invoke(
            app, ["report", "--evidence", str(tmp_path / "evidence"), "--report", str(page)]
        )
        assert done.exit_code == 0, done.output
        assert "Not measured here: all that is shown is recorded." in page.read_text()


class TestReport:
    def test_the_page_needs_no_network_and_shows_every_verdict(self, evidence, tmp_path):
        record = Record(find("12"), "quick", evidence, 3.0, {"python": "3"})
        page = render_studies([record], tmp_path / "r.html").read_text()
        assert "1 of 2 claims hold in this run; 1 fail, 0 are open." in page
        assert "it falls &lt;/script&gt;" in page
        shell = page.split("<script>", 1)[0]
        assert "http://" not in shell
        assert "https://" not in shell
        assert 'src="' not in page.split("</style>", 1)[1].split("<script>", 1)[0]

    def test_no_name_of_a_series_reaches_the_page_as_markup(self, tmp_path):
        name = "<!--<script>"
        figure = Figure(name, name, name, name, [Series(name, [1.0], [2.0])])
        evidence = Evidence([Verdict(name, 1.0, 2.0)], [{name: name}], [figure], notes=name)
        page = render_studies(
            [Record(find("12"), "quick", evidence, 1.0, {})], tmp_path / "r.html"
        ).read_text()
        assert "<!--<script>" not in page
        (drawn,) = re.findall(r'<script type="application/json">(.*?)</script>', page, re.S)
        assert "<" not in drawn
        assert json.loads(drawn)["data"][0]["name"] == name

    def test_measured_and_recorded_stand_in_one_row(self, tmp_path):
        def record(scale, *verdicts):
            return Record(find("12"), scale, Evidence(list(verdicts), [{"a": 1}]), 1.0, {"python": "3"})

        here = record(
            "quick",
            Verdict("it falls", 0.9, 1.0, interval=(0.8, 1.25)),
            Verdict("it is a cube", 3.0, (2.4, 3.6), "within"),
        )
        kept = record(
            "full",
            Verdict("it falls", 0.75, 1.0, interval=(0.7, 0.8)),
            Verdict("it is a cube", 3.0, (2.5, 3.5), "within"),
            Verdict("it is large", 0.5, 1.0, ">="),
        )
        page = render_studies([here], tmp_path / "r.html", {"12": kept}).read_text()
        body = page.split("<tbody>", 1)[1].split("</tbody>", 1)[0]
        rows = [re.sub(r"<[^>]+>", " ", line).split() for line in body.split("<tr>")[1:]]
        falls, cube, large = (" ".join(row) for row in rows)
        assert falls == "open it falls 0.9 [0.8, 1.25] ≤ 1 holds 0.75 [0.7, 0.8] 12"
        assert cube == "holds it is a cube 3 2.4 to 3.6 holds 3, required 2.5 to 3.5 12"
        assert large == "it is large ≥ 1 fails 0.5 12"
        assert "1 of 2 claims hold in this run; 0 fail, 1 are open." in page
        assert "2 of 3 claims hold as recorded; 1 fail, 0 are open." in page

    def test_it_says_where_the_code_has_changed_since(self, tmp_path):
        code = code_of("lion_k")
        evidence = Evidence([Verdict("it falls", 0.9, 1.0)], [{"a": 1}])
        same = Record(find("12"), "quick", evidence, 1.0, {"python": "3"}, code)
        old = {**code, "training/lion.py": "0" * 16, "training/gone.py": "1" * 16}
        other = Record(find("12"), "full", evidence, 1.0, {"python": "3.9"}, old)
        page = render_studies([same], tmp_path / "r.html", {"12": other}).read_text()
        assert "Measured here at quick scale in 1 s. By the code that is here now. python 3<" in page
        assert "The code has changed since: training/gone.py, training/lion.py. python 3.9<" in page

    def test_a_long_list_of_changed_files_is_counted(self, tmp_path):
        evidence = Evidence([Verdict("it falls", 0.9, 1.0)], [{"a": 1}])
        record = Record(find("12"), "quick", evidence, 1.0, {}, {})
        files = code_of("lion_k")
        page = render_studies([record], tmp_path / "r.html").read_text()
        assert "core/__init__.py, core/callbacks.py" in page
        assert f" and {len(files) - 5} more." in page

    def test_every_system_has_a_study_of_its_own(self):
        assert len({s.study for s in SYSTEMS}) == 35

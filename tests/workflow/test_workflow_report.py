"""The page shows the trace, and takes no text for markup."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from thalweg.core import InvalidParameter
from thalweg.workflow import ExecutionError, node
from thalweg.workflow.report import trace_svg, write_workflow_page

SVG = "{http://www.w3.org/2000/svg}"


def test_each_node_is_a_box_and_each_link_a_line():
    w = node(2.0, trainable=True)
    y = w * w + 1
    tree = ET.fromstring(trace_svg(y))
    assert len(tree.findall(f".//{SVG}rect")) == 4  # w, w * w, 1, the sum
    assert len(tree.findall(f".//{SVG}path")) == 4


def test_large_traces_are_cut_near_the_output():
    x = node(0, trainable=True)
    for _ in range(100):
        x = x + 1
    assert trace_svg(x, most=10).count("<rect") == 10
    with pytest.raises(InvalidParameter, match="most >= 1"):
        trace_svg(x, most=0)


def test_the_page_has_parameters_feedback_and_course_as_text(tmp_path):
    prompt = node("<script>alert(1)</script>", trainable=True, name="prompt", description="what is asked")
    y = prompt + "!"
    y.backward("too <b>loud</b>")
    page = write_workflow_page(
        tmp_path / "run.html", y, [{"score": 1.5}, {"score": 2.5}], "A & B"
    ).read_text()
    assert "<script>" not in page
    assert "<b>loud" not in page
    for part in ("A &amp; B", "too &lt;b&gt;loud", "what is asked", "<td>2.5</td>", "<svg"):
        assert part in page


def test_half_a_character_is_written_as_its_number(tmp_path):
    page = write_workflow_page(tmp_path / "run.html", node("\ud800", trainable=True) + "!")
    assert "\\ud800" in page.read_text(encoding="utf-8")


def test_an_exception_is_drawn_in_its_colour(tmp_path):
    with pytest.raises(ExecutionError) as caught:
        1 / node(0, trainable=True)
    assert "#f4cccc" in trace_svg(caught.value.node)
    with pytest.raises(InvalidParameter, match="ending"):
        write_workflow_page(tmp_path / "run.txt", caught.value.node)

"""What code in the sandbox can and cannot do."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.core import InvalidParameter
from thalweg.workflow import Sandbox, SandboxError, sandbox

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda v: st.lists(v) | st.tuples(v, v) | st.dictionaries(st.text() | st.integers(), v),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def box():
    with Sandbox(seconds=2.0, megabytes=256) as held:
        yield held


@settings(max_examples=50)
@given(value=values)
def test_values_come_back_as_they_went_in(box, value):
    found = box.call("def f(x): return x", "f", (value,))
    assert found == value
    assert type(found) is type(value)


def test_usual_python_runs(box):
    code = """
import math
from dataclasses import dataclass

@dataclass
class Point:
    x: float
    y: float

def f(n, *, scale=1):
    p = Point(3.0, 4.0)
    return scale * math.hypot(p.x, p.y) + sum(i for i in range(n))
"""
    assert box.call(code, "f", (4,), {"scale": 2}) == 16.0


@pytest.mark.parametrize(
    "body",
    [
        "open('/etc/passwd').read()",
        "__import__('os').environ",
        "eval('1')",
        "exec('1')",
        "().__class__.__base__.__subclasses__()",
        "(i for i in ()).gi_frame",
        "getattr(1, 'real')",
        "globals()",
        "breakpoint()",
        "input()",
    ],
)
def test_the_language_has_no_way_out(box, body):
    with pytest.raises(SandboxError, match=r"Refused|NameError"):
        box.call(f"def f():\n    return {body}", "f")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def f():\n    match ():\n        case object(__class__=c): return c", "the attribute __class__"),
        ("import operator\ndef f(): return operator.attrgetter('__class__')(1)", "AttributeError"),
        ("from operator import attrgetter as a\ndef f(): return a('__class__')(1)", "ImportError"),
        ("import operator\ndef f(): return operator.methodcaller('__dir__')(1)", "AttributeError"),
        ("import string\ndef f(): return string.Formatter()", "AttributeError"),
    ],
)
def test_attributes_are_not_read_by_their_names_in_strings_or_patterns(box, code, words):
    with pytest.raises(SandboxError, match=words):
        box.call(code, "f")


@pytest.mark.parametrize(
    "module", ["os", "socket", "subprocess", "sys", "ctypes", "posix", "importlib", "os.path"]
)
def test_imports_are_those_allowed(box, module):
    with pytest.raises(SandboxError, match=f"import of {module}"):
        box.call(f"import {module}\ndef f(): return 1", "f")


def test_modules_show_their_public_names_only(box):
    with pytest.raises(SandboxError, match="AttributeError"):
        box.call("import statistics\ndef f(): return statistics.sys", "f")


def test_an_endless_loop_is_ended_and_the_next_call_works():
    with Sandbox(seconds=0.3) as box:
        with pytest.raises(SandboxError, match="Timeout"):
            box.call("def f():\n    while True: pass", "f")
        assert box.call("def f(): return 1", "f") == 1


def test_two_gigabytes_are_refused(box):
    with pytest.raises(SandboxError, match=r"MemoryError|Died"):
        box.call("def f(): return len(bytearray(2 * 10**9))", "f")


def test_what_no_json_holds_is_refused(box):
    with pytest.raises(SandboxError, match="type object does not go"):
        box.call("def f(x): return x", "f", (object(),))
    with pytest.raises(SandboxError, match="does not go into"):
        box.call("def f(): return f", "f")


def test_nothing_is_kept_from_call_to_call(box):
    code = "seen = []\ndef f():\n    seen.append(1)\n    return len(seen)"
    assert [box.call(code, "f") for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("code", "read", "value"),
    [
        ("import math\nmath.sin = 7", "import math\ndef f(): return math.sin(0.0)", 0.0),
        (
            "import decimal\ndecimal.getcontext().prec = 3",
            "import decimal\ndef f(): return len(str(decimal.Decimal(1) / 3))",
            30,
        ),
    ],
)
def test_what_is_set_in_a_module_is_gone_at_the_next_call(box, code, read, value):
    box.call(f"{code}\ndef f(): return 1", "f")
    assert box.call(read, "f") == value


@pytest.mark.parametrize(
    "change",
    [
        "import json\njson.JSONEncoder.encode = lambda *_: '{\"value\": 2}'",
        "import json\njson.dumps.kept = 1",
        "import fractions\nfractions.Fraction.numerator = 3",
        "import decimal\ndecimal.DefaultContext.prec = 3",
        "from random import Random\nRandom.seed = None",
    ],
)
def test_a_change_of_what_other_runs_share_is_refused_and_undone(box, change):
    with pytest.raises(SandboxError, match="which is the same in other runs"):
        box.call(f"{change}\ndef f(): return 1", "f")
    code = "import json, fractions, random\ndef f(): return [json.dumps([1]), fractions.Fraction(4, 2).numerator]"
    assert box.call(code, "f") == ["[1]", 2]


def test_what_is_too_large_or_too_deep_for_the_pipe_is_told(box):
    deep = []
    deep.append(deep)
    for argument in (10**5000, deep):
        with pytest.raises(SandboxError, match="too large or too deep"):
            box.call("def f(x): return 1", "f", (argument,))
    with pytest.raises(SandboxError, match="cannot be sent"):
        box.call("def f(): return 10**5000", "f")
    with pytest.raises(SandboxError, match="a text; got NoneType"):
        box.call(None, "f")
    with pytest.raises(SandboxError, match="the code defines no f"):
        box.call("def g(): return 1", "f")
    assert box.call("def f(): return 1", "f") == 1


def test_much_that_is_printed_goes_nowhere(box):
    assert box.call("def f():\n    for _ in range(10000): print('x' * 100)\n    return 1", "f") == 1


class TestBubblewrap:
    def test_its_namespaces_stand_around_the_process(self):
        found = shutil.which("bwrap")
        allowed = found and subprocess.run(
            [found, "--ro-bind", "/", "/", "--unshare-all", "true"], check=False
        )
        if not allowed or allowed.returncode != 0:
            pytest.skip("bubblewrap is not installed, or may make no namespaces here")
        with Sandbox() as box:
            assert box.protections()["bubblewrap"]
            assert box.call("def f(x): return x + 1", "f", (1,)) == 2
            namespaces = [os.readlink(f"/proc/{p}/ns/net") for p in (os.getpid(), _inside(box))]
        assert namespaces[0] != namespaces[1]

    def test_one_that_does_not_work_is_left_out(self, tmp_path, monkeypatch):
        broken = tmp_path / "bwrap"
        broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
        broken.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        with Sandbox() as box:
            assert box.call("def f(x): return x + 1", "f", (1,)) == 2
            assert not box.protections()["bubblewrap"]


def _inside(box):
    """The process at the end of the line of those that bubblewrap starts."""
    found = box._process.pid
    while children := Path(f"/proc/{found}/task/{found}/children").read_text(encoding="utf-8").split():
        found = int(children[0])
    return found


def test_errors_have_their_line(box):
    with pytest.raises(SandboxError) as caught:
        box.call("def f():\n    x = 0\n    return 1 / x", "f")
    assert (caught.value.kind, caught.value.line) == ("ZeroDivisionError", 3)


def test_options_out_of_range_are_refused():
    with pytest.raises(InvalidParameter, match="seconds > 0"):
        Sandbox(seconds=0)
    with pytest.raises(InvalidParameter, match="megabytes"):
        Sandbox(megabytes=1)


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="seccomp is Linux's"
)
class TestSystemCalls:
    """The wall that stands when the language does not: the reading of the text is taken away."""

    @pytest.fixture
    def bare(self, monkeypatch):
        monkeypatch.setattr(sandbox, "check_code", lambda *_: None)
        with Sandbox(seconds=2.0) as held:
            assert held.protections()["seccomp"]
            yield held

    @pytest.mark.parametrize(
        "escape",
        [
            "['listdir']('/')",
            "['fork']()",
            "['open']('/etc/passwd', 0)",
            "['kill'](1, 0)",
            "['unlink']('/tmp/none')",
            "['execv']('/bin/true', ['true'])",
            "['__builtins__']['open']('/etc/passwd')",
        ],
    )
    def test_the_system_refuses(self, bare, escape):
        code = f"""
def f():
    found = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close'][0]
    return found.__init__.__globals__{escape}
"""
        with pytest.raises(SandboxError, match="PermissionError"):
            bare.call(code, "f")

    def test_no_socket_and_no_surroundings(self, bare):
        code = """
def f(what):
    found = [c for c in ().__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close'][0]
    space = found.__init__.__globals__
    if what == 'environ':
        return len(space['environ'])
    import_ = space['__builtins__']['__import__']
    return import_('_socket').socket()
"""
        assert bare.call(code, "f", ("environ",)) == 0
        with pytest.raises(SandboxError, match=r"PermissionError|ModuleNotFoundError|ImportError"):
            bare.call(code, "f", ("socket",))


def test_a_set_of_texts_has_one_order_in_all_processes():
    code = "def f(): return list({str(i) for i in range(50)}), hash('a')"
    found = []
    for _ in range(2):
        with Sandbox() as box:
            found.append(box.call(code, "f"))
    assert found[0] == found[1]


def test_an_exception_whose_message_raises_is_told_by_its_kind(box):
    code = "class R:\n def __repr__(self): raise ValueError\ndef f(): raise KeyError(R())"
    with pytest.raises(SandboxError, match="KeyError: its message cannot be read: ValueError"):
        box.call(code, "f")
    assert box.call("def f(): return 1", "f") == 1


def test_too_much_memory_says_how_much_there_is(box):
    with pytest.raises(SandboxError, match=f"more than the {box.megabytes} megabytes"):
        box.call("def f(): return [0] * 10**10", "f")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"imports": "math"}, "a tuple of modules"),
        ({"imports": ("numpy",)}, "'numpy' is no module of the standard library"),
        ({"megabytes": 512.5}, "whole number of megabytes"),
        ({"megabytes": 2**60}, "whole number of megabytes"),
    ],
)
def test_what_no_process_can_be_started_with_is_refused(bad, words):
    with pytest.raises(InvalidParameter, match=words):
        Sandbox(**bad)

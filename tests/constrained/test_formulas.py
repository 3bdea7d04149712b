"""Formulas are data: what they may hold, what is said of the rest, and that nothing of them runs."""

from __future__ import annotations

import ast
import math

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from thalweg.constrained import EqualityConstrained
from thalweg.constrained._formulas import FUNCTIONS, read_formula
from thalweg.core import InvalidProblem

X = sympy.symbols(["x1", "x2"], real=True)


def stated(text, *constraints):
    return EqualityConstrained.from_formulas(text, list(constraints) or ["x1 + x2 - 1"], [2.0, -1.0])


class TestNothingRuns:
    @pytest.mark.parametrize(
        "text",
        [
            "open('owned', 'w').write('a')*x1",
            "__import__('os').system('touch owned')*x1",
            "().__class__.__bases__[0].__subclasses__()",
            'exec(\'open("owned", "w")\')',
            "[x1 for x1 in open('owned', 'w')]",
            "(lambda: open('owned', 'w'))()",
            "eval('x1')",
            "f'{open(1)}'",
        ],
    )
    @pytest.mark.parametrize("place", ["value", "constraint", "inequality"])
    def test_code_is_refused_and_leaves_nothing_behind(self, text, place, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        given = {
            "value": (text, ["x1"], ()),
            "constraint": ("x1", [text], ()),
            "inequality": ("x1", ["x1"], [text]),
        }
        f, c, g = given[place]
        with pytest.raises(
            InvalidProblem, match=r"formula .*(no place in a formula|unknown function|cannot be read)"
        ):
            EqualityConstrained.from_formulas(f, c, [0.5, 0.5], at_most_zero=g)
        assert not list(tmp_path.iterdir())

    @given(st.text(alphabet="x12+-*/^().,=<e[]' sincoplgqrtab_:", max_size=30))
    @settings(max_examples=200, deadline=None)
    def test_any_text_is_an_expression_or_refused_in_one_line(self, text):
        try:
            found = read_formula(text, X)
        except InvalidProblem as error:
            found = str(error)
        assert "\n" not in found if isinstance(found, str) else found.free_symbols <= set(X)


class TestReading:
    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_every_function_has_the_value_of_pythons(self, name):
        arguments = (1.25, 0.5) if name == "atan2" else (1.25,) if name == "acosh" else (0.4,)
        text = f"{name}({', '.join(f'{a} + 0*x1' for a in arguments)})"
        assert stated(text).value(np.zeros(2)) == pytest.approx(getattr(math, name)(*arguments), rel=1e-14)

    @pytest.mark.parametrize(
        "text",
        [
            "-x1**2",
            "2**-x2",
            "x1 - x2 - 3",
            "x1/x2/3",
            "x1/3*x2",
            "-(x1 - 2)*x2",
            "+x1",
            "1e-3*x1",
            "2**3**2*x1",
        ],
    )
    def test_operators_bind_as_pythons(self, text):
        x = {"x1": 1.7, "x2": -0.6}
        tree = compile(ast.parse(text, mode="eval"), "", "eval")
        assert stated(text).value(np.array(list(x.values()))) == pytest.approx(eval(tree, x), rel=1e-14)

    def test_a_caret_is_a_power_that_binds_before_the_sum(self):
        assert stated("x1^2 + 1").value(np.array([3.0, 0.0])) == 10.0

    def test_a_sum_of_many_terms_is_no_deep_tree(self):
        assert read_formula("+".join(["x1*x2"] * 800), X) == 800 * X[0] * X[1]

    def test_whole_numbers_beyond_an_int64_keep_their_value(self):
        assert stated("10**300*x1**3").value(np.array([2.0, 0.0])) == pytest.approx(8e300)


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("Abs(x1) + x2**2", r"not twice differentiable: Abs\(x1\)"),
            ("abs(x1) + x2", r"not twice differentiable: abs\(x1\)"),
            ("max(x1, x2)", r"not twice differentiable: max\(x1, x2\)"),
            ("floor(x1)", "not twice differentiable"),
            ("sqrt(x1**2)", r"not twice differentiable: it holds Abs\(x1\)"),
            ("foo(x1)", "unknown function foo. Known: .*sqrt"),
            ("sinn(x1)", "unknown function sinn. Did you mean 'sin'"),
            ("x1.bar", "'x1.bar', which has no place"),
            ("x1[0]", "has no place"),
            ("1/0*x1", "divides by zero"),
            ("x1/(x2 - x2)", "divides by zero"),
            ("0**-1*x1", "divides by zero"),
            ("sqrt(-1)*x1", "no real number"),
            ("asin(2)*x1", "no real number"),
            ("(-8)**(1/3)*x1", "no real number"),
            ("I*x1", "names I; the unknowns are x1 to x2"),
            ("x3", "names x3; the unknowns are x1 to x2"),
            ("sin(x1, x2)", "gives sin 2 arguments"),
            ("", "cannot be read"),
            ("5 x1", "cannot be read"),
        ],
    )
    def test_what_is_no_smooth_formula_is_named(self, text, message):
        with pytest.raises(InvalidProblem, match=message):
            stated(text)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("x1+x2=1", r"write x1\+x2-1 for x1\+x2=1\."),
            ("x1 + x2 == 2*x1", r"write x1 \+ x2 - \(2\*x1\) for"),
            ("x1 + x2 <= 1", r"write x1 \+ x2 - 1 .* at_most_zero \(--at-most-zero\)"),
            ("x1 > x2", r"write x2 - x1 .* at_most_zero"),
        ],
    )
    def test_equations_and_inequalities_are_rewritten_for_the_user(self, text, message):
        with pytest.raises(InvalidProblem, match=message):
            stated("x1", text)

    @pytest.mark.parametrize(
        "text",
        [
            "9**9**9 + x1",
            "9**999*x1",
            "((2*x1)**1000)**1000",
            "exp(exp(exp(100)))*x1",
            "asin(sin(exp(exp(100))))*x1",
            "1e308*1e308*x1",
            "(" * 300 + "x1" + ")" * 300,
            "-" * 5000 + "x1",
            f"[{'+'.join(['x1'] * 900)}]",
            "sin(" * 120 + "x1" + ")" * 120,
            "9" * 5000,
        ],
    )
    def test_what_would_take_for_ever_is_refused_at_once(self, text):
        with pytest.raises(InvalidProblem):
            read_formula(text, X)

    def test_no_constraint_at_all_is_told_in_one_line(self):
        rosenbrock = "(1-x1)**2+100*(x2-x1**2)**2"
        with pytest.raises(InvalidProblem, match=r"There are no constraints\. For none, use scipy"):
            EqualityConstrained.from_formulas(rosenbrock, [], [-1.2, 1.0])

    def test_one_text_for_a_list_of_them_is_refused(self):
        with pytest.raises(InvalidProblem, match=r"subject_to is a list of formulas: write \['x1-1'\]"):
            EqualityConstrained.from_formulas("x1", "x1-1", [2.0])

    def test_what_is_no_text_is_refused(self):
        with pytest.raises(InvalidProblem, match="A formula is text such as"):
            stated(3)

    def test_torch_is_told_of_in_one_line(self):
        with pytest.raises(InvalidProblem, match="write them with torch's functions of a float64 vector"):
            EqualityConstrained.from_torch(lambda x: math.sin(x[0]), lambda x: x[:1], [1.0, 2.0])

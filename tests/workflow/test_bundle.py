"""Functions as operators; their text as a parameter."""

from __future__ import annotations

import asyncio
import functools
import warnings

import pytest

from thalweg.core import CheckpointMismatch, InvalidParameter, InvalidProblem, UnreadableFile
from thalweg.workflow import ExecutionError, MissingInputs, Module, bundle, expand, node, subgraph

OUTSIDE = node(7, name="outside")


@bundle("adds one")
def plus_one(x, *, more=0):
    return x + 1 + more


@bundle(trainable=True)
def rule(x):
    """Doubles."""
    return 2 * x  # a comment


@bundle(trainable=True)
def own_rule(x):
    return x + 1


class TestCalls:
    def test_a_call_is_one_node_with_its_arguments_as_parents(self):
        x, more = node(3), node(4)
        y = plus_one(x, more=more)
        assert y.data == 8
        assert y.parents == (x, more)
        assert y.argument_names == ("", "more")
        assert y.operator.description == "adds one"

    def test_methods_and_other_decorators_stack(self):
        class Thing:
            @bundle()
            def twice(self, x):
                return 2 * x

        @bundle()
        @functools.lru_cache
        def cached(x):
            return x + 1

        assert Thing().twice(node(2)).data == 4
        assert cached(node(2)).data == 3

    def test_coroutines_give_nodes_when_awaited(self):
        @bundle()
        async def slow(x):
            await asyncio.sleep(0)
            return x + 1

        async def both():
            return await asyncio.gather(slow(node(1)), slow(node(2)))

        assert [n.data for n in asyncio.run(both())] == [2, 3]

    def test_a_node_that_was_not_passed_is_an_error(self):
        @bundle()
        def reads(x):
            return x + OUTSIDE.data

        @bundle(allow_external_dependencies=True)
        def may_read(x):
            return (x + OUTSIDE).data

        with pytest.raises(MissingInputs, match="reads read outside:0"):
            reads(node(1))
        assert OUTSIDE in may_read(node(1)).parents

    def test_nodes_made_inside_are_not_missing(self):
        @bundle()
        def makes(x):
            return (node(x) + 1).data + plus_one(x).data

        assert makes(node(1)).data == 4

    def test_the_run_inside_can_be_expanded(self):
        @bundle(traceable_code=True)
        def outer(x):
            return plus_one(x) * 2

        y = outer(node(3))
        assert y.data == 8
        assert [n.operator.name for n in expand(y) if n.operator] == ["plus_one", "multiply"]
        assert expand(plus_one(node(1))) == []

    def test_an_input_changed_in_place_is_refused(self):
        @bundle()
        def grows(x):
            x.append(1)
            return x

        with pytest.raises(InvalidProblem, match="grows changed one of its inputs"):
            grows(node([1]))

    def test_exceptions_are_nodes_or_pass(self):
        @bundle()
        def fails(x):
            raise ValueError("too bad")

        @bundle(catch_execution_error=False)
        def passes(x):
            raise ValueError("too bad")

        w = node(1, trainable=True)
        with pytest.raises(ExecutionError, match="too bad") as caught:
            fails(w)
        assert w in caught.value.node.parents
        with pytest.raises(ValueError, match=r"^too bad"):
            passes(w)

    @pytest.mark.parametrize("lazy", ["generator", "async generator", "coroutine", "map", "enumerate"])
    def test_work_that_would_be_done_later_is_refused(self, lazy):
        def generator(x):
            yield OUTSIDE.data  # nobody would see that it is read

        async def generator_later(x):
            yield x

        async def later(x):
            return x

        function = {
            "generator": generator,
            "async generator": generator_later,
            "coroutine": lambda x: later(x),
            "map": lambda x: map(str, [x]),
            "enumerate": lambda x: enumerate([x]),
        }[lazy]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # that coroutine is never awaited
            with pytest.raises(InvalidProblem, match="Let it return a list"):
                bundle(function)(node(1))

    def test_a_recursion_without_end_is_told_in_few_words(self):
        @bundle()
        def again(x):
            return again(x)

        with pytest.raises(ExecutionError) as caught:
            again(node(1))
        assert "RecursionError" in str(caught.value)
        assert len(str(caught.value)) < 200

    def test_wrong_arguments_name_the_function(self):
        with pytest.raises(TypeError, match=r"plus_one\(x, \*, more=0\): too many"):
            plus_one(1, 2)
        with pytest.raises(InvalidProblem, match="max does not tell its arguments"):
            bundle(max)
        with pytest.raises(InvalidParameter, match="takes a function, or a description"):
            bundle(3)


class TestTrainable:
    def test_the_text_is_a_parameter_and_new_text_runs(self):
        text = rule.parameter.data
        try:
            assert "@bundle" not in text
            assert "# a comment" in text
            assert rule(node(4)).data == 8
            rule.parameter.set("def rule(x):\n    return 10 * x\n")
            y = rule(node(4))
            assert y.data == 40
            assert rule.parameter in set(subgraph(y))
        finally:
            rule.parameter.set(text)

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("def rule(x, y):\n    return x", "must keep the signature"),
            ("def other(x):\n    return x", "must define the function rule"),
            ("def rule(x)\n    return x", "is no Python"),
            ("@a\ndef rule(x):\n    return x", "without decorators"),
            (3, "must be the text"),
        ],
    )
    def test_another_signature_is_refused(self, text, words):
        with pytest.raises(InvalidParameter, match=words):
            rule.parameter.set(text)

    def test_errors_stand_at_their_line(self):
        text = own_rule.parameter.data
        try:
            own_rule.parameter.set("def own_rule(x):\n    y = 0\n    return x / y\n")
            with pytest.raises(ExecutionError) as caught:
                own_rule(node(1))
            assert "return x / y  # <-- ZeroDivisionError" in caught.value.node.data
            caught.value.node.backward("mend it")
            assert own_rule.parameter.feedback
        finally:
            own_rule.parameter.set(text)
            own_rule.parameter.zero_feedback()

    def test_it_runs_in_the_sandbox_unless_told_otherwise(self):
        @bundle(trainable=True)
        def closed(x):
            return open(x, encoding="utf-8")

        @bundle(trainable=True, in_process=True)
        def free(x):
            return len(__file__) + x

        with pytest.raises(ExecutionError, match="NameError"):
            closed(node("/etc/hostname"))
        assert free(node(0)).data > 0

    def test_recursion_is_plain_or_traced(self):
        @bundle(trainable=True, in_process=True, overwrite_python_recursion=True)
        def power(n):
            return 1 if n == 0 else 2 * power(n - 1)

        assert power(node(5)).data == 32

    def test_a_decorator_below_would_be_lost_with_the_text(self):
        def tenfold(function):
            @functools.wraps(function)
            def many(x):
                return 10 * function(x)

            return many

        def plain(x):
            return x + 1

        assert bundle()(tenfold(plain))(node(1)).data == 20
        with pytest.raises(InvalidProblem, match="plain has a decorator below bundle"):
            bundle(trainable=True)(tenfold(plain))

    def test_a_lambda_in_another_functions_line_is_refused(self):
        def made(): return bundle(trainable=True)(lambda x: x + 1)  # fmt: skip

        with pytest.raises(InvalidProblem, match="<lambda> is no function defined by def"):
            made()

    def test_what_has_no_text_is_refused(self):
        with pytest.raises(InvalidProblem, match=r"cannot be read|no function"):
            bundle(trainable=True)(eval("lambda x: x"))


class Two(Module):
    def __init__(self):
        self.weights = [node(1.0, trainable=True), node(2.0, trainable=True)]
        self.inner = {"prompt": node("hi", trainable=True)}


class TestModule:
    def test_parameters_have_paths(self):
        assert list(Two().parameters_dict()) == ["weights.0", "weights.1", "inner.prompt"]

    def test_a_module_that_holds_itself_has_each_parameter_once(self):
        two = Two()
        two.inner["itself"] = two
        two.other = Two()
        two.other.back = two
        paths = ["weights.0", "weights.1", "inner.prompt"]
        assert list(two.parameters_dict()) == [*paths, *(f"other.{path}" for path in paths)]

    def test_saved_values_come_back(self, tmp_path):
        one, other = Two(), Two()
        one.weights[0].set(9.5)
        one.save(tmp_path / "p.json")
        other.load(tmp_path / "p.json")
        assert other.weights[0].data == 9.5

    def test_other_files_are_refused(self, tmp_path):
        class One(Module):
            def __init__(self):
                self.a = node(1, trainable=True)

        One().save(tmp_path / "p.json")
        with pytest.raises(CheckpointMismatch, match="other parameters"):
            Two().load(tmp_path / "p.json")
        (tmp_path / "q.json").write_text("[]")
        with pytest.raises(UnreadableFile, match="no file of parameters"):
            Two().load(tmp_path / "q.json")

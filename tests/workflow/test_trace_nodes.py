"""Traced values are those of the untraced run, and nothing outlives its last reference."""

from __future__ import annotations

import gc
import operator
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thalweg.core import InvalidParameter, InvalidProblem
from thalweg.workflow import (
    Bounds,
    Choices,
    ExceptionNode,
    ExecutionError,
    Feedback,
    GraphPropagator,
    MessageNode,
    Node,
    SumPropagator,
    backward,
    bundle,
    node,
    subgraph,
)

BINARY = [operator.add, operator.sub, operator.mul, operator.truediv, operator.floordiv, operator.mod, operator.lt,
          operator.le, operator.gt, operator.ge, operator.eq, operator.ne, operator.and_, operator.or_, operator.xor,
          operator.lshift, operator.rshift, divmod]  # fmt: skip
UNARY = [operator.neg, operator.pos, operator.invert, abs, round]
steps = st.lists(
    st.tuples(st.sampled_from(BINARY + UNARY), st.integers(0, 50), st.integers(0, 50)),
    min_size=1,
    max_size=12,
)


def ran(start, program):
    """The values of a program of operators, each on two earlier ones, and the error that ended it."""
    values = list(start)
    for operation, i, j in program:
        a, b = values[i % len(values)], values[j % len(values)]
        try:
            if operation in (operator.lshift, operator.rshift):
                b = b % 8
            values.append(operation(a) if operation in UNARY else operation(a, b))
        except ExecutionError as error:
            return values, type(error.__cause__)
        except Exception as error:
            return values, type(error)
    return values, None


class TestValues:
    @given(st.lists(st.integers(-9, 9), min_size=2, max_size=4), steps)
    def test_a_program_gives_what_the_untraced_one_gives(self, start, program):
        plain, error = ran(start, program)
        traced, same = ran([node(v) for v in start], program)
        assert [v.data for v in traced] == plain
        assert [type(v.data) for v in traced] == [type(v) for v in plain]
        assert same is error

    @pytest.mark.parametrize(
        "f", [operator.add, operator.sub, operator.mul, operator.pow, operator.truediv, divmod]
    )
    def test_a_plain_value_may_stand_on_the_left(self, f):
        assert f(7, node(2)).data == f(7, 2)

    def test_an_array_may_stand_on_the_left(self):
        x = node(np.array([1.0, 2.0]), trainable=True)
        A = np.array([[1.0, 2.0], [3.0, 4.0]])
        for y in (A @ x, A.sum(0) * x, A[0] - x, A[0] < x):
            assert isinstance(y, Node)
            assert any(parent is x for parent in y.parents)
        assert (A @ x).data.tolist() == [5.0, 11.0]

    def test_containers_of_nodes_are_nodes(self):
        a, b = node(1), node(2)
        for value, plain in [([a, b], [1, 2]), ((a, 5), (1, 5)), ({"k": [b]}, {"k": [2]}), ({a}, {1})]:
            found = node(value)
            assert isinstance(found, MessageNode)
            assert found.data == plain
        longer = node([a, b]) + node([3])
        assert a in set(subgraph(longer, [a]))

    def test_sequences_texts_and_objects_are_traced_through(self):
        words = node("one two", trainable=True)
        first, second = words.split(" ")
        assert (first.data, second.data) == ("one", "two")
        assert node("{} and {b}").format(first, b=second).data == "one and two"
        assert words in set(subgraph(second))
        assert [n.data for n in node({"a": 1})] == ["a"]
        assert node([1, 2, 3])[node(1) : 3].data == [2, 3]
        assert (len(words), words.length().data, "two" in words, node("x").member("xyz").data) == (
            7,
            7,
            True,
            True,
        )

    def test_a_property_is_worked_out_once_and_what_it_raises_is_a_node(self):
        class Counted:
            reads = 0

            @property
            def count(self):
                Counted.reads += 1
                return Counted.reads

            @property
            def broken(self):
                raise ValueError("no value")

        x = node(Counted(), trainable=False)
        assert x.count.data == 1
        with pytest.raises(ExecutionError, match="ValueError: no value") as caught:
            _ = x.broken
        assert x in caught.value.node.parents
        assert not hasattr(x, "absent")

    def test_equal_content_is_another_node(self):
        a, b = node([1]), node([1])
        assert len({a, b}) == 2
        assert (a == b).data is True
        assert a.name != b.name

    def test_a_clone_is_on_the_tape_and_a_detached_copy_is_not(self):
        a = node([1], trainable=True)
        assert a.clone().parents == (a,)
        assert a.detach().parents == ()
        assert a.clone().data is not a.data
        with pytest.raises(InvalidProblem, match="cannot be copied"):
            node(i for i in [1]).detach()

    def test_levels_are_one_above_the_highest_parent(self):
        a = node(1)
        b = a + 1
        assert (a.level, b.level, (a + b).level) == (0, 1, 2)
        assert set(a.children) >= {b}

    def test_an_error_is_a_node_that_feedback_goes_back_from(self):
        x = node(0, trainable=True)
        with pytest.raises(ExecutionError, match="ZeroDivisionError") as caught:
            1 / (x + 0)
        assert isinstance(caught.value.node, ExceptionNode)
        caught.value.node.backward("do not divide by zero")
        assert x.feedback[0].parameters == [x]


class TestMemory:
    def test_a_dropped_run_is_gone_without_the_collector(self):
        w = node(2.0, trainable=True)
        gc.disable()
        try:
            run = [w * 3]
            for _ in range(5000):
                run.append(run[-1] + w)
            refs = [weakref.ref(n) for n in run]
            del run
            assert all(ref() is None for ref in refs)
            assert w.children == ()
        finally:
            gc.enable()

    def test_a_node_takes_at_most_400_bytes(self):
        x = node(1.0)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(2000):
            x = x + 1.0  # two nodes
        used = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert used / 4000 <= 400

    def test_links_to_the_dead_do_not_pile_up(self):
        w = node(1.0, trainable=True)
        kept = [w + 1 for _ in range(3)]
        for _ in range(2000):
            w + 1
        assert len(w._children) < 20
        assert set(w.children) == set(kept)


@st.composite
def graphs(draw):
    """A random graph: parameters and constants, then sums of some earlier nodes."""
    nodes = [node(float(i), trainable=draw(st.booleans())) for i in range(draw(st.integers(1, 4)))]
    for _ in range(draw(st.integers(1, 12))):
        nodes.append(
            nodes[draw(st.integers(0, len(nodes) - 1))] + nodes[draw(st.integers(0, len(nodes) - 1))]
        )
    return nodes


def reaches(a, b):
    return a is b or any(reaches(a, p) for p in b.parents)


class TestBackward:
    @given(graphs())
    def test_the_subgraph_is_what_lies_between_parameters_and_output(self, nodes):
        output = nodes[-1]
        parameters = [n for n in nodes if not isinstance(n, MessageNode) and hasattr(n, "feedback")]
        wanted = {n for n in nodes if reaches(n, output) and any(reaches(p, n) for p in parameters)}
        found = subgraph(output)
        assert set(found) == wanted
        assert len(found) == len(wanted)
        at = {n: i for i, n in enumerate(found)}
        assert all(at[p] < at[n] for n in found for p in n.parents if p in at)

    @given(graphs())
    def test_sums_count_the_ways(self, nodes):
        def ways(a, b):
            return 1 if a is b else sum(ways(a, p) for p in b.parents)

        for parameter, part in SumPropagator().propagate(nodes[-1], Feedback(1.0, "t")).items():
            assert part.score == ways(parameter, nodes[-1])
            assert dict(part.texts) == {"t": part.score}

    def test_merging_is_associative_and_commutative(self):
        w = node(1.0, trainable=True)
        outputs = [w + 1, w * 2, w - 3]
        parts = [GraphPropagator().propagate(o, Feedback(float(i)))[w] for i, o in enumerate(outputs)]
        a, b, c = parts
        for one, other in [((a + b) + c, a + (b + c)), (a + b, b + a), (a + a, a)]:
            assert set(one.nodes) == set(other.nodes)
            assert one.feedback == other.feedback

    def test_disjoint_outputs_do_not_mix(self):
        a, b = node(1.0, trainable=True), node(2.0, trainable=True)
        backward(a + 1, "first")
        backward(b + 1, "second")
        assert [str(f) for (f,) in a.feedback[0].feedback.values()] == ["first"]
        assert b not in a.feedback[0]

    def test_a_run_after_an_update_uses_the_new_value(self):
        w = node(1.0, trainable=True)
        first = w * 2
        w.set(5.0)
        assert ((w * 2).data, first.data) == (10.0, 2.0)

    def test_rules_of_operators_replace_the_usual(self):
        a, b = node(1.0, trainable=True), node(1.0, trainable=True)
        only_left = SumPropagator({"subtract": lambda n, f: [f, type(f)(0.0, {})]})
        backward(a - b, 3.0, only_left)
        assert (a.feedback[0].score, b.feedback[0].score) == (3.0, 0.0)
        with pytest.raises(InvalidProblem, match="gave 1 parts for 2 parents"):
            backward(a - b, 3.0, SumPropagator({"subtract": lambda n, f: [f]}))

    def test_a_long_chain_goes_back_without_recursion(self):
        w = node(1.0, trainable=True)
        x = w
        for _ in range(20_000):
            x = x + 1
        backward(x, 1.0)
        assert len(w.feedback[0]) == 20_001


class TestBadInput:
    def test_what_cannot_take_feedback_says_so(self):
        w = node(1.0, trainable=True)
        with pytest.raises(InvalidProblem, match="is a root"):
            w.backward("x")
        with pytest.raises(InvalidProblem, match="comes from no parameter"):
            (node(1) + 1).backward("x")
        y = w + 1
        with pytest.raises(InvalidParameter, match="a number, a text"):
            y.backward([1])
        with pytest.raises(InvalidParameter, match="finite"):
            y.backward(float("nan"))
        y.backward("x")
        with pytest.raises(InvalidProblem, match="has had its feedback"):
            y.backward("x")

    def test_values_are_not_converted_by_their_type(self):
        flag = node(True, trainable=True)
        with pytest.raises(InvalidParameter, match="must be a bool, as True is; got str"):
            flag.set("False")
        words = node(["a"], trainable=True)
        with pytest.raises(InvalidParameter, match="must be a list"):
            words.set("abc")
        number = node(1.5, trainable=True, constraint=Bounds(0, 2))
        for bad in (3.0, float("nan"), "1", True):
            with pytest.raises(InvalidParameter, match="must"):
                number.set(bad)
        assert number.data == 1.5
        with pytest.raises(InvalidParameter, match="takes a plain value"):
            number.set(node(1.0))
        with pytest.raises(InvalidParameter, match="one of 'a', 'b'"):
            node("c", trainable=True, constraint=Choices(("a", "b")))
        even = node(2, trainable=True, constraint=lambda v: v % 2 == 0)
        with pytest.raises(InvalidParameter, match="breaks its constraint"):
            even.set(3)

    def test_recorded_values_do_not_change_in_place(self):
        x = node([1, 2])
        with pytest.raises(InvalidProblem, match="in place"):
            x.append(3)
        with pytest.raises(InvalidProblem, match="stays as it is"):
            x[0] = 5

    def test_a_container_in_itself_is_told(self):
        held = []
        held.append(held)
        for use in (node, lambda v: node(1) + v, bundle(lambda x: 1)):
            with pytest.raises(InvalidProblem, match="holds itself"):
                use(held)

    def test_constraints_are_what_they_say(self):
        with pytest.raises(InvalidParameter, match="needs a tuple of values; got 'ab'"):
            Choices("ab")
        with pytest.raises(InvalidParameter, match="Bounds needs numbers"):
            Bounds("a", 1)
        with pytest.raises(InvalidParameter, match="a constraint is a Bounds"):
            node(1, trainable=True, constraint=5)

    def test_no_cycle_can_be_made(self):
        x = node(1)
        with pytest.raises(AttributeError):
            x.parents = (x,)

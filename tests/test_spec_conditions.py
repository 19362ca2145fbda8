"""Conditions hold exactly for the values that they describe, and what is no condition is told where and why."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmdorc_telemetry.spec.conditions import MAX_DEPTH, MAX_LENGTH, parse

many = settings(max_examples=400, deadline=None, derandomize=True, database=None)
RUN = {"duration_ms": 2100, "state": "failed", "manual": False, "share": 0.5, "context.channel": "ci", "$ai": "x"}


@pytest.mark.parametrize("text", [
    "duration_ms > 1500", "duration_ms >= 2100", "duration_ms == 2100.0", "duration_ms != 2e3", "share < 1",
    "share <= 0.5", "duration_ms > -1",
    'state == "failed"', "state == 'failed'", "state != 'success'", "state in ['success', 'failed']", "state > 'abc'",
    "state not in ['success']", "manual == false", "not manual", "state", "duration_ms in [1, 2100]",
    "context.channel == 'ci'", "$ai == 'x'",
    "manual or duration_ms > 1", "not manual and state == 'failed'", "not (manual and state == 'x')",
    "manual and manual or state", "not manual or manual and manual", " ( state ) ", "not not state",
    "missing or state", "not (missing and manual)",
])  # fmt: skip
def test_it_holds(text: str) -> None:
    assert parse(text).holds(RUN)


@pytest.mark.parametrize("text", [
    "duration_ms > 2100", "duration_ms < 2100", "state == 'success'", "state in ['a', 'b']", "state not in ['failed']",
    "manual", "manual == true", "state and manual", "manual and (manual or state)",
    # of what is not there, or of another type, nothing is known: neither this nor its opposite
    "missing", "not missing", "missing == 1", "not (missing == 1)", "missing != 1", "missing in [1]",
    "missing not in [1]", "missing and state", "not (missing or manual)", "state == 1", "state != 1", "not state == 1",
    "duration_ms == '2100'", "duration_ms == true", "manual == 0", "manual == 'false'",
])  # fmt: skip
def test_it_does_not_hold(text: str) -> None:
    assert not parse(text).holds(RUN)


def test_it_says_what_it_asks_for() -> None:
    condition = parse("a > 1 and not (b in ['x'] or context.c)")
    assert condition.names == {"a", "b", "context.c"}
    assert condition.text == "a > 1 and not (b in ['x'] or context.c)"


@pytest.mark.parametrize(("text", "message"), [
    ("", "condition '': found its end at character 1; expected a name, 'not' or '('"),
    ("a ==", "condition 'a ==': found its end at character 5; expected a number, true, false or a string in quotes"),
    ("a == b", "condition 'a == b': found 'b' at character 6; expected a number, true, false or a string in quotes"),
    ("a = 1", "condition 'a = 1': found '= 1'; expected a name, value or sign"),
    ("1 == a", "condition '1 == a': found '1' at character 1; expected a name, 'not' or '('"),
    ("(a", "condition '(a': found its end at character 3; expected ')'"),
    ("a)", "condition 'a)': found ')' at character 2; expected 'and', 'or' or the end"),
    ("a b", "condition 'a b': found 'b' at character 3; expected 'and', 'or' or the end"),
    ("a and", "condition 'a and': found its end at character 6; expected a name, 'not' or '('"),
    ("a in 1", "condition 'a in 1': found '1' at character 6; expected '['"),
    ("a in []", "condition 'a in []': found ']' at character 7; expected a number, true, false or a string in quotes"),
    ("a in [1", "condition 'a in [1': found its end at character 8; expected ',' or ']'"),
    ("a not 1", "condition 'a not 1': found '1' at character 7; expected 'in'"),
    ("a == 'x", "condition \"a == 'x\": found \"'x\"; expected a name, value or sign"),
    ("a == 1.2.3", "condition 'a == 1.2.3': found '1.2.3'; expected a name, value or sign"),
    ("__import__('os')", "condition \"__import__('os')\": found '(' at character 11; expected 'and', 'or' or the end"),
    ("a" * (MAX_LENGTH + 1), "condition of 501 characters; expected at most 500"),
])  # fmt: skip
def test_what_is_no_condition_is_told_where_and_why(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse(text)


@pytest.mark.parametrize("text", ["not " * MAX_DEPTH + "a", "(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH])
def test_it_is_not_nested_without_bound(text: str) -> None:
    with pytest.raises(ValueError, match=f"is nested deeper than {MAX_DEPTH}"):
        parse(text)
    assert parse(text.replace("not ", "", 1) if "not" in text else text[1:-1]).names == {"a"}


SIGNS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
numbers = st.integers(-1000, 1000) | st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 3))


@many
@given(numbers, st.sampled_from(sorted(SIGNS)), numbers)
def test_numbers_compare_as_numbers_do(value: float, sign: str, wanted: float) -> None:
    assert parse(f"a {sign} {wanted}").holds({"a": value}) is SIGNS[sign](value, wanted)


@many
@given(st.text(max_size=20), st.text(max_size=20), st.sampled_from("'\""))
def test_any_text_can_be_quoted(value: str, wanted: str, quote: str) -> None:
    quoted = quote + wanted.replace("\\", "\\\\").replace(quote, f"\\{quote}") + quote
    assert parse(f"a == {quoted}").holds({"a": value}) is (value == wanted)
    assert parse(f"a == {quoted}").holds({"a": wanted})


terms = st.recursive(
    st.sampled_from(["t", "f", "u", "n == 1", "n > 1", "u == 1"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda each: f"({each[0]} {each[1]} {each[2]})"),
        inner.map(lambda each: f"not {each}"),
    ),
    max_leaves=8,
)
LOGIC = {"t": True, "f": False, "u": None, "n == 1": True, "n > 1": False, "u == 1": None}


@many
@given(terms)
def test_logic_is_kleenes(text: str) -> None:
    """True, unknown and false as 1, ½ and 0: ``and`` is the least, ``or`` the greatest, ``not`` what is left of 1."""
    source = text
    for term in sorted(LOGIC, key=len, reverse=True):
        if " " in term:
            source = source.replace(term, {True: "1", None: "0.5", False: "0"}[LOGIC[term]])
    python = {"t": "K(1)", "f": "K(0)", "u": "K(0.5)", "1": "K(1)", "0": "K(0)", "0.5": "K(0.5)",
              "and": "&", "or": "|", "not": "~"}  # fmt: skip
    words = [python.get(word, word) for word in source.replace("(", "( ").replace(")", " )").split()]
    expected = eval(" ".join(words), {"K": _Kleene})  # what is evaluated is made above
    assert parse(text).holds({"t": True, "f": False, "n": 1}) is (expected.value == 1)


class _Kleene:
    def __init__(self, value: float) -> None:
        self.value = value

    def __and__(self, other: _Kleene) -> _Kleene:
        return _Kleene(min(self.value, other.value))

    def __or__(self, other: _Kleene) -> _Kleene:
        return _Kleene(max(self.value, other.value))

    def __invert__(self) -> _Kleene:
        return _Kleene(1 - self.value)


@many
@given(st.text(alphabet="ab 1.'\"()[],=<>!\\ntorid", max_size=40))
def test_whatever_is_given_it_is_parsed_or_refused(text: str) -> None:
    try:
        condition = parse(text)
    except ValueError:
        return
    assert condition.holds({}) in (True, False)

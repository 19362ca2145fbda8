"""Conditions on an event's values, such as ``duration_ms > 1500 and not (state == "success")``: parsed, never run.

    condition   = conjunction {"or" conjunction}
    conjunction = term {"and" term}
    term        = "not" term | "(" condition ")" | name [comparison]
    comparison  = operator value | ["not"] "in" "[" value {"," value} "]"
    operator    = "==" | "!=" | "<" | "<=" | ">" | ">="
    value       = number | "true" | "false" | string in single or double quotes
    name        = a property, or ``context.NAME``

A name alone asks for a value that is neither false, zero nor empty. What asks for a value that is not there, or
compares values of different types, is neither true nor false (Kleene's three-valued logic), and a condition that
is not true does not hold. Parsing is by recursive descent, one token of look-ahead; length and depth are bounded.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Values = Mapping[str, Any]
_Test = Callable[[Values], "bool | None"]

MAX_LENGTH = 500
MAX_DEPTH = 20
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.$])
          |(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
          |(?P<name>[A-Za-z$_][\w$.\-]*)
          |(?P<sign>==|!=|<=|>=|<|>|[()\[\],]))""",
    re.VERBOSE | re.ASCII,
)
_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_WORDS = ("and", "or", "not", "in", "true", "false")


class Condition(NamedTuple):
    """A parsed condition."""

    text: str
    names: frozenset[str]
    """The properties, and ``context.…``, that it asks for."""
    test: _Test

    def holds(self, values: Values) -> bool:
        """Whether it is true of an event's values. Never raises."""
        return self.test(values) is True


def parse(text: str) -> Condition:
    """``text`` as a condition. Raises ValueError with the place, what was found and what was expected there."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"condition of {len(text)} characters; expected at most {MAX_LENGTH}")
    parser = _Parser(text)
    test = parser.condition()
    parser.need("'and', 'or' or the end", "end")
    return Condition(text, frozenset(parser.names), test)


class _Token(NamedTuple):
    kind: str
    """The token itself where it is a sign or a reserved word; otherwise number, string, name or end."""
    text: str
    at: int


def _tokens(text: str) -> list[_Token]:
    tokens, at, length = [], 0, len(text.rstrip())
    while at < length:
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"condition {text!r}: found {text[at:].strip()[:10]!r}; expected a name, value or sign")
        kind = str(found.lastgroup)
        word = found[kind]
        tokens.append(_Token(word if kind == "sign" or word in _WORDS else kind, word, found.start(kind)))
        at = found.end()
    return [*tokens, _Token("end", "", length)]


class _Parser:
    def __init__(self, text: str) -> None:
        self._text, self._tokens = text, _tokens(text)
        self._next = self._depth = 0
        self.names: set[str] = set()

    def _take(self, *kinds: str) -> _Token | None:
        token = self._tokens[self._next]
        if token.kind not in kinds:
            return None
        self._next += 1
        return token

    def need(self, expected: str, *kinds: str) -> _Token:
        """The next token, which must be of one of these kinds. Raises ValueError."""
        token = self._take(*kinds)
        if token is None:
            found = self._tokens[self._next]
            what = repr(found.text) if found.text else "its end"
            raise ValueError(f"condition {self._text!r}: found {what} at character {found.at + 1}; expected {expected}")
        return token

    def condition(self) -> _Test:
        """Everything that ``or`` holds together."""
        tests = [self._conjunction()]
        while self._take("or"):
            tests.append(self._conjunction())
        return tests[0] if len(tests) == 1 else lambda values: _kleene(tests, values, decides=True)

    def _conjunction(self) -> _Test:
        tests = [self._term()]
        while self._take("and"):
            tests.append(self._term())
        return tests[0] if len(tests) == 1 else lambda values: _kleene(tests, values, decides=False)

    def _term(self) -> _Test:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(f"condition {self._text!r} is nested deeper than {MAX_DEPTH}")
        if self._take("not"):
            test = _negated(self._term())
        elif self._take("("):
            test = self.condition()
            self.need("')'", ")")
        else:
            name = self.need("a name, 'not' or '('", "name").text
            self.names.add(name)
            test = self._comparison(name)
        self._depth -= 1
        return test

    def _comparison(self, name: str) -> _Test:
        sign = self._take(*_OPERATORS)
        if sign is not None:
            return _compared(name, _OPERATORS[sign.kind], self._value())
        if self._take("in"):
            return _member(name, self._values())
        if self._take("not"):
            self.need("'in'", "in")
            return _negated(_member(name, self._values()))
        return lambda values: None if values.get(name) is None else bool(values[name])

    def _values(self) -> list[Any]:
        self.need("'['", "[")
        values = [self._value()]
        while self._take(","):
            values.append(self._value())
        self.need("',' or ']'", "]")
        return values

    def _value(self) -> Any:
        token = self.need("a number, true, false or a string in quotes", "number", "string", "true", "false")
        if token.kind == "number":
            return float(token.text)
        if token.kind == "string":
            return re.sub(r"\\(.)", r"\1", token.text[1:-1])
        return token.kind == "true"


def _kleene(tests: list[_Test], values: Values, *, decides: bool) -> bool | None:
    """``or`` where True decides, ``and`` where False does; unknown where nothing decides and something is unknown."""
    unknown = False
    for test in tests:
        found = test(values)
        if found is decides:
            return decides
        unknown = unknown or found is None
    return None if unknown else not decides


def _negated(test: _Test) -> _Test:
    def negated(values: Values) -> bool | None:
        found = test(values)
        return None if found is None else not found

    return negated


def _compared(name: str, compare: Callable[[Any, Any], bool], wanted: Any) -> _Test:
    return lambda values: compare(values[name], wanted) if _alike(values.get(name), wanted) else None


def _member(name: str, wanted: list[Any]) -> _Test:
    def member(values: Values) -> bool | None:
        alike = [each for each in wanted if _alike(values.get(name), each)]
        return values[name] in alike if alike else None

    return member


def _alike(value: Any, wanted: Any) -> bool:
    """Whether two values can be compared: both numbers, both truths or both texts."""
    if isinstance(value, bool) or isinstance(wanted, bool):
        return isinstance(value, bool) and isinstance(wanted, bool)
    if isinstance(value, int | float):
        return isinstance(wanted, float)
    return isinstance(value, str) and isinstance(wanted, str)

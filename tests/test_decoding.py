"""Every form of msgspec's messages becomes an error that names file, key, found, expected and nearest."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, Struct

from cmdorc_telemetry.decoding import Secret, decode, secrets
from cmdorc_telemetry.errors import ConfigError, SpecError


class Inner(Struct, forbid_unknown_fields=True):
    word: Annotated[str, Meta(pattern=r"\Aa+\Z")] = "a"
    share: Annotated[float, Meta(ge=0, le=1)] = 0.5


class Even(Struct):
    number: int

    def __post_init__(self) -> None:
        if self.number % 2:
            raise ValueError(f"{self.number} is odd")


class Outer(Struct, forbid_unknown_fields=True):
    needed: int
    maybe: int | None = None
    colour: Literal["red", "green"] = "red"
    perhaps: Literal["north", "south"] | None = None
    numbers: tuple[int, ...] = ()
    pair: tuple[int, str] = (1, "one")
    inner: Inner | None = None
    inners: list[Inner] = []
    others: list[Inner] | None = None
    either: int | Inner = 0
    words: dict[str, str] = {}
    tables: dict[str, Inner] = {}
    deep: dict[str, dict[str, list[int]]] = {}
    lists: list[dict[str, Literal["yes", "no"]]] = []
    few: Annotated[dict[str, int], Meta(min_length=2)] | None = None
    keyed: dict[Annotated[str, Meta(max_length=3)], int] = {}
    even: Even | None = None


class Dotted(Struct, rename={"value": "a.b"}):
    value: list[int]


class Inside(Struct):
    code: Secret[int] = 0


class Locked(Struct, forbid_unknown_fields=True):
    name: str = ""
    word: Secret[str] = ""
    maybe: Secret[str] | None = None
    perhaps: Secret[str | None] = None
    pairs: Secret[dict[str, str] | str] = ""
    codes: Secret[list[int]] = []
    one_of: Secret[Literal["a", "b"] | None] = None
    inside: Inside | None = None
    api_token: str = ""
    labelled: Annotated[str, Meta(title="x", extra={"other": 1})] = ""


def fault(data: object, type_: type = Outer, key: str = "") -> str:
    with pytest.raises(ConfigError) as caught:
        decode(data, type_, "some.toml", key=key)
    return str(caught.value)


def outer(**fields: Any) -> dict[str, Any]:
    return {"needed": 1, **fields}


def test_what_is_right_comes_back_as_the_struct() -> None:
    table = outer(numbers=[1, 2], inners=[{"word": "aa"}], either={"share": 1}, deep={"x": {"y": [1]}})
    assert decode(table, Outer, "some.toml") == Outer(
        needed=1, numbers=(1, 2), inners=[Inner("aa")], either=Inner(share=1.0), deep={"x": {"y": [1]}}
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "found []; expected table"),
        ({}, "has no 'needed'; expected that key, which is required"),
        ({"needed": "x"}, "needed: found 'x'; expected int"),
        (outer(maybe="x"), "maybe: found 'x'; expected int"),
        (outer(maybe=1.5), "maybe: found 1.5; expected int"),
        (outer(colour="gren"), "colour: found 'gren'; expected one of green, red. Did you mean 'green'?"),
        (outer(colour="mauve"), "colour: found 'mauve'; expected one of green, red"),
        (outer(colour=3), "colour: found 3; expected one of green, red"),
        (outer(perhaps="nort"), "perhaps: found 'nort'; expected one of north, south. Did you mean 'north'?"),
        (outer(perhaps=[]), "perhaps: found []; expected one of north, south"),
        (outer(numbers=[1, 2, "x"]), "numbers[2]: found 'x'; expected int"),
        (outer(numbers=7), "numbers: found 7; expected list"),
        (outer(pair=[1, 2]), "pair[1]: found 2; expected str"),
        (outer(pair=[1]), "pair: found [1]; expected list of length 2, got 1"),
        (outer(inner=5), "inner: found 5; expected table"),
        (outer(inner={"word": "b"}), r"inner.word: found 'b'; expected str matching regex '\\Aa+\\Z'"),
        (outer(inner={"share": 2}), "inner.share: found 2; expected float <= 1.0"),
        (outer(inner={"wrd": "a"}), "inner.wrd: unknown key; expected one of word, share. Did you mean 'word'?"),
        (outer(inners=[{}, {"x": 1}]), "inners[1].x: unknown key; expected one of word, share"),
        (outer(inners=[{}, {"word": 1}]), "inners[1].word: found 1; expected str"),
        (outer(others=[{}, {"x": 1}]), "others[1].x: unknown key; expected one of word, share"),
        (outer(either={"word": 1}), "either.word: found 1; expected str"),
        (outer(either="x"), "either: found 'x'; expected int | table"),
        (outer(words={"a": "b", "c": 1}), "words.c: found 1; expected str"),
        (outer(tables={"fine": {}, "a": {"sharp": 1}}),
         "tables.a.sharp: unknown key; expected one of word, share. Did you mean 'share'?"),
        (outer(tables={"a": {"share": -1}, "b": {"share": 2}}), "tables.a.share: found -1; expected float >= 0.0"),
        (outer(tables={"a": 1}), "tables.a: found 1; expected table"),
        (outer(deep={"a": {"x": [1]}, "b": {"y": [1], "z.z": [1, 2, "x"]}}),
         "deep.b.z.z[2]: found 'x'; expected int"),
        (outer(lists=[{}, {"a": "yes", "b": "nope"}]),
         "lists[1].b: found 'nope'; expected one of no, yes. Did you mean 'no'?"),
        (outer(few={"a": 1}), "few: found {'a': 1}; expected table of length >= 2"),
        (outer(few={"a": 1, "b": "x"}), "few: found {'a': 1, 'b': 'x'}; expected int"),
        (outer(keyed={"long": 1}), "keyed: found a table; expected str of length <= 3"),
        (outer(even={"number": 3}), "even: 3 is odd"),
        (outer(neded=1), "neded: unknown key; expected one of needed, maybe, colour, perhaps, numbers, pair, inner, "
         "inners, others, either, words, tables, deep, lists, few, keyed, even. Did you mean 'needed'?"),
        ({"needed": [0] * 20}, f"needed: found {[0] * 20}; expected int"),
        ({"needed": [0] * 21}, f"needed: found {str([0] * 21)[:57]}…; expected int"),
    ],
)  # fmt: skip
def test_a_fault_is_named(data: object, message: str) -> None:
    assert fault(data) == f"some.toml: {message}"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"name": 5}, "name: found 5; expected str"),
        ({"labelled": 5}, "labelled: found 5; expected str"),
        ({"word": 5}, "word: found a number; expected str"),
        ({"word": True}, "word: found a boolean; expected str"),
        ({"word": 1.5}, "word: found a number; expected str"),
        ({"word": date(2020, 1, 1)}, "word: found a date or time; expected str"),
        ({"word": ["x"]}, "word: found a list; expected str"),
        ({"maybe": ["x"]}, "maybe: found a list; expected str"),
        ({"perhaps": {"x": "y"}}, "perhaps: found a table; expected str"),
        ({"pairs": {"x": "y", "z": ["x"]}}, "pairs.z: found a list; expected str"),
        ({"codes": [1, "x"]}, "codes[1]: found a string; expected int"),
        ({"one_of": "c"}, "one_of: found a string; expected one of a, b"),
        ({"inside": {"code": "x"}}, "inside.code: found a string; expected int"),
        ({"api_token": ["x"]}, "api_token: found a list; expected str"),
    ],
)
def test_of_a_secret_the_kind_is_named_alone(data: object, message: str) -> None:
    assert fault(data, Locked) == f"some.toml: {message}"


def test_a_spec_has_no_secrets() -> None:
    with pytest.raises(SpecError, match=r"^some\.toml: api_token: found 5; expected str$"):
        decode({"api_token": 5}, Locked, "some.toml", error=SpecError)


def test_which_settings_are_secret() -> None:
    assert secrets(Locked) == {"word", "maybe", "perhaps", "pairs", "codes", "one_of", "api_token"}
    assert secrets(dict) == frozenset()


def test_the_key_that_the_data_was_found_under_comes_first() -> None:
    assert (
        fault({"share": 2}, Inner, "telemetry.to.x")
        == "some.toml: telemetry.to.x.share: found 2; expected float <= 1.0"
    )
    assert fault({"y": 2}, Inner, "at").startswith("some.toml: at.y: unknown key")


def test_mappings_without_structs_are_explained_too() -> None:
    assert fault({"a": {"b": 1}}, dict[str, dict[str, str]]) == "some.toml: a.b: found 1; expected str"


def test_a_name_with_a_dot_costs_what_was_found_and_nothing_more() -> None:
    assert fault({"a.b": [1, "x"]}, Dotted) == "some.toml: a.b[1]: found None; expected int"


def test_the_caller_chooses_the_error() -> None:
    with pytest.raises(SpecError) as caught:
        decode(outer(colour="rde"), Outer, "a.toml", error=SpecError)
    error = caught.value
    assert (error.where, error.key, error.found, error.expected, error.nearest) == (
        "a.toml", "colour", "found 'rde'", "one of green, red", "red",
    )  # fmt: skip

"""A spec proposed from events fits them all, and holds none of their values."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmdorc_telemetry.errors import SpecError
from cmdorc_telemetry.spec import MASK, dump_toml, own_shape, parse_toml
from cmdorc_telemetry.spec.inference import FEW, MOST_DIGESTS, propose

many = settings(max_examples=150, deadline=None, derandomize=True, database=None)


def proposed(*events: dict[str, Any]) -> Any:
    return propose([json.dumps(event).encode() for event in events], "acme.app")


def types(*values: Any) -> str:
    (event,) = proposed(*({"event": "paid", "x": value} for value in values)).spec.events
    prop = event.properties["x"]
    bounds = [f"{bound:g}" for bound in (prop.min, prop.max) if bound is not None]
    text = [prop.pattern, str(prop.max_length)] if prop.pattern else []
    return " ".join([prop.type, *bounds, *text, *([f"[{prop.max_items}]"] if prop.max_items else [])])


@pytest.mark.parametrize(("values", "expected"), [
    ([True, False], "bool"),
    ([1, 2, 300], "count"),
    ([1, 2.5, 130], "number 0 200"),
    ([-3, 4], "number -5 5"),
    ([-3, -7], "number -10 0"),
    ([0.001, 0.002], "number 0 0.002"),
    ([0.0, 0.0], "number 0 0"),
    (["0123456789ab"], "hash"),
    (["01234567-89ab-4def-8123-456789abcdef"], "uuid"),
    (["2026-11-22T03:00:00Z"], "timestamp"),
    (["1.2.3", "3.11"], "version"),
    (["12", "13"], "string [0-9]* 2"),
    (["ab", "Cd-1"], r"string [\-0-9A-Za-z]* 5"),
    (["é"], "string (?s:.*) 1"),
    ([["a"], ["b", "cc", "d"]], "string [a-z]* 2 [5]"),
    ([[]], "json"),
    ([1, "a"], "json"),
    ([[{"a": 1}]], "json"),
    ([1, True], "json"),
    ([float("1e300")], "number 0 1e+300"),
])  # fmt: skip
def test_what_fits_all_values_is_proposed(values: list[Any], expected: str) -> None:
    assert types(*values) == expected


def test_a_duration_is_known_by_its_name_and_nested_values_by_their_path() -> None:
    (event,) = proposed({"event": "paid", "waitMs": 3, "to": {"street": {"n": 1}, "ok": True}}).spec.events
    assert {name: prop.type for name, prop in event.properties.items()} == {
        "waitMs": "duration_ms", "to.street.n": "count", "to.ok": "bool"
    }  # fmt: skip


def test_what_every_event_has_is_required_and_base_fields_are_not_proposed() -> None:
    made = proposed(
        {"event": "paid", "os": "linux", "a": 1, "b": 1, "c": None, "1st": 1},
        {"name": "paid", "properties": {"a": 2}, "context": {"channel": "web"}, "version": 3, "timestamp": "x"},
    )
    (event,) = made.spec.events
    assert {name: prop.required for name, prop in event.properties.items()} == {
        "a": True, "b": False, "context.channel": False
    }  # fmt: skip


def test_what_is_called_like_something_personal_is_masked_and_a_person_is_told() -> None:
    made = proposed({"event": "paid", "userEmail": "jane"})
    assert made.spec.events[0].masks("userEmail")
    assert "personal" in made.notes["events.paid.properties.userEmail"]


def test_few_different_texts_look_like_an_enum() -> None:
    few = proposed(*({"event": "paid", "plan": ["free", "team"][number % 2]} for number in range(FEW + 1)))
    assert few.notes == {"events.paid.properties.plan": "There were 2 different texts: an enum of them would be safer."}
    many_texts = proposed(*({"event": "paid", "plan": f"p{number}"} for number in range(FEW + 1)))
    assert many_texts.notes == {"events.paid.properties.plan": "A text: think about an enum, a bucket or a hash."}
    more = ({"event": "paid", "plan": f"p{number % (2 * MOST_DIGESTS)}"} for number in range(3 * MOST_DIGESTS))
    assert proposed(*more).notes == many_texts.notes


def test_other_lines_are_counted_and_nothing_but_them_is_an_error() -> None:
    made = propose([b"", b"no", b"[]", b'{"event": 1}', b'{"event": "a b"}', b'{"event": "paid"}'], "acme.app")
    assert (made.events, made.skipped, [event.name for event in made.spec.events]) == (1, 4, ["paid"])
    with pytest.raises(SpecError) as caught:
        propose([b"no", b"[]"], "acme.app", "x.jsonl")
    assert str(caught.value) == 'x.jsonl: holds no events (2 other lines); expected lines such as {"event": "paid", …}'


texts = st.text(min_size=1, max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e15, 1e15) | texts
    | st.sampled_from(["0123456789ab", "1.2", "2026-11-22T03:00:00Z"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("pqr"), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
events = st.lists(st.dictionaries(st.sampled_from(["a", "b_ms", "c", "email"]), values), min_size=1, max_size=5)


@many
@given(events)
def test_every_event_fits_the_spec_that_was_proposed_from_it(observed: list[dict[str, Any]]) -> None:
    made = proposed(*({"event": "paid", **each} for each in observed))
    assert parse_toml(dump_toml(made.spec), "again") == made.spec
    (event,) = made.spec.events
    shape = own_shape(event)
    for each in observed:
        fitting = {name: MASK if event.masks(name) else value for name, value in _flat(each).items()
                   if name in event.properties and event.properties[name].type != "json"}  # fmt: skip
        assert msgspec.to_builtins(msgspec.convert(fitting, shape)) == fitting
        assert {name for name, prop in event.properties.items() if prop.required} <= set(_flat(each))


def _flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f"{prefix}{key}."))
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat


words = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=7, max_size=30).map("Zq{}".format)
"""Words that no spec has by itself, as it has ``semantics``."""


@many
@given(st.lists(words, min_size=1, max_size=5))
def test_no_value_is_in_what_was_proposed(secrets: list[str]) -> None:
    made = proposed(
        *({"event": "paid", "text": secret, "list": [secret], "in": {"side": secret}} for secret in secrets)
    )
    written = dump_toml(made.spec) + json.dumps(made.notes)
    assert not [secret for secret in secrets if secret in written]

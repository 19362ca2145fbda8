"""Any spec, as a table that a TOML document could hold, and any events: right, nearly right, and wrong ones."""

from __future__ import annotations

from datetime import date
from typing import Any

import msgspec
from hypothesis import strategies as st

from cmdorc_telemetry.spec import BASE, LEVELS, MASK, Event, Property, TelemetrySpec, bucket_labels

Table = dict[str, Any]

PATTERNS = ["(?s:.*)", "[a-z]*", "a.b", r"(?P<x>a)(?P=x)", r"[]^\-a]+", "a{,3}b?", r"\d+\.\w*", "(?i:abc)", r"x|y\Z"]
INSTALL = "01234567-89ab-4def-8123-456789abcdef"

texts = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["two\nlines", "\r\n", '"""\\', "'''", "# no comment", "\x00\x7f\x85\u2028", "a = 1", "ünï→🐍", "[x]", " "]
)
words = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+\-]{0,12}", fullmatch=True)
names = (
    st.from_regex(r"[a-z$_][a-zA-Z0-9_$.\-]{0,8}", fullmatch=True)
    | st.sampled_from(
        ["plan", "amount", "userId", "$ai_model", "to.street.n", "to.street", "a.", "a..b", "-".join("ab")]
    )
).filter(lambda name: name not in BASE)
versions = st.integers(1, 4) | st.sampled_from(["0.3.1", "1.0.0", "1.10.0", "2.0.0-rc.1", "2.0.0+b", "3.0.0"])
numbers = st.integers(-3, 9) | st.floats(-1e6, 1e6)


def maybe(**parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Table]:
    """Some of these keys."""
    return st.fixed_dictionaries({}, optional=parts)


def joined(*tables: st.SearchStrategy[Table]) -> st.SearchStrategy[Table]:
    """All keys of all of them."""
    return st.tuples(*tables).map(lambda all_of: {key: value for each in all_of for key, value in each.items()})


def _ordered(low: str, high: str) -> st.SearchStrategy[Table]:
    return st.tuples(numbers, numbers).map(lambda both: {low: min(both), high: max(both)})


kinds: st.SearchStrategy[Table] = st.one_of(
    st.sampled_from(["bool", "hash", "version", "uuid", "timestamp", "json"]).map(lambda type_: {"type": type_}),
    joined(st.sampled_from(["count", "duration_ms"]).map(lambda type_: {"type": type_}),
           maybe(min=st.integers(-2, 3), max=st.floats(3, 1e6) | st.integers(3, 2**60))),
    joined(st.just({"type": "number"}), _ordered("min", "max")),
    st.lists(texts, min_size=1, max_size=4).map(lambda members: {"type": "enum", "members": members}),
    st.sets(numbers, min_size=1, max_size=4).map(lambda edges: {"type": "bucket", "edges": sorted(map(float, edges))}),
    st.tuples(st.sampled_from(PATTERNS), st.integers(1, 40)).map(
        lambda both: {"type": "string", "pattern": both[0], "max_length": both[1]}),
)  # fmt: skip
days = st.dates(date(2020, 1, 1), date(2040, 1, 1))
ends = maybe(expires=days) | st.fixed_dictionaries({"deprecated": texts}) | st.fixed_dictionaries(
    {"expires": days, "replaced_by": names})  # fmt: skip
properties = joined(kinds, ends, maybe(
    level=st.sampled_from(LEVELS), audience=st.sampled_from(["shared", "private"]), pii=st.booleans(),
    redact=st.booleans(), required=st.booleans(), max_items=st.integers(1, 3), description=texts,
))  # fmt: skip
owns = st.dictionaries(names, properties, max_size=4)


def conditions(known: list[str]) -> st.SearchStrategy[str]:
    """Conditions on properties."""
    if not known:
        known = ["context.x"]
    values = st.sampled_from(["1", "-2.5e3", "true", "'a\\'b'", '"é"'])
    term = st.one_of(
        st.sampled_from(known),
        st.tuples(st.sampled_from(known), st.sampled_from(["==", "!=", "<", ">="]), values).map(" ".join),
        st.tuples(st.sampled_from(known), st.sampled_from(["in", "not in"]), st.lists(values, min_size=1, max_size=3))
        .map(lambda part: f"{part[0]} {part[1]} [{', '.join(part[2])}]"),
    )  # fmt: skip
    return st.recursive(term, lambda inner: st.one_of(
        inner.map(lambda text: f"not ({text})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda part: f"({part[0]}) {part[1]} {part[2]}"),
    ), max_leaves=3)  # fmt: skip


@st.composite
def events(draw: st.DrawFn, groups: Table) -> Table:
    """An event with all that it can have."""
    taken = draw(st.lists(st.sampled_from(sorted(groups)), unique=True)) if groups else []
    given: Table = {}
    for group in taken:
        given.update(groups[group])
    taken = [group for group in taken if all(given[name] == prop for name, prop in groups[group].items())]
    own = {name: prop for name, prop in draw(owns).items() if name not in given and not name.startswith("context.")}
    known = [*own, *given]
    asked = conditions([name for name in known if name[0] not in "0123456789"])
    thresholds = st.lists(joined(st.sampled_from([*known, "count"]).map(lambda name: {"metric": name}), st.one_of(
        _ordered("min", "max"), st.fixed_dictionaries({"max": numbers}))), max_size=2)  # fmt: skip
    told = draw(joined(
        st.fixed_dictionaries({"name": names, "semantics": joined(st.fixed_dictionaries({"what": texts}),
                                                                  maybe(who=texts, why=texts))}),
        ends,
        maybe(version=versions, privacy=st.sampled_from(["public", "internal", "pii", "sensitive"]),
              tags=st.lists(texts, max_size=2), rank=st.integers(0, 9),
              retention=joined(st.fixed_dictionaries({"days": st.integers(1, 5000)}),
                               maybe(policy=st.sampled_from(["archive", "delete"]))),
              sampling=joined(st.fixed_dictionaries({"rate": st.floats(0, 1)}),
                              maybe(conditions=st.lists(asked, max_size=2), always=st.lists(asked, max_size=2),
                                    by=st.sampled_from([*known, "context.x"]))),
              anomaly_detection=maybe(
                  enabled=st.booleans(), minimum_sample=st.integers(1, 99), thresholds=thresholds,
                  actions=st.lists(st.sampled_from(["alert", "log", "trigger_regen"]), max_size=2))),
    ))  # fmt: skip
    return {**told, "properties": own, **({"groups": taken} if taken else {})}


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Any spec, as a table."""
    groups = draw(st.dictionaries(st.sampled_from(["money", "who"]), owns, max_size=2))
    context = draw(st.dictionaries(names, properties, max_size=2))
    declared = draw(st.lists(events(groups), max_size=3, unique_by=lambda each: (each["name"], _major(each))))
    spec: Table = {
        "meta": draw(joined(st.fixed_dictionaries({"name": words}), maybe(
            version=versions, title=texts, description=texts, domain=texts, owners=st.lists(texts, max_size=2),
            tags=st.lists(texts, max_size=2), stability=st.sampled_from(["idea", "in_creation", "stable"])))),
        "events": declared,
    }  # fmt: skip
    if groups:
        spec["groups"] = groups
    if context:
        spec["context"] = context
    if declared:
        outcome = joined(
            st.sampled_from(declared).map(lambda each: {"event": each["name"]}),
            maybe(properties=st.dictionaries(names, st.sampled_from(["input.plan", "duration_ms"]), max_size=2)),
        )
        spec |= draw(maybe(
            operations=st.lists(joined(st.fixed_dictionaries({"name": texts}), maybe(
                success=outcome, failure=outcome, commands=st.lists(texts, max_size=2))), max_size=2),
            workflows=st.lists(joined(st.fixed_dictionaries({"name": texts, "triggers": st.lists(texts, max_size=2)}),
                                      maybe(started=outcome, step=outcome, completed=outcome)), max_size=2),
        ))  # fmt: skip
    return spec | draw(maybe(
        waivers=st.lists(st.fixed_dictionaries({"lint": texts, "at": texts, "reason": st.just("so")}), max_size=2),
        config=maybe(default_retention_days=st.integers(1, 999), default_sampling_rate=st.floats(0, 1),
                     anomaly_detection=st.booleans(), check_interval_ms=st.integers(1, 10**6),
                     providers=st.lists(st.fixed_dictionaries({"type": st.sampled_from(["posthog", "internal"])},
                                                              optional={"config": settings}), max_size=2)),
    ))  # fmt: skip


settings = st.dictionaries(texts, st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e9, 1e9) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=5,
), max_size=3)  # fmt: skip


def _major(event: Table) -> int:
    return int(str(event.get("version", 1)).partition(".")[0])


def spec_of(table: Table) -> TelemetrySpec:
    """A table as a spec."""
    return msgspec.convert(table, TelemetrySpec)


specs = tables().map(spec_of)

# -- events ------------------------------------------------------------------------------------------------------------

_scalars = (
    st.none() | st.booleans() | st.integers(-5, 2**53 + 1) | st.floats() | texts
    | st.sampled_from([MASK, "other", "<1", "1-2.5", ">=10", "0123456789ab", "1.2.3", "2026-11-22T03:00:00Z",
                       "01234567-89ab-4def-8123-456789abcdef", "aa", "a\rb", "٣.é", "\ud800"])
)  # fmt: skip
anything = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | texts, inner, max_size=3),
    max_leaves=4,
)
_FIXED = {"hash": "0123456789ab", "version": "1.2.3", "uuid": INSTALL, "timestamp": "2026-11-22T03:00:00Z"}


def fitting(prop: Property) -> st.SearchStrategy[Any]:
    """Values that a property holds on the wire."""
    if prop.max_items is not None:
        one = msgspec.structs.replace(prop, max_items=None)
        return st.lists(fitting(one), max_size=prop.max_items)
    match prop.type:
        case "bool":
            return st.booleans()
        case "count" | "duration_ms":
            low, high = (
                max(int(-(-(prop.min or 0) // 1)), -(2**53)),
                min(prop.max if prop.max is not None else 99, 2**53),
            )
            return st.integers(low, int(high // 1)) if low <= high // 1 else st.nothing()
        case "number":
            assert prop.min is not None
            assert prop.max is not None
            return st.floats(prop.min, prop.max)
        case "enum":
            return st.sampled_from([*prop.members, "other"])
        case "bucket":
            return st.sampled_from(bucket_labels(prop.edges))
        case "string":
            most = prop.max_length or 1
            return st.from_regex(rf"\A(?:{prop.pattern})\Z").filter(lambda text: len(text) <= most and _is_text(text))
        case "json":
            return st.nothing()
        case other:
            return st.just(_FIXED[other])


def _is_text(text: str) -> bool:
    try:
        return text.encode() is not None
    except UnicodeEncodeError:
        return False


@st.composite
def tracked(draw: st.DrawFn, event: Event) -> Table:
    """What a program tracks: declared properties, many of them right, nested ones nested, and some unknown."""
    told: Table = {}
    for name, prop in event.properties.items():
        chance = draw(st.integers(0, 9))
        if chance == 0 and not prop.required:
            continue
        value = draw(anything if chance == 1 else fitting(prop) | st.just(MASK) if prop.type != "json" else anything)
        if chance > 7 and "." in name:
            first, _, rest = name.partition(".")
            if isinstance(told.setdefault(first, {}), dict):
                told[first][rest] = value
                continue
        told[name] = value
    return {**draw(st.dictionaries(names | texts, anything, max_size=2)), **told}

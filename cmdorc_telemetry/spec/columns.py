"""The events of a spec as tables of a store, one an event: the statements that make them.

Names stay as they are as far as the store takes them, and are told apart where it would not. What a column means is
in a comment behind it. How a store is filled is not owned here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple
from zlib import crc32

from .model import Event, TelemetrySpec
from .property import BASE, LEVELS, Property
from .shapes import REQUIRED

_NEVER_NULL = ("event_id", *REQUIRED)
_ALIKE = {"duration_ms": "count", "bucket": "enum", "hash": "string", "version": "string"}
"""Types that are stored like another."""


class Store(NamedTuple):
    """How a store says things."""

    types: Mapping[str, str]
    """Type of a property → type of a column; those that are not there are as ``string``."""
    many: Callable[[str], str]
    """The type of a list, of that of its items."""
    quote: str
    optional: Callable[[str], str]
    """The type of a column that may hold nothing."""
    required: str
    key: str
    """What stands behind the type of the column ``event_id``."""
    end: str
    longest: int = 1000
    """The bytes of a name that are told apart."""
    spelled: Callable[[str], str] = str
    """A name as it can be there."""
    folded: Callable[[str], str] = str
    """What of two names must differ."""
    reserved: tuple[str, ...] = ()
    """Columns of its own."""


def _nullable(type_: str) -> str:
    """An array cannot be nothing there: an empty one stands for it."""
    if type_.startswith("Array("):
        return type_
    inner = type_.removeprefix("LowCardinality(")
    return f"LowCardinality(Nullable({inner[:-1]}))" if inner != type_ else f"Nullable({type_})"


def _kept(text: str) -> str:
    return text


STORES: Mapping[str, Store] = {
    "sqlite": Store(
        {"bool": "INTEGER", "count": "INTEGER", "number": "REAL", "string": "TEXT"}, lambda item: "TEXT", '"', _kept,
        " NOT NULL", " PRIMARY KEY", ";", folded=str.lower,
        spelled=lambda name: f"_{name}" if name.lower().startswith("sqlite_") else name,
    ),
    "postgresql": Store(
        {"bool": "boolean", "count": "bigint", "number": "double precision", "timestamp": "timestamptz",
         "uuid": "uuid", "string": "text"},
        lambda item: f"{item}[]", '"', _kept, " NOT NULL", " PRIMARY KEY", ";", longest=63,
        reserved=("tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"),
    ),
    "clickhouse": Store(
        {"bool": "Bool", "count": "Int64", "number": "Float64", "timestamp": "DateTime('UTC')", "uuid": "UUID",
         "enum": "LowCardinality(String)", "string": "String"},
        lambda item: f"Array({item})", "`", _nullable, "", "",
        " ENGINE = ReplacingMergeTree ORDER BY (timestamp, event_id);", spelled=lambda name: name.replace(".", "_"),
    ),
}  # fmt: skip
"""Every store by its name."""


def columns(spec: TelemetrySpec, name: str) -> str:
    """The tables of ``spec`` in the SQL of the store ``name``. Raises KeyError for no store."""
    store = STORES[name]
    called = [event.name + (f"@{event.major}" if event.major != 1 else "") for event in spec.events]
    names = _told_apart(called, store)
    return "\n".join(_table(event, names[each], store) for event, each in zip(spec.events, called, strict=True))


def column_types(event: Event, name: str) -> dict[str, str]:
    """The type of a property's column in each store."""
    prop, masked = event.properties[name], event.masks(name)
    return {each: _type(name, prop, store, masked=masked) for each, store in STORES.items()}


def _table(event: Event, table: str, store: Store) -> str:
    base = {name: prop for name, prop in BASE.items() if name != "event"}
    own = {name: prop for name, prop in event.properties.items() if prop.shared_at(LEVELS[-1])}
    names = _told_apart([*base, *own], store)
    lines = []
    for number, (name, prop) in enumerate({**base, **own}.items(), 1):
        comma = "," if number < len(base) + len(own) else ""
        about = " ".join(prop.description.split())
        column = f"  {_quoted(names[name], store)} {_type(name, prop, store, masked=name in own and event.masks(name))}"
        lines.append(f"{column}{comma}{f' -- {about}' if about else ''}")
    what = " ".join(event.semantics.what.split())
    body = "\n".join(lines)
    return f"-- {event.name}: {what}\nCREATE TABLE {_quoted(table, store)} (\n{body}\n){store.end}\n"


def _type(name: str, prop: Property, store: Store, *, masked: bool) -> str:
    kind = "string" if masked else _ALIKE.get(prop.type, prop.type)
    type_ = store.types.get(kind, store.types["string"])
    if prop.max_items is not None and not masked:
        type_ = store.many(type_)
    if name not in _NEVER_NULL:
        return store.optional(type_)
    return type_ + store.required + (store.key if name == "event_id" else "")


def _quoted(name: str, store: Store) -> str:
    return f"{store.quote}{name}{store.quote}"


def _told_apart(names: Iterable[str], store: Store) -> dict[str, str]:
    """Each name as the store keeps it: no longer than it can be, and no two the same."""
    told: dict[str, str] = {}
    taken = set(store.reserved)
    for name in names:
        fits = len(name) <= store.longest
        short = store.spelled(name if fits else f"{name[: store.longest - 9]}_{crc32(name.encode()):08x}")
        number, made = 1, short
        while store.folded(made) in taken:
            number += 1
            made = f"{short[: store.longest - 5]}_{number}"
        taken.add(store.folded(made))
        told[name] = made
    return told

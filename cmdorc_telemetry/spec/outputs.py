"""A spec as people read it: which values a property may have, in words, and the page that says what is collected.

Owns the words that say which values a property may have. Reads nothing but the spec: two runs give the same bytes, so
a generated file that differs from what its spec yields can fail a test.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from textwrap import fill
from zlib import crc32

import msgspec

from .model import Event, TelemetrySpec
from .property import BASE, LEVELS, MASK, Level, Property, bucket_labels

_UUIDS = ("5f0c1e9a-7d43-4b6e-9c55-2a8e6f10b3d7", "0199f3c2-8a40-7c1d-b2e6-41d05a9f7e83")
_EXAMPLES = {
    "event": "command_completed", "cmdorc_version": "0.12.0", "app_name": "my-app", "app_version": "2.4.1",
    "python_version": "3.12", "os": "linux", "arch": "x86_64", "anonymous_install_id": _UUIDS[0],
    "timestamp": "2026-03-14T09:26:53Z", "event_id": _UUIDS[1], "spec": "cmdorc.core@1", "level": "minimal",
    "sampling_rate": 0.25,
}  # fmt: skip
"""Of base fields; those of an event's own are made from their types."""
_PAGE_WIDTH = 120


def values(prop: Property) -> str:
    """Which values a property may have, in words."""
    text = {
        "bool": "yes or no",
        "bucket": ", ".join(bucket_labels(prop.edges)) if prop.edges else "",
        "count": f"whole number, {_range(prop)}",
        "duration_ms": f"whole milliseconds, {_range(prop)}",
        "enum": ", ".join((*prop.members, "other")),
        "hash": "12 hex digits",
        "json": "of no known shape: never recorded",
        "number": f"number, {_range(prop)}",
        "string": f"text, at most {prop.max_length} characters",
        "timestamp": "UTC, to the second",
        "uuid": "36 characters",
        "version": "version, at most 40 characters",
    }[prop.type]
    return text if prop.max_items is None else f"up to {prop.max_items} of: {text}"


def recorded(event: Event, name: str) -> str:
    """Which values of a property are recorded, in words: of a masked one none is."""
    return f"{MASK}: that it was there" if event.masks(name) else values(event.properties[name])


def sampled(spec: TelemetrySpec, event: Event) -> str:
    """Which of such events are shared, in words; empty where all are."""
    told, rate = event.sampling, spec.sampling_rate(event)
    conditions = told.conditions if told else ()
    always = told.always if told else ()
    if rate == 1 and not conditions:
        return ""
    text = "those" if rate == 1 else f"{100 * rate:.3g}% of {'those' if conditions else 'them'}"
    if conditions:
        text += f" where {_joined(' and ', conditions)}"
    return f"{text}, and all where {_joined(' or ', always)}" if always else text


def _joined(word: str, conditions: Sequence[str]) -> str:
    return conditions[0] if len(conditions) == 1 else word.join(f"({each})" for each in conditions)


def _range(prop: Property) -> str:
    least = prop.min or 0
    return f"{least:g} or more" if prop.max is None else f"{least:g} to {prop.max:g}"


def example(name: str, prop: Property) -> object:
    """A value that ``prop`` may have: always the same for the same name."""
    if name in BASE:
        return _EXAMPLES[name]
    some = crc32(name.encode())
    least = prop.min or 0
    value: object = {
        "bool": some % 2 == 0,
        "bucket": bucket_labels(prop.edges)[1] if prop.edges else "",
        "count": _within(prop, least + 1 + some % 8),
        "duration_ms": _within(prop, least + 1843),
        "enum": prop.members[some % len(prop.members)] if prop.members else "",
        "json": {},
        "hash": f"{some:08x}{some % 0xFFFF:04x}",
        "number": min(least + 1.5, least + 1.5 if prop.max is None else prop.max),
        "string": "…",
        "timestamp": _EXAMPLES["timestamp"],
        "uuid": _UUIDS[0],
        "version": "2.4.1",
    }[prop.type]
    return value if prop.max_items is None else [value]


def _within(prop: Property, number: float) -> int:
    return int(number if prop.max is None else min(number, prop.max))


# -- Markdown ---------------------------------------------------------------------------------------------------------


def markdown(spec: TelemetrySpec) -> str:
    """A page that says what is collected, for whoever wants to know before saying yes."""
    usual = spec.event(str(_EXAMPLES["event"])) or next(iter(spec.events), None)
    here = {"spec": spec.ref, **({"event": usual.name} if usual else {})}
    blocks = [
        f"# What we collect: {_flat(spec.meta.title) or spec.meta.name}",
        f"<!-- Made {'by `make docs` ' if _is_core(spec) else ''}from the spec {spec.ref}. "
        f"Not to be edited by hand{': a test compares' if _is_core(spec) else ''}. -->",
        _wrapped(
            f"{_sentence(spec.meta.description)} This page is made from the same file that every event is checked"
            " against, on your machine before it is sent and by a server before it is stored: what is not in these"
            " tables is in no event."
        ),
        _wrapped(
            "Nothing at all is recorded before you say yes. Then you choose how much may be shared; each level adds to"
            " the one before. What stays with you is for your own statistics: it is kept on your machine, and reaches"
            " nobody but destinations that you mark as your own."
        ),
        _levels(spec),
        *_whole(spec),
        "## In every event",
        _table(
            ("field", "values", "example", "what it is"),
            (_row(name, prop, here) for name, prop in _base(spec).items()),
        ),
        _wrapped(
            "`sampling_rate` is there only where not every event is shared. No address, no user name, no host name, no"
            " path, no variable, no output of a command is among them, at any level."
        ),
        *(block for event in spec.events for block in _event(spec, event)),
        *_hashes(spec),
        "## Values",
        _wrapped(
            "A value that breaks its bounds is not sent. What is none of the listed words is sent as `other`; numbers"
            " whose values are ranges, such as `10-60`, are sent as the range alone."
        ),
    ]
    return "\n\n".join(blocks) + "\n"


def _is_core(spec: TelemetrySpec) -> bool:
    """Whether it is cmdorc's own."""
    return spec.meta.name == "cmdorc.core"


def _base(spec: TelemetrySpec) -> dict[str, Property]:
    """The base fields that events of the spec may have: cmdorc's own say which cmdorc, others which application."""
    foreign = ("app_name", "app_version") if _is_core(spec) else ("cmdorc_version",)
    return {name: prop for name, prop in BASE.items() if name not in foreign}


def _wrapped(text: str) -> str:
    return fill(text, _PAGE_WIDTH, break_long_words=False, break_on_hyphens=False)


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(_flat(cell).replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def _flat(text: str) -> str:
    """``text`` in one line."""
    return " ".join(text.split())


def _row(name: str, prop: Property, of: Mapping[str, str]) -> tuple[str, ...]:
    """A base field. ``of``: examples that are not made from the type."""
    shown = msgspec.json.encode(of.get(name, example(name, prop))).decode()
    return f"`{name}`", values(prop), f"`{shown}`", prop.description


def _own_row(event: Event, name: str, level: Level) -> tuple[str, ...]:
    prop = event.properties[name]
    shown = msgspec.json.encode(_example(event, name)).decode()
    return f"`{name}`", level.upper(), recorded(event, name), f"`{shown}`", prop.description


def _example(event: Event, name: str) -> object:
    return MASK if event.masks(name) else example(name, event.properties[name])


def _own(event: Event, level: Level) -> list[str]:
    """The own fields of ``event`` that ``level`` adds to the level below."""
    return [name for name, prop in event.properties.items() if prop.level == level and prop.shared_at(level)]


def _private(event: Event) -> dict[str, Property]:
    return {name: prop for name, prop in event.properties.items() if not prop.shared_at(LEVELS[-1])}


def _levels(spec: TelemetrySpec) -> str:
    head = ("event", *(f"{level.upper()}{' adds' if number else ''}" for number, level in enumerate(LEVELS)),
            "stays with you")  # fmt: skip
    rows = (
        (f"[`{spec.label(event)}`](#{spec.label(event)})", *(", ".join(names) or "–" for names in
         (*(_own(event, level) for level in LEVELS), _private(event))))
        for event in spec.events
    )  # fmt: skip
    return _table(head, rows)


def _whole(spec: TelemetrySpec) -> list[str]:
    event = max(spec.events, key=lambda each: len(_own(each, "minimal")), default=None)
    if event is None or not event.shared_at("minimal"):
        return []
    base = {name: prop for name, prop in _base(spec).items() if name != "sampling_rate"}
    body = {name: example(name, prop) for name, prop in base.items()}
    body |= {name: _example(event, name) for name in _own(event, "minimal")}
    body.update(event=event.name, spec=spec.ref)
    text = msgspec.json.format(msgspec.json.encode(body), indent=2).decode()
    return [
        "## A whole event",
        "This is all of it, at MINIMAL:",
        f"```json\n{text}\n```",
        f"`{'cmdorc telemetry ' if _is_core(spec) else ''}show-payload` prints the bytes of those that wait on your "
        "machine.",
    ]


def _event(spec: TelemetrySpec, event: Event) -> list[str]:
    meaning = event.semantics
    why = f" Why it is collected: {_sentence(meaning.why)}" if meaning.why else ""
    some = sampled(spec, event)
    share = f"Shared: {some}" if some else "Every one is shared"
    rows = [_own_row(event, name, level) for level in LEVELS for name in _own(event, level)]
    blocks = [
        f"## {spec.label(event)}",
        _wrapped(_sentence(meaning.what) + why),
        _wrapped(f"{share}. A server keeps it for at most {spec.retention_days(event)} days.") if rows
        else "None of it is ever shared.",
    ]  # fmt: skip
    if rows:
        blocks.append(_table(("field", "from level", "values", "example", "what it is"), rows))
    if private := _private(event):
        blocks.append("Stays with you:")
        lines = (f"{prop.description} ({recorded(event, name)})" for name, prop in private.items())
        blocks.append("\n".join(f"- `{name}` – {_flat(line)}" for name, line in zip(private, lines, strict=True)))
    return blocks


def _sentence(text: str) -> str:
    return f"{text.rstrip('.')}." if text else ""


def _hashes(spec: TelemetrySpec) -> list[str]:
    hashed = {name for event in spec.events for name, prop in event.properties.items() if prop.type == "hash"}
    if not hashed:
        return []
    names = ", ".join(f"`{name}`" for name in sorted(hashed))
    salt = "~/.cmdorc/telemetry_salt" if _is_core(spec) else "telemetry_salt"
    return [
        "## Hashes",
        _wrapped(
            f"{names}: sent at DEBUG alone, which asks separately and ends by itself after 30 days. Each is the first"
            " 12 hex digits of HMAC-SHA256 over the text in UTF-8. Its key is 32 random bytes in"
            f" `{salt}`; it is made on your machine, never leaves it, and is deleted with `opt-out`."
            " Without it nobody can find out a name by trying names out, and nobody can compare your hashes with those"
            " of somebody else. With it, your own machine can."
        ),
    ]

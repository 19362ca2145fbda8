"""What may be collected, with this machine's own values; what was withheld."""

from __future__ import annotations

from collections.abc import Mapping

from ..charts import table
from ..markup import Child, Markup, html
from ..wording import plural
from .facts import EventFacts, Facts, FieldFacts
from .parts import Part, card, code, failure, name, part, tag

_OPEN = ("command_completed",)
"""Events that are unfolded from the beginning: what a person looks for first."""
_LONGEST = 120


def collected(facts: Facts) -> Part:
    """Every event and field of the spec; with telemetry off, what a yes would mean."""
    if "collected" in facts.failed:
        return part("collected", failure(facts.failed["collected"]))
    title = ""
    if facts.recording_elsewhere:
        kinds = plural(sum(bool(event.name) for event in facts.events), "kind")
        text = (f"{kinds} of events, and nothing else. Each field is listed with what it held here last, and who gets "
                "it. What nobody gets is for your own history on this machine.")  # fmt: skip
    else:
        title = "What could be collected, and why"
        text = ("Nothing now. This is all that could be, after a yes of yours: a field is shared at its level or "
                "above, and never below it.")  # fmt: skip
    return part("collected", html.p(text), [_event(facts, event) for event in facts.events], title=title)


def _event(facts: Facts, event: EventFacts) -> Markup:
    on = facts.recording_elsewhere
    shared = sum(field.state == "shared" for field in event.fields)
    count = f"{shared} of {plural(len(event.fields), 'field')} shared" if on else plural(len(event.fields), "field")
    title = code(event.name) if event.name else "Every event"
    some = f" Shared: {event.sampled}." if event.sampled else ""
    kept = f" A server may keep it for {plural(event.days, 'day')}." if event.days else ""
    about = f"{event.what}. {event.why}.{kept}{some}" if event.name else "What all events carry beside their own."
    head = ("Field", "What it is", "Your newest value", "Goes to", "State") if on else ("Field", "What it is", "Shared")
    rows = [(_live if on else _possible)(field) for field in event.fields]
    return html.details(
        html.summary(html.h3(title), html.span(count, class_="quiet")),
        html.p(about, class_="quiet"), table(head, rows, stacks=True, class_="fields" if on else "plain"),
        class_="card fold", open=event.name in _OPEN,
    )  # fmt: skip


def _live(field: FieldFacts) -> list[Child]:
    value = field.value
    shown: Child = "–" if value is None else name(value if len(value) <= _LONGEST else f"{value[:_LONGEST]}…")
    whom = ", ".join(field.goes) or ("nobody yet" if field.state == "waits" else "only this machine")
    return [code(field.name), _what(field), code(shown), name(whom), _state(field)]


def _what(field: FieldFacts) -> Child:
    return [field.about, " ", html.span(f"({field.kind})", class_="quiet")]


def _state(field: FieldFacts) -> Markup:
    return {
        "shared": tag("shared", "ok"),
        "allowed": tag("may be shared"),
        "waits": tag("waits for you", "warn"),
        "level": tag(f"only at {field.level}"),
        "local": tag("not shared"),
        "private": tag("stays with you"),
        "personal": tag("never shared"),
    }[field.state]


def _possible(field: FieldFacts) -> list[Child]:
    if field.state in ("private", "personal"):
        return [code(field.name), _what(field), tag("never")]
    return [code(field.name), _what(field), f"from {field.level}"]


def _fields(what: Mapping[str, tuple[str, ...]]) -> Child:
    return [
        html.div(html.span(f"{event or 'every event'}: ", class_="quiet"), code(", ".join(fields)))
        for event, fields in what.items()
    ] or "whole events"


def withheld(facts: Facts) -> Part | None:
    """What did not leave although it was recorded, and who saw to that."""
    if "withheld" in facts.failed:
        return part("withheld", failure(facts.failed["withheld"]))
    if not facts.recording_elsewhere or not facts.withheld:
        return None
    rows: list[list[Child]] = [
        [name(each.by), name(each.why), _fields(each.what), "–" if each.times is None else plural(each.times, "event")]
        for each in facts.withheld
    ]
    return part(
        "withheld",
        html.p("Recorded here, and held back from everybody else. Destinations of your own are not affected."),
        card(table(("Withheld by", "Why", "Fields", "Counted"), rows, stacks=True, class_="withheld")),
    )

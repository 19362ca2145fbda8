"""Whether it is on, what waits for the user, where every event is."""

from __future__ import annotations

from ..charts import Key, split
from ..markup import Child, Markup, html
from ..types import DROP_REASONS, Ledger
from ..wording import plural
from .facts import Facts, Note, PlaceFacts
from .parts import Part, card, code, failure, name, part, tag

WHOSE = {
    "here": "on this machine",
    "yours": "yours: private fields, too",
    "shared": "shared fields only",
    "gone": "not configured any more",
}


def heading(facts: Facts) -> Markup:
    """The answer, and who decided."""
    if facts.recording and facts.level != "off":
        state, answer = tag("on", "ok"), [" Telemetry is on, at level ", html.b(facts.level), "."]
    elif facts.recording:
        state, answer = tag("local", "ok"), [" Telemetry records on this machine only. Nothing leaves it."]
    elif facts.recording_elsewhere:
        state, answer = tag("off here"), [" Telemetry is off in this project. Nothing is recorded here."]
    else:
        state, answer = tag("off"), [" Telemetry is off. Nothing is recorded."]
    rows = [html.div(html.dt(label), html.dd(name(text))) for label, text in facts.decided]
    line = None if facts.recording_elsewhere else html.p(html.code(f"{facts.command} opt-in", class_="line"))
    return html.div(
        html.p(state, answer, class_="answer"), line,
        html.dl(rows, class_="facts") if rows else None,
    )  # fmt: skip


def alarms(facts: Facts) -> Markup | None:
    """Said before anything else."""
    if not facts.alarms:
        return None
    return html.section(
        html.h2("The audit and the ledger do not agree", id="alarm-title"),
        [html.p(name(text)) for text in facts.alarms],
        html.p(html.code(f"{facts.command} audit --verify", class_="line")),
        class_="note bad", aria_labelledby="alarm-title",
    )  # fmt: skip


def notes(facts: Facts) -> Markup | None:
    """What waits for the user, or is wrong."""
    if facts.notes:
        return html.section(
            html.h2(f"{plural(len(facts.notes), 'thing needs', 'things need')} a look", id="notes-title"),
            html.ul([html.li(_note(note)) for note in facts.notes]), class_="note warn", aria_labelledby="notes-title",
        )  # fmt: skip
    return html.p("Nothing waits for you.", class_="quiet") if facts.recording_elsewhere else None


def _note(note: Note) -> Child:
    return html.p(name(note.text), [[html.br(), html.code(line, class_="line")] for line in note.lines])


def places(facts: Facts) -> Part | None:
    """The ledger: each event in exactly one place, for each destination."""
    if "places" in facts.failed:
        return part("places", failure(facts.failed["places"]))
    if not facts.places:
        return None
    legend = [Key("s1", "arrived"), Key("s3", "waiting"), Key("s4", "set aside"), Key("s2", "dropped")]
    return part(
        "places",
        html.p("For each destination every event that was recorded has arrived, waits, was set aside for you to look "
               "at, or was dropped for a reason that is named. Nothing is lost without a trace."),
        card(
            html.div([html.span(key.text, class_=f"key {key.class_}") for key in legend], class_="legend"),
            html.ul([html.li(_place(place)) for place in facts.places], class_="places"),
            [html.p(text, class_="quiet") for text in facts.unread],
        ),
    )  # fmt: skip


def _place(place: PlaceFacts) -> Child:
    ledger = place.ledger
    lost = sum(ledger.dropped.values())
    sending = ledger.pending - ledger.set_aside
    bar = split([("s1", ledger.acknowledged), ("s3", sending), ("s4", ledger.set_aside), ("s2", lost)])
    return [
        html.div(
            html.h3(name(place.name)),
            html.span(name(place.where), class_="quiet") if place.where else None,
            html.span(WHOSE[place.whose], class_="quiet"),
            tag(place.state, "" if place.well else "warn") if place.state else None,
            html.span(name(place.note), class_="quiet") if place.note else None,
            class_="place",
        ),
        bar,
        html.p(_identity(ledger), class_="identity"),
        _reasons(ledger),
    ]


def _identity(ledger: Ledger) -> Child:
    aside = f" ({ledger.set_aside:,} set aside)" if ledger.set_aside else ""
    return [
        html.b(f"{ledger.recorded:,}"), " recorded = ", html.b(f"{ledger.acknowledged:,}"), " arrived + ",
        html.b(f"{ledger.pending:,}"), f" waiting{aside} + ", html.b(f"{sum(ledger.dropped.values()):,}"), " dropped",
    ]  # fmt: skip


def _reasons(ledger: Ledger) -> Markup | None:
    known: dict[str, str] = {str(reason): text for reason, text in DROP_REASONS.items()}
    rows = [
        html.li(f"{count:,} ", code(reason), ". ", known.get(reason))
        for reason, count in sorted(ledger.dropped.items()) if count
    ]  # fmt: skip
    return html.ul(rows, class_="reasons") if rows else None

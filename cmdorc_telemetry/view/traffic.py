"""What waits to be sent, byte for byte; what was sent."""

from __future__ import annotations

import json

from ..charts import table
from ..markup import Child, Markup, html
from ..wording import moment, plural
from .facts import Batch, Body, Facts, Queue, Sent
from .parts import Part, card, code, failure, name, part, size, tag
from .standing import WHOSE


def queues(facts: Facts) -> Part | None:
    """The first events that wait for each destination."""
    if "queues" in facts.failed:
        return part("queues", failure(facts.failed["queues"]))
    if not facts.recording_elsewhere:
        return None
    if not facts.queues:
        return part("queues", html.p("Nothing waits."))
    return part(
        "queues",
        html.p("These are the exact bytes of each event, as its destination will get them."),
        [_queue(facts, queue) for queue in facts.queues],
    )


def _queue(facts: Facts, queue: Queue) -> Markup:
    when = f" Next try {moment(queue.next_try)}." if queue.next_try > facts.now else ""
    more = queue.waiting - len(queue.bodies)
    line = html.code(f"{facts.command} show-payload --to {queue.name}", class_="line")
    return card(
        html.h3(name(queue.name)),
        html.p(f"{plural(queue.waiting, 'event waits', 'events wait')}.{when}", class_="quiet"),
        [_body(body) for body in queue.bodies],
        html.p(f"{plural(more, 'more event', 'more events')}. The newest: ", line, class_="quiet")
        if more > 0
        else None,
    )


def _body(body: Body) -> Markup:
    return html.details(
        html.summary(code(body.event), html.span(f"{moment(body.at)}, {size(len(body.body))}", class_="quiet")),
        html.pre(html.code(_shown(body.body))),
    )


def _shown(body: bytes) -> str:
    """The text of a body. A character that would not show is written as JSON writes it, the same to any reader."""
    text = body.decode("utf-8", "replace")
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def sent(facts: Facts) -> Part | None:
    """What the audit has."""
    if "sent" in facts.failed:
        return part("sent", failure(facts.failed["sent"]))
    if not facts.sent:
        text = ["The audit has no batch. ", _verdict(facts)] if facts.alarms else "Nothing yet."
        return part("sent", html.p(text)) if facts.recording_elsewhere or facts.alarms else None
    rows: list[list[Child]] = [
        [name(each.name), WHOSE[each.whose], f"{each.batches:,}", f"{each.events:,}", size(each.size),
         moment(each.latest[0].at), name(each.latest[0].answer)]
        for each in facts.sent
    ]  # fmt: skip
    head = ("Destination", "What it gets", "Batches", "Events", "Size", "Last batch", "Answer")
    return part(
        "sent",
        html.p(
            "From the audit, which has an entry for every batch; the oldest go where it grows too large. ",
            _verdict(facts),
        ),
        card(table(head, rows, right={2, 3, 4}, stacks=True, class_="sent"), [_latest(each) for each in facts.sent]),
    )


def _verdict(facts: Facts) -> Child:
    if facts.alarms:
        return [tag("does not match", "bad"), " It differs from the ledger; see the top of this page."]
    return [tag("verified", "ok"), " It matched the ledger when this page was made."]


def _latest(each: Sent) -> Markup:
    shown = len(each.latest)
    which = plural(shown, "batch", "batches") if shown == each.batches else f"last {shown} of {each.batches:,} batches"
    rows = [_batch(batch) for batch in each.latest]
    return html.details(
        html.summary(name(each.name), html.span(which, class_="quiet")),
        table(("When", "Events", "Size", "Answer", "Fields", "SHA-256"), rows, stacks=True, class_="batches"),
    )


def _batch(batch: Batch) -> list[Child]:
    events = ", ".join(f"{count:,} {event}" for event, count in batch.events.items())
    return [moment(batch.at), name(events), size(batch.size), name(batch.answer), name(", ".join(batch.fields)),
            code(batch.digest.removeprefix("sha256:"))]  # fmt: skip

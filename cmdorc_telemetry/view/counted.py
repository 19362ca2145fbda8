"""How often each event was recorded here: what is true of any application's history."""

from __future__ import annotations

from ..charts import sparkline, table
from ..markup import Child, html
from ..wording import moment, plural
from .facts import Facts
from .parts import Part, card, name, part


def counted(facts: Facts) -> Part | None:
    """One row an event."""
    if not facts.counted:
        return None
    total, days = sum(each.count for each in facts.counted), len(facts.counted[0].counts)
    intro = (f"{plural(total, 'event')} in the last {plural(days, 'day')}, counted on this machine from its own "
             "records. Needs no upload.")  # fmt: skip
    rows: list[list[Child]] = [
        [name(each.name), f"{each.count:,}", moment(each.last), sparkline(each.counts)] for each in facts.counted
    ]
    head = ("Event", "Count", "Newest", "Day by day")
    return part("past", html.p(intro), card(table(head, rows, right={1}, stacks=True)))

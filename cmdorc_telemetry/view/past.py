"""This machine's own history: what is slow, what fails, when things run; and how it compares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

from ..charts import DURATION_STEPS, Key, band, bar, figure, heatmap, mark, sparkline, stacked, table
from ..insights import CommandRuns, Days
from ..markup import Child, Markup, html
from ..wording import duration, moment, percent, plural
from .facts import Comparison, Facts
from .parts import Part, card, failure, name, part

ENOUGH = 20
"""Runs before charts are drawn."""
_LISTED, _CHARTED, _RANKED = 20, 4, 5
_WEEKDAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_OUTCOMES = (Key("s1", "succeeded"), Key("s2", "failed"), Key("s4", "cancelled"))


def past(facts: Facts) -> Part | None:
    """Tables and charts of the history."""
    if "past" in facts.failed:
        return part("past", failure(facts.failed["past"]))
    days = facts.past
    if days is None or not (days.runs or facts.recording_elsewhere):
        return None
    if not days.runs:
        return part("past", html.p(f"No runs yet. Charts appear after {ENOUGH} runs."))
    runs, commands = plural(days.runs, "run"), plural(len(days.commands), "command")
    when = plural(len(days.dates), "day")
    intro = f"{runs} of {commands} in the last {when}, computed on this machine from its own records. Needs no upload."
    parts: list[Child] = [html.p(intro), card(_commands(facts, days))]
    if days.runs >= ENOUGH:
        shown = [each for each in days.commands[:_CHARTED] if each.ended]
        durations = [_durations(days, number, each) for number, each in enumerate(shown)]
        charts = (_rankings(days), durations, [_outcomes(days), _hours(days)])
        parts += [html.div(each, class_="pair") for each in charts]
    else:
        parts.append(html.p(f"Charts appear after {ENOUGH} runs.", class_="quiet"))
    if facts.recording_elsewhere or facts.compared:
        parts.append(_compared(facts))
    return part("past", parts)


def _commands(facts: Facts, days: Days) -> Child:
    charts = days.runs >= ENOUGH
    head = ["Command", "Runs", "Succeeded", "Median", "95 % within", *(["Day by day"] if charts else [])]
    rows: list[list[Child]] = [
        [name(each.name), f"{each.runs:,}", percent(each.succeeded, each.ended), duration(each.p50_ms),
         duration(each.p95_ms), *([sparkline(each.medians_ms)] if charts else [])]
        for each in days.commands[:_LISTED]
    ]  # fmt: skip
    more = len(days.commands) - _LISTED
    return [
        table(head, rows, right={1, 2, 3, 4}, stacks=True, class_="commands"),
        html.p(f"{plural(more, 'more command', 'more commands')}: ",
               html.code(f"{facts.command} stats --days {len(days.dates)}", class_="line"), class_="quiet")
        if more > 0 else None,
    ]  # fmt: skip


def _rankings(days: Days) -> list[Markup]:
    """The slowest, and those whose result changes most."""
    slow = sorted((each for each in days.commands if each.p50_ms), key=lambda each: -(each.p50_ms or 0))[:_RANKED]
    flaky = sorted((each for each in days.commands if each.changes), key=lambda each: -each.changes)[:_RANKED]
    slowest: list[list[Child]] = [
        [name(each.name), bar(each.p50_ms, slow[0].p50_ms or 0), duration(each.p50_ms), duration(each.total_ms)]
        for each in slow
    ]
    changing: list[list[Child]] = [
        [name(each.name), bar(each.changes, flaky[0].changes, "s2"), f"{each.changes:,}", f"{each.failed:,}"]
        for each in flaky
    ]
    changes = "How often a run succeeded after one that failed, or the other way round."
    return [
        *_ranking("Slowest", "By their median run.", ("Median", "Total"), slowest),
        *_ranking("Flakiest", changes, ("Changes", "Failed"), changing),
    ]


def _ranking(title: str, about: str, head: Sequence[str], rows: Sequence[Sequence[Child]]) -> Iterator[Markup]:
    if rows:
        figures = table(("Command", "Bar", *head), rows, right={2, 3}, hidden={1}, class_="bars")
        yield card(html.h3(title), html.p(about, class_="quiet"), figures)


def _day(day: date) -> str:
    return f"{day.day} {day:%b}"


def _durations(days: Days, number: int, each: CommandRuns) -> Markup:
    slots = [_day(day) for day in days.dates]
    notes = [f"median {duration(low)}, 95 % within {duration(high)}, {plural(count, 'run')}" if count else ""
             for low, high, count in zip(each.medians_ms, each.p95s_ms, each.counts, strict=True)]  # fmt: skip
    title = f"{each.name}: duration"
    about = (f"Median {duration(each.p50_ms)}, 95 % of runs within {duration(each.p95_ms)}, "
             f"over {plural(len(slots), 'day')}.")  # fmt: skip
    plot = band(
        f"duration-{number}",
        title,
        about,
        slots=slots,
        line=each.medians_ms,
        above=each.p95s_ms,
        notes=notes,
        tick=_short_duration,
        steps=DURATION_STEPS,
    )
    rows: list[list[Child]] = [
        [slot, f"{count:,}", duration(low), duration(high)]
        for slot, count, low, high in zip(slots, each.counts, each.medians_ms, each.p95s_ms, strict=True) if count
    ]  # fmt: skip
    legend = [Key("s1", "median of the day"), Key("area", "up to what 95 % stay within")]
    return card(figure([name(each.name), ": duration"], plural(each.ended, "run"), plot,
                       ("Day", "Runs", "Median", "95 % within"), rows[::-1], legend))  # fmt: skip


def _outcomes(days: Days) -> Markup:
    slots = [_day(day) for day in days.dates]
    series = [(key.class_, [outcome[number] for outcome in days.outcomes]) for number, key in enumerate(_OUTCOMES)]
    notes = [", ".join(f"{count:,} {key.text}" for count, key in zip(outcome, _OUTCOMES, strict=True) if count)
             for outcome in days.outcomes]  # fmt: skip
    totals = [sum(values) for _, values in series]
    about = ", ".join(f"{total:,} {key.text}" for total, key in zip(totals, _OUTCOMES, strict=True)) + "."
    plot = stacked(
        "outcomes", "Runs per day by result", about, slots=slots, series=series, notes=notes, tick=_short_count
    )
    rows: list[list[Child]] = [
        [slot, *(f"{count:,}" for count in outcome)]
        for slot, outcome in zip(slots, days.outcomes, strict=True) if any(outcome)
    ]  # fmt: skip
    return card(figure("Runs per day by result", "all commands", plot, ("Day", "Succeeded", "Failed", "Cancelled"),
                       rows[::-1], [Key(key.class_, key.text) for key in _OUTCOMES]))  # fmt: skip


def _hours(days: Days) -> Markup:
    slots = [f"{hour:02}" for hour in range(24)]
    count, weekday, hour = max(
        (count, row, hour) for row, each in enumerate(days.hours) for hour, count in enumerate(each)
    )
    about = f"Most runs ended on {_WEEKDAYS[weekday]} between {hour:02} and {(hour + 1) % 24:02} h: {count:,}."

    def note(row: int, slot: int) -> str:
        return f"{_WEEKDAYS[row]} {slot:02} h: {plural(days.hours[row][slot], 'run')}"

    plot = heatmap("hours", "When commands run", about, rows=_WEEKDAYS, slots=slots, cells=days.hours, note=note)
    rows = [[weekday, *_quarters(row)] for weekday, row in zip(_WEEKDAYS, days.hours, strict=True)]
    head = ("Day", "00–06", "06–12", "12–18", "18–24")
    return card(figure("When commands run", f"by weekday and hour, {days.zone}", plot, head, rows,
                       [Key("none", "no run"), Key("s1", "the stronger, the more")]))  # fmt: skip


def _quarters(row: Sequence[int]) -> list[str]:
    return [f"{sum(row[start : start + 6]):,}" for start in range(0, 24, 6)]


def _compared(facts: Facts) -> Markup:
    if not facts.compared:
        return html.p("No comparison yet: needs an answer from the server.", class_="quiet")
    rows = [html.li(_place(each)) for each in facts.compared]
    return card(html.h3("You against everyone"), html.ul(rows, class_="places"))


def _place(compared: Comparison) -> list[Child]:
    said = f" of installs, as {compared.place} said on {moment(compared.at)}."
    return [
        mark(compared.rank),
        html.p("fastest", html.span("slowest"), class_="ends", aria_hidden="true"),
        html.p("Your median run is slower than ", html.b(f"{compared.rank:.3g} %"), said),
    ]


def _short_duration(milliseconds: float) -> str:
    for unit, length in (("h", 3_600_000), ("min", 60_000), ("s", 1000)):
        if milliseconds >= length:
            return f"{milliseconds / length:.4g} {unit}"
    return f"{milliseconds:g} ms" if milliseconds else "0"


def _short_count(value: float) -> str:
    return f"{value:,.0f}" if value < 1e6 else f"{value:.3g}"

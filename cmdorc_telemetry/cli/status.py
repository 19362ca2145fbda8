"""``status``: is it on, who decided, what limits it, where every event is. Writes nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..bounds import Bounds
from .machine import Machine, config_option, project_layer
from .waiting import cost
from .wording import command_line, duration, moment, moment_of, place, plural, sentence

if TYPE_CHECKING:
    from .screen import Part, Screen
    from .standing import Place, Standing
    from .usage import Usage

_WORDS = {
    "up-to-date": "up to date",
    "pending": "waits to be sent",
    "waiting": "waiting",
    "set-aside": "set aside",
    "waits-for-your-yes": "waits for your yes",
    "declined": "you said no",
    "plugin-missing": "plugin missing",
    "misconfigured": "cannot be used",
    "off": "off",
    "blocked": "gets nothing",
    "removed": "not in your file any more",
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@config_option
def status(as_json: bool, config: Path | None) -> None:
    """Show what is on, who decided, and where every event is. Changes nothing."""
    from .standing import standing

    layer, problem = project_layer(config)
    machine = Machine(project=layer)
    machine.bear()
    found = standing(machine, problem)
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(found)))
    else:
        from .screen import Screen

        _show(Screen(), found)


def first_line(recording: bool, level: str, elsewhere: bool = False) -> list[Part]:
    """The answer."""
    if recording and level != "off":
        return [("Telemetry is on.", "bold"), " Level ", (level, "bold"), "."]
    if recording:
        return [("Telemetry records on this machine only.", "bold")]
    if elsewhere:
        return [("Telemetry is off in this project.", "bold"), " Nothing is recorded here."]
    return [("Telemetry is off.", "bold"), " Nothing is recorded."]


def the_bytes(*, local: bool) -> str:
    """The command that prints them; ``local``: where nothing is shared, those of the history."""
    from ..history import NAME as HISTORY

    return command_line("show-payload", *(("--to", HISTORY) if local else ()))


def _show(screen: Screen, found: Standing) -> None:
    screen.line(*first_line(found.recording, found.level, found.recording_elsewhere))
    screen.line()
    if found.decided_by != "nobody" or found.limits or found.ignored:
        screen.labelled(decision(found))
        screen.line()
    if found.recording_elsewhere:
        screen.labelled(_events(found, stacked=screen.narrow))
        screen.line()
    if found.recording_elsewhere and found.usage is not None:
        screen.labelled(_usage(found.usage))
        screen.line()
    if found.destinations:
        _destinations(screen, found.destinations)
    elif found.recording_elsewhere:
        screen.line("No destination: nothing leaves this machine.")
        screen.line()
    for text in troubles(found):
        screen.warn(*text)
    screen.labelled(
        [("The bytes", the_bytes(local=found.recording and found.level == "off")), ("Stop", command_line("opt-out"))]
        if found.recording_elsewhere
        else [("A sample", command_line("show-payload")), ("Switch on", command_line("opt-in"))]
    )


def decision(found: Standing) -> list[tuple[str, Part]]:
    """Who decided, when and where; what limits that; what was ignored. An empty label goes on with the one before."""
    who = {"you": "you", "operator": "the environment", "nobody": "nobody"}[found.decided_by]
    parts = [who, moment_of(found.decided_at) if found.decided_at else "", place(found.decided_in)]
    rows: list[tuple[str, Part]] = [("Decided by", ", ".join(part for part in parts if part))]
    rows.append(("Limits", " · ".join(found.limits) or "none"))
    rows.extend(("" if number else "Ignored", text) for number, text in enumerate(found.ignored))
    return rows


def _events(found: Standing, *, stacked: bool) -> list[tuple[str, Part]]:
    rows: list[tuple[str, Part]] = []
    for each in [found.history, *found.detectors, *(to.ledger for to in found.destinations)]:
        terms = re.split(" (?=[=+] )", str(each)) if stacked else [str(each)]
        rows.extend(("" if number else each.name, term) for number, term in enumerate(terms))
    if found.segments:
        rows.append(("In journals", f"{plural(found.records, 'record')} of programs that ended, not yet imported"))
    if live := found.segments_of_live_processes:
        of = f"{plural(live, 'process', 'processes')} with {plural(found.records_of_live_processes, 'record')}"
        rows.append(("Running", f"{of}, not yet imported"))
    if found.withheld:
        reasons = " · ".join(f"{reason} {count:,}" for reason, count in sorted(found.withheld.items()))
        rows.append(("Withheld", f"{reasons} (not shared, not counted above)"))
    if found.slow:
        rows.append(("Slow disk", f"{plural(found.slow, 'capture')} took over 10 ms"))
    rows.append(("Last report", moment(found.last_report) if found.last_report else "none yet"))
    return rows


def _usage(used: Usage) -> list[tuple[str, Part]]:
    """What is in use, of what may be."""
    most = Bounds(**used.bounds)
    rows: list[tuple[str, Part]] = [
        ("Journal", f"{used.segments:,} of {plural(most.journal_segments, 'segment')}, "
                    f"{_mib(used.journal_bytes)} of {most.journal_mib:,} MiB"),
        ("Spool", f"{used.spool_events:,} of {plural(most.spool_events, 'event')}, "
                  f"{_mib(used.spool_bytes)} of {most.spool_mib:,} MiB, for {plural(most.keep_days, 'day')} at most"),
        ("History", f"{_mib(used.history_bytes)} of {most.history_mib:,} MiB, "
                    f"for {plural(used.history_days, 'day')} at most"),
        ("Audit", f"{_mib(used.audit_bytes)} MiB in {place(used.audit)}"),
        ("Batches", f"{plural(most.batch_events, 'event')}, {most.batch_kib:,} KiB or {most.batch_seconds:,} s "
                    f"at most; pauses of {duration(most.pause_seconds * 1000)} at most"),
        ("A process", f"{plural(used.threads, 'thread')} at most, sync {_on(used.sync)}, "
                      f"background sender {_on(used.background)}"),
    ]  # fmt: skip
    rows.extend(("" if number else "Moved aside", f"{place(path)} (could not be used)")
                for number, path in enumerate(used.moved_aside))  # fmt: skip
    return rows


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f}"


def _on(switch: bool) -> str:
    return "on" if switch else "off"


def _destinations(screen: Screen, places: list[Place]) -> None:
    rows = [
        (each.name, each.plugin, place(each.target), each.audience, f"{each.ledger.pending:,}", state_of(each))
        for each in places
    ]
    screen.table(("Destination", "Reporter", "Where", "Audience", "Pending", "State"), rows, right={4})
    screen.line()
    for each in places:
        if each.note:
            waits = " Events wait for it." if each.state == "plugin-missing" else ""
            screen.warn(f"{each.name}: {sentence(each.note)}{waits}", each.fix)
        if each.asks:
            screen.line(f"{each.name} asks for less: {each.asks}.")
            screen.line()
        if each.unclear:
            screen.warn(f"{each.name} asks for what means nothing here: {sentence(each.unclear)}")


def state_of(each: Place) -> list[Part]:
    """The state of a destination, in words: the first of them is what matters."""
    text = ""
    if each.state == "waiting":
        after = f" after {plural(each.ledger.failures, 'failure')}" if each.ledger.failures else ""
        text += f"{after}, next try {moment(each.ledger.next_try)}"
    if each.ledger.set_aside:
        text += f", {each.ledger.set_aside:,} set aside" if each.state != "set-aside" else " to be looked at"
    return [(_WORDS[each.state], {"up-to-date": "cyan", "off": "", "declined": ""}.get(each.state, "yellow")), text]


def troubles(found: Standing) -> list[tuple[str, ...]]:
    """What waits for the user or is wrong, each with the line that helps, if there is one."""
    told: list[tuple[str, ...]] = [(text,) for text in found.problems]
    told += [(f"Plugin {name!r} {what}",) for name, what in found.broken_plugins.items()]
    told += [(f"{each.name} cannot learn: {sentence(each.last_error)} Events wait for it.",)
             for each in found.detectors if each.failures]  # fmt: skip
    if dead := sum(each.ledger.set_aside for each in found.destinations):
        text = f"{plural(dead, 'event was', 'events were')} rejected and set aside."
        told.append((text, command_line("dead-letters")))
    waiting = [each.name for each in found.destinations if each.state == "waits-for-your-yes"]
    if waiting:
        text = f"{plural(len(waiting), 'destination')} {_waits(waiting)} for your yes: {', '.join(waiting)}."
        told.append((text, command_line("opt-in" if found.level == "off" else "review")))
    told += [(cost(each.name, each.ledger.pending),) for each in found.destinations
             if each.state == "waits-for-your-yes" and each.ledger.pending]  # fmt: skip
    if specs := found.specs_waiting:
        text = f"{plural(len(specs), 'spec')} {_waits(specs)} for your answer: {', '.join(specs)}."
        told.append((f"{text} Nothing of {'it' if len(specs) == 1 else 'them'} is recorded until then.",
                     command_line("review")))  # fmt: skip
    if fields := found.fields_waiting:
        names = ", ".join(fields[:5]) + (f" and {len(fields) - 5} more" if len(fields) > 5 else "")
        text = f"{plural(len(fields), 'field')} {_waits(fields)} for your answer: {names}. Withheld until then."
        told.append((text, command_line("review")))
    if owing := sorted({name for each in found.to_be_erased.values() for name in each}):
        told.append((f"An erasure is not confirmed yet by {', '.join(owing)}.", command_line("erase")))
    return told


def _waits(names: list[str]) -> str:
    return "waits" if len(names) == 1 else "wait"

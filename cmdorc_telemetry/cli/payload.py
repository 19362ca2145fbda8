"""``show-payload``: the stored body of an event, byte for byte, and why each field is there or is not.

For a destination, what its reporter makes of that body, and sends. Where several events leave together, the reporter
makes one thing of them all: of that the audit has the digest.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

from ..errors import ConfigError, PluginError, TelemetryError, nearest
from .machine import Machine
from .stats import note_running
from .waiting import answer_line, declined
from .wording import moment, moment_of

if TYPE_CHECKING:
    from ..config import DestinationConfig
    from ..types import Row
    from .fields import Shown


@click.command("show-payload", short_help="Print the stored bytes of an event.")
@click.argument("event", required=False)
@click.option("--to", metavar="NAME", help="What this destination gets, instead of what is shared at most.")
def show_payload(event: str | None, to: str | None) -> None:
    """Print the newest stored body of EVENT (or of any event): into a pipe its bytes alone, with no newline added.

    Where nothing is stored, a sample with placeholder ids. With telemetry off nothing is written.
    """
    from ..history import NAME as HISTORY

    machine = Machine()
    names = {each.name: each for each in machine.pipeline.configured}
    if to in machine.unplaced:
        raise ConfigError("--to", "", machine.unplaced[to])
    if to is not None and to not in (HISTORY, *names):
        raise _unknown("--to", to, (HISTORY, *names))
    known = [each.name for spec in machine.pipeline.registry for each in spec.events]
    if event is not None and event not in known:
        raise _unknown("EVENT", event, known)
    destination = names.get(to) if to is not None else None
    private = to == HISTORY or (destination is not None and destination.audience == "private")
    row, live = _newest(machine, event, destination, private) if machine.recording else (None, 0)
    shown = _kept(machine, event) if row is None and to == HISTORY and machine.recording else None
    sample = row is None and shown is None
    if row is not None:
        shown = stored(machine, row, destination, private)
    show(machine, shown or _sample(machine, event or machine.usual_event, destination, private))
    if destination is not None and destination.name in machine.missing:
        click.echo(f"The reporter of {to} is not there: this is the body that it would be given.", err=True)
    if sample:
        why = "none of it waits to be sent" if machine.recording else "telemetry is off"
        click.echo(f"This is a sample, with placeholder ids: {why}.", err=True)
    note_running(live)


def show(machine: Machine, shown: Shown) -> None:
    """Lay a body out on a terminal; into a pipe its bytes alone."""
    if sys.stdout.isatty():
        from .fields import lay_out

        lay_out(machine, shown, _about(machine, shown))
    else:
        click.echo(shown.wire, nl=False)


def _unknown(what: str, found: str, known: tuple[str, ...] | list[str]) -> ConfigError:
    return ConfigError(what, "", f"found {found!r}", "one of " + ", ".join(known), nearest=nearest(found, known))


def _newest(
    machine: Machine, event: str | None, to: DestinationConfig | None, private: bool
) -> tuple[Row | None, int]:  # fmt: skip
    """The newest event, one with a shared body where that is asked for and there is one; live processes."""
    names: list[str | None] = [event]
    for view in machine.pipeline.views():
        if event is None and to is not None and view.name == to.name and view.kinds is not None:
            names = [name for _, name in sorted(view.kinds)]
    with machine.spool() as spool:
        rows = [(None if private else spool.newest(name, shared=True)) or spool.newest(name) for name in names]
        machine.fill_history(spool)  # after which the spool may have no more use for them
        stored = [row for row in rows if row is not None]
        return max(stored, key=lambda row: row.at, default=None), len(machine.segments(spool).live)


def _kept(machine: Machine, event: str | None) -> Shown | None:
    """The newest event that the history has: once it is there, the spool may have no more use for it."""
    from ..insights import newest_bodies
    from .fields import Shown

    find = machine.pipeline.registry.find_event
    bodies = newest_bodies(machine.home.history)
    kept = [(str(json.loads(body)["timestamp"]), body, found) for name, body in bodies.items()
            if event in (None, name) and (found := find(name)) is not None]  # fmt: skip
    if not kept:
        return None
    at, body, found = max(kept, key=lambda each: each[0])
    return Shown(*found, body, None, None, True, body, kept=at)


def stored(machine: Machine, row: Row, to: DestinationConfig | None, private: bool) -> Shown:
    """What a destination, or what all that is shared with, gets of an event. Raises TelemetryError for nothing."""
    from .fields import Shown
    from .withheld import why_nothing

    pipeline = machine.pipeline
    found = pipeline.registry.find_event(row.event)
    if found is None:
        raise TelemetryError(f"{row.event}: the plugin that declares it is not there any more")
    if to is not None and to in pipeline.waiting:
        consent = machine.situation.consent
        if consent is not None and declined(consent, to):
            raise TelemetryError(f"{to.name} gets nothing: you said no to it")
        raise TelemetryError(f"{to.name} gets nothing: it waits for your yes ({answer_line(machine)})")
    body = row.private if private else pipeline.shared_body(row)
    if to is not None:
        answer = pipeline.body_for(to, row)
        if answer == "unwanted":
            raise _unwanted(machine, to, row.event)
        if to.events is not None and row.event not in to.events:
            raise TelemetryError(f"{row.event}: {to.name} gets nothing of it: it is not among its events")
        body = answer if isinstance(answer, bytes) else None
    if body is None:
        raise TelemetryError(f"{row.event}: {why_nothing(machine, row, found[1], to)}")
    return Shown(*found, body, row, to, private, _encoded(machine, to, row.event, body))


def _encoded(machine: Machine, to: DestinationConfig | None, event: str, body: bytes) -> bytes:
    """What the reporter of ``to`` sends where the event is alone. Raises ConfigError, PluginError."""
    import asyncio

    from ..destinations import make_reporter
    from ..types import Batch, BatchEvent

    class_ = machine.pipeline.classes.get(to.plugin) if to is not None else None
    if to is None or class_ is None:
        return body
    event_id = json.loads(body).get("event_id", "")
    batch = Batch(destination=to.name, events=(BatchEvent(event_id, event, body),))

    async def encode() -> bytes:  # a reporter lives in a loop
        reporter = make_reporter(class_, to, machine.situation.environ)
        try:
            return bytes(reporter.encode(batch))
        except Exception as fault:
            raise PluginError(f"the reporter of {to.name} cannot encode it: {type(fault).__name__}: {fault}") from fault
        finally:
            await reporter.close()

    return asyncio.run(encode())


def _unwanted(machine: Machine, to: DestinationConfig, event: str) -> TelemetryError:
    wishes = machine.pipeline.wishes(to.name).words()
    return TelemetryError(f"{event}: {to.name} gets nothing of it, for it asks for less: {wishes}")


def _sample(machine: Machine, name: str, to: DestinationConfig | None, private: bool) -> Shown:
    from msgspec.structs import replace

    from ..config import TelemetryLevel
    from ..spec import LEVELS, project
    from .fields import Shown
    from .sample import least_level, private_sample, shared_sample

    found = machine.pipeline.registry.find_event(name)
    assert found is not None
    spec, event = found
    taken: dict[str, str] = {}
    if private:
        level, body = None, private_sample(spec, event)
    else:
        wishes = (machine.pipeline.policy.share, machine.situation.user.level, None if to is None else to.level)
        limits = [wish for wish in wishes if wish is not None and wish is not TelemetryLevel.OFF]
        if not event.shared_at("debug"):
            raise TelemetryError(f"{name}: no level shares anything of it")
        limit = min(limits, default=TelemetryLevel.MINIMAL)
        chosen = least_level(event, limit)
        if chosen is not limit:
            click.echo(f"Level {limit.value} shares nothing of {name}: "
                       f"this is what level {chosen.value} shares.", err=True)  # fmt: skip
        level = LEVELS[chosen.rank - 1]
        try:
            body, taken = shared_sample(machine.pipeline.gate(), spec, event, chosen)
        except PluginError as fault:
            raise PluginError(f"{name}: nothing of it is shared: {fault}") from None
    if to is not None:
        wanted = replace(machine.pipeline.wishes(to.name).of(name), sampling=1.0)  # it stands for those that are sent
        narrowed = project(machine.pipeline.shapes, spec.ref, name, body, level=level, rename=to.rename, wanted=wanted)
        if narrowed is None:
            raise _unwanted(machine, to, name)
        body = narrowed
    return Shown(spec, event, body, None, to, private, _encoded(machine, to, name, body), taken=taken)


def _about(machine: Machine, shown: Shown) -> str:
    """Of what moment, how many bytes, for whom."""
    from ..history import NAME as HISTORY

    pipeline = machine.pipeline
    if shown.to is not None:
        whom = f"to {shown.to.name} ({shown.to.audience})"
    elif shown.private:
        whom = f"to {HISTORY} (private)"
    else:
        shared = [to.name for to in pipeline.allowed if to.audience == "shared"]
        whom = f"to {', '.join(shared)} (shared)" if shared else "to nobody: no destination is shared with"
    when = moment(shown.row.at) if shown.row is not None else moment_of(shown.kept) if shown.kept else "sample"
    return f"{when} · {len(shown.wire):,} bytes · {whom}"

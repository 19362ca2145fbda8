"""``review``: what was added or changed since the yes, shown beside what was agreed to, and asked for alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .. import clock
from ..config import TelemetryLevel, load_layer
from ..consent import Consent, Grant, save_decision
from ..declarations import declarations, declares_shared, differences, unanswered
from ..errors import ConfigError, ConsentError
from .machine import Machine
from .status import first_line
from .waiting import cost, decision, declined, level, specs, waiting
from .wording import command_line, moment_of, plural

if TYPE_CHECKING:
    from ..config import DestinationConfig
    from ..spec import TelemetrySpec
    from ..spec.compare import Change
    from .screen import Screen

Ask = Callable[[str], bool | None]
"""A question → the answer; None where nobody could be asked."""


@click.command(short_help="Decide on what was added or changed since your yes.")
@click.option("--yes", is_flag=True, help="Ask nothing. Never covers debug.")
@click.option("-c", "--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
              help="Ask for the specs, too, that this project's TOML file adds.")  # fmt: skip
def review(yes: bool, config: Path | None) -> None:
    """Show what was added or changed since your yes, and ask for that alone.

    A yes adds it to what you agreed to; the level, and when it ends, stay. After a no it stays away, and you are not
    asked for it again as it is. Exit code 1 where not all of it was agreed to.
    """
    from .offer import ask, can_ask
    from .screen import Screen

    machine = Machine(own=True, project=load_layer(config) if config is not None else None)
    if machine.trouble:
        raise ConsentError(machine.trouble)
    consent = decision(machine)
    if consent is None:
        Screen().line(*first_line(machine.recording, machine.pipeline.policy.share.value))
    else:
        _information(Screen(err=True), machine, consent)
    if consent is None or not any(waiting(machine)):
        click.echo("Nothing waits for your answer.")
        return
    asking = can_ask()
    plain: Ask = _agreed if yes else ask if asking else _nobody
    answers = _Answers(Screen(err=True), machine, consent, plain, ask if asking else _nobody)
    answers.collect()
    if not (asking or yes):
        raise ConfigError("review", "", "there is no terminal to ask on; nothing was changed", "--yes")
    answers.write()
    click.get_current_context().exit(0 if answers.all_agreed else 1)


def _agreed(question: str) -> bool:
    click.echo(f"{question} yes", err=True)
    return True


def _nobody(question: str) -> None:
    click.echo(question, err=True)


class _Answers:
    """The decision with what was answered so far."""

    def __init__(self, screen: Screen, machine: Machine, consent: Consent, plain: Ask, debug: Ask) -> None:
        from .examples import Examples

        self._screen, self._machine, self._consent = screen, machine, consent
        self._plain, self._debug = plain, debug
        self._examples = Examples(machine, level(machine, consent))
        self._grants: dict[str, Grant] = {}
        self._destinations, self._declined = dict(consent.destinations), dict(consent.declined)
        self._answered = False
        self.all_agreed = True

    def collect(self) -> None:
        """Show and ask, one thing after the other."""
        for spec in specs(self._machine):
            grant = self._consent.grants.get(spec.meta.name) or self._spec(spec)
            for fields in self._parts(spec, grant):
                grant = self._fields(spec, grant, fields)
        for to in waiting(self._machine).destinations:
            self._destination(to)

    def write(self) -> None:
        """Record what was answered, all of it or nothing. Raises ConsentError, StorageError."""
        from .optin import all_or_nothing, tell

        if not self._answered:
            return
        with all_or_nothing(self._machine.home):
            save_decision(self._machine.home, self._grants, self._destinations, declined=self._declined,
                          since=self._consent.generation)  # fmt: skip
            Machine().pipeline.open_spool().close()  # a new destination begins with what is recorded from now on
        tell()

    def _ask(self, question: str, ask: Ask) -> bool | None:
        answer = ask(question)
        self._answered = self._answered or answer is not None
        self.all_agreed = self.all_agreed and answer is True
        self._screen.line()
        return answer

    # -- a spec -------------------------------------------------------------------------------------------------------

    def _spec(self, spec: TelemetrySpec) -> Grant:
        """What is said about a spec that is new."""
        from .offer import show_spec

        share = level(self._machine, self._consent)
        shown = min(share, TelemetryLevel.STANDARD)
        show_spec(self._screen, self._machine, self._examples, spec, shown)
        how = "too, and share this" if declares_shared(spec) else "too, for you and destinations of your own"
        how = "on this machine only" if share is TelemetryLevel.OFF else how
        answer = self._ask(f"Record {spec.meta.name} {how}?", self._plain)
        if answer is None:
            return Grant()
        grant = Grant(decided_at=clock.iso(clock.wall()))
        if answer:
            until = self._consent.grants[self._machine.application.spec].debug_expires
            grant = Grant(True, share, grant.decided_at, declarations(spec, shown), debug_expires=until)
        self._grants[spec.meta.name] = grant
        return grant

    # -- fields -------------------------------------------------------------------------------------------------------

    def _parts(self, spec: TelemetrySpec, grant: Grant) -> Iterator[list[str]]:
        """The fields to ask for; those of DEBUG have a question of their own."""
        names = unanswered(spec, grant, grant.level(clock.utcnow()))
        plain = names & declarations(spec, TelemetryLevel.STANDARD).keys()
        yield from (sorted(part) for part in (plain, names - plain) if part)

    def _fields(self, spec: TelemetrySpec, grant: Grant, names: Collection[str]) -> Grant:
        """``grant`` with what is said about some fields."""
        declared = declarations(spec)
        texts = {name: declared[name] for name in names}
        for name, change in differences(spec, grant).items():
            if name in texts:
                self._field(spec, name, change, grant.fields.get(name), texts[name])
        self._screen.line()
        debug = not texts.keys() <= declarations(spec, TelemetryLevel.STANDARD).keys()
        answer = self._ask(_debug_question(grant) if debug else f"Share {_these(len(texts))}, too?",
                           self._debug if debug else self._plain)  # fmt: skip
        if answer is None:
            return grant
        if answer:
            left = {name: text for name, text in grant.declined.items() if name not in texts}
            grant = grant._replace(fields={**grant.fields, **texts}, declined=left)
        else:
            grant = grant._replace(declined={**grant.declined, **texts})
        self._grants[spec.meta.name] = grant
        return grant

    def _field(self, spec: TelemetrySpec, name: str, change: Change, old: str | None, new: str) -> None:
        from ..spec import BASE
        from ..spec.outputs import recorded, values
        from .offer import about, show_field

        of, _, key = name.partition("/")
        event = spec.asked_for(of)
        prop = BASE[key] if event is None else event.properties[key]
        examples = self._examples.base() if event is None else self._examples.of(spec, event).values
        self._screen.below(0, (name, "bold"), f"  {_WORDS[change]}")
        kind = values(prop) if event is None else recorded(event, key)
        show_field(self._screen, key, prop, kind, examples[key])
        for label, text in _changes(old, new) if old is not None else () if event is None else about(spec, event):
            self._screen.below(len(label) + 8, text, label=f"      {label}")

    # -- destinations -------------------------------------------------------------------------------------------------

    def _destination(self, to: DestinationConfig) -> None:
        from .offer import destination_words

        old = self._consent.destinations.get(to.name)
        self._screen.below(0, (to.name, "bold"), "  new destination" if old is None else "  leads elsewhere now")
        self._screen.below(2, destination_words(self._machine, to))
        if old is not None:
            self._screen.below(7, old, label="  Was")
            if count := self._pending(to.name):
                self._screen.below(2, cost(to.name, count))
        self._screen.line()
        answer = self._ask(f"Share with {to.name}, too?", self._plain)
        if answer is not None:
            (self._destinations if answer else self._declined)[to.name] = to.identity

    def _pending(self, name: str) -> int:
        """How many events wait for a destination, those included that no program has imported yet."""
        with self._machine.spool() as spool:
            found = spool.ledger().get(name)
        return found.pending if found is not None else 0


def _these(count: int) -> str:
    return "this field" if count == 1 else f"these {count} fields"


def _debug_question(grant: Grant) -> str:
    from .offer import debug_question

    assert grant.debug_expires is not None
    until = moment_of(clock.iso(grant.debug_expires.timestamp()))
    return debug_question(until)


# -- old → new --------------------------------------------------------------------------------------------------------

_WORDS: dict[Change, str] = {
    "added": "new",
    "removed": "not shared any more",
    "narrowed": "narrower",
    "widened": "wider",
    "re-meant": "for another reason",
}
_LABELS = {
    "type": "Type",
    "members": "Values",
    "edges": "Ranges",
    "min": "Least",
    "max": "Most",
    "pattern": "Pattern",
    "max_length": "Characters",
    "max_items": "At most",
    "level": "From level",
    "audience": "Audience",
    "pii": "Personal",
    "redact": "Masked",
    "required": "Always there",
    "why": "Why",
    "retention_days": "Kept",
    "declaration": "Declaration",
}


def _changes(old: str, new: str) -> Iterator[tuple[str, str]]:
    """What two declarations say otherwise: a label, and old → new."""
    from ..spec import compare

    for each in compare.differences(old, new):
        yield _LABELS[each.name], f"{_value(each.name, each.old)} → {_value(each.name, each.new)}"


def _value(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(f"{each:g}" if isinstance(each, float) else str(each) for each in value) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    if name == "retention_days" and value is not None:
        return plural(value, "day")
    return "none" if value is None else str(value)


def _information(screen: Screen, machine: Machine, consent: Consent) -> None:
    """What needs no answer: fields that became less, and what got a no."""
    rows: list[tuple[str, str]] = []
    for spec in specs(machine):
        grant = consent.grants.get(spec.meta.name, Grant())
        declared = declarations(spec)
        for name, change in differences(spec, grant).items():
            if change in ("narrowed", "removed"):
                words = "; ".join(f"{label}: {text}" for label, text in _changes(grant.fields[name], declared[name])
                                  ) if name in declared else ""  # fmt: skip
                rows.append((name, f"{_WORDS[change]}. {words}".strip()))
        rows += [(name, "you said no") for name in sorted(grant.declined) if grant.declined[name] == declared.get(name)]
    rows += [(to.name, "you said no") for to in machine.pipeline.waiting if declined(consent, to)]
    if rows:
        screen.line(("For your information, no answer needed:", "bold"))
        for name, text in rows:
            screen.below(2, name, "  ", text)
        screen.line("To decide everything anew: ", command_line("opt-in"))
        screen.line()

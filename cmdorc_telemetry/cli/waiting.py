"""What waits for a person's answer since they said yes: whole specs, fields, destinations. Reads alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from .. import clock
from ..config import DestinationConfig, TelemetryLevel
from ..consent import Consent
from ..declarations import unanswered
from .wording import command_line, plural

if TYPE_CHECKING:
    from ..spec import TelemetrySpec
    from .machine import Machine


class Waiting(NamedTuple):
    """What nobody was asked for yet."""

    specs: tuple[TelemetrySpec, ...] = ()
    """Nothing of them is recorded."""
    fields: Mapping[str, frozenset[str]] = {}
    """Spec name → the fields of it that are withheld."""
    destinations: tuple[DestinationConfig, ...] = ()
    """They get nothing."""

    def names(self, first: str) -> list[str]:
        """The fields, those of other specs than the ``first`` with the name of the spec."""
        return [name if spec == first else f"{spec}: {name}"
                for spec, fields in self.fields.items() for name in sorted(fields)]  # fmt: skip


def waiting(machine: Machine) -> Waiting:
    """What to ask for; nothing where no person said yes, or telemetry is off."""
    consent = decision(machine)
    if consent is None:
        return Waiting()
    now, found = clock.utcnow(), list(specs(machine))
    fields = {spec.meta.name: unanswered(spec, grant, grant.level(now))
              for spec in found if (grant := consent.grants.get(spec.meta.name)) is not None}  # fmt: skip
    return Waiting(
        tuple(spec for spec in found if spec.meta.name not in consent.grants),
        {name: names for name, names in fields.items() if names},
        tuple(to for to in destinations(machine)
              if level(machine, consent) is not TelemetryLevel.OFF and machine.fault(to) is None),
    )  # fmt: skip


def destinations(machine: Machine) -> list[DestinationConfig]:
    """The destinations that wait for a yes, less those that got a no."""
    consent = machine.situation.consent
    return [to for to in machine.pipeline.waiting if consent is None or not declined(consent, to)]


def answer_line(machine: Machine) -> str:
    """The command by which a destination that waits gets its yes."""
    return command_line("opt-in" if machine.pipeline.policy.share is TelemetryLevel.OFF else "review")


def cost(name: str, count: int) -> str:
    """What a yes to a destination that leads elsewhere now does to what waits for it."""
    return (f"{name}: {plural(count, 'event waits', 'events wait')} for where it led before. A yes, or a no, drops "
            f"{'it' if count == 1 else 'them'}; where it leads there again, nothing is lost.")  # fmt: skip


def decision(machine: Machine) -> Consent | None:
    """The decision that something can be added to; None where there is none, or nothing is recorded."""
    consent = machine.situation.consent
    if consent is None or machine.application.spec not in consent.grants or not machine.pipeline.policy.record:
        return None
    return consent


def specs(machine: Machine) -> Iterator[TelemetrySpec]:
    """The specs of this home, the latest version of each, the application's first; none that a project adds, unless it
    was named to be asked for."""
    situation, registry = machine.situation, machine.pipeline.registry
    if not machine.own and situation.project is not None and situation.project.specs:
        registry = machine.host.registry(*situation._replace(project=None).specs())
    for name in dict.fromkeys(spec.meta.name for spec in registry):
        latest = registry.get(name)
        assert latest is not None
        yield latest


def level(machine: Machine, consent: Consent) -> TelemetryLevel:
    """How much of the first spec is shared: so much is asked for of anything else."""
    return consent.grants[machine.application.spec].level(clock.utcnow())


def declined(consent: Consent, to: DestinationConfig) -> bool:
    """Whether a person said no to a destination as it is."""
    return consent.declined.get(to.name) == to.identity

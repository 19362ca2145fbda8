"""What one round does: which canaries are planted where, and who misbehaves with them. Drawn, written, read back."""

from __future__ import annotations

import random
import uuid
from typing import Literal

import msgspec
from msgspec import Struct, field

from .canaries import Canaries

Mood = Literal["fine", "adds", "breaks", "raises", "odd"]
MOODS: tuple[Mood, ...] = ("adds", "breaks", "raises", "odd")
REFUSALS = (200, 301, 400, 404, 413, 422, 429, 500, 503)
LEVELS = ("minimal", "standard", "debug")


class Command(Struct):
    """One command of the round's configuration."""

    name: str
    words: list[str]
    """Arguments that it prints on both of its outputs."""
    variables: dict[str, str]
    """Of its environment."""
    folder: str | None
    """Its working directory, below the round's own."""
    code: int
    """What it exits with."""
    triggers: list[str]


class Plan(Struct):
    """One round."""

    marks: tuple[str, str]
    level: Literal["minimal", "standard", "debug"]
    mocked: int
    """Runs by the executor that cmdorc has for tests."""
    real: int
    """Runs by its own, each a process."""
    commands: list[Command]
    events: list[str]
    """Triggers that are fired."""
    variables: dict[str, str]
    """Of the program's environment."""
    config: str
    """Name of the configuration file."""
    folder: str
    """The program's working directory, below the round's own."""
    user: str
    host: str
    error: str
    """What is raised by everybody who can raise something."""
    junk: str
    """What plugins and servers give back."""
    property: str
    """Name of a private property of the plugin's own event."""
    moods: list[Mood]
    """Of the anonymizer: an event's id says which."""
    token: str
    token_by_variable: bool
    salt: str
    """Hex digits."""
    install_id: str
    umask: int
    refusal: int
    """The status that the server refuses the first batch with; 200 for a page that says nothing, 0 for not at all."""
    loose: bool
    """Whether files and directories are there before, and anybody may read and write them."""
    batch_events: int
    names: list[str] = field(default_factory=list)
    """Whose hashes anybody could compute."""
    sabotage: bool = False
    """Whether the program leaks on purpose, so that a test can see it found."""

    @classmethod
    def read(cls, data: bytes) -> Plan:
        """What ``written`` wrote."""
        return msgspec.json.decode(data, type=cls)

    def written(self) -> bytes:
        """For the program, which is a process of its own."""
        return msgspec.json.encode(self)


def draw(chance: random.Random, *, mocked: int, real: int, canaries: Canaries | None = None) -> Plan:
    """A round. The same ``chance`` gives the same one. ``canaries``: whose marks it has in common with other rounds."""
    canaries = canaries or Canaries(chance.getrandbits(64))
    events = [canaries.label(chance, "trigger") for _ in range(chance.randint(1, 4))]
    commands = [_command(chance, canaries, events) for _ in range(chance.randint(2, 5))]
    commands[0].name = canaries.label(chance, "command")  # triggers are made of it
    following = chance.choice(commands)
    commands.append(_command(chance, canaries, [f"command_success:{commands[0].name}"]))
    following.triggers.append(f"command_failed:{commands[0].name}")
    folders = [each.folder for each in commands if each.folder]
    user, config = canaries.word("user"), canaries.file(chance, "config")
    return Plan(
        marks=canaries.marks,
        level=chance.choice(LEVELS),
        mocked=mocked,
        real=real,
        commands=commands,
        events=events,
        variables=_variables(chance, canaries),
        config=config,
        folder=canaries.path(chance, "directory"),
        user=user,
        host=canaries.word("host"),
        error=canaries.text(chance, "exception"),
        junk=canaries.text(chance, "server"),
        property=canaries.word("property"),
        moods=[chance.choice(MOODS) if chance.random() < 0.25 else "fine" for _ in range(16)],
        token=canaries.word("token", 24),
        token_by_variable=chance.random() < 0.5,
        salt=canaries.key().hex(),
        install_id=str(uuid.UUID(bytes=canaries.key()[:16], version=4)),
        umask=chance.choice((0, 0o022, 0o077)),
        refusal=chance.choice((0, 0, 0, 0, *REFUSALS)),
        loose=chance.random() < 0.3,
        batch_events=chance.choice((1, 7, 50, 500)) if mocked + real < 100 else 500,
        names=[*events, *(each.name for each in commands), *folders, user, config],
    )


def _variables(chance: random.Random, canaries: Canaries) -> dict[str, str]:
    return {
        canaries.word("variable"): canaries.text(chance, "value") for _ in range(chance.randint(1, 3))
    }  # fmt: skip


def _command(chance: random.Random, canaries: Canaries, triggers: list[str]) -> Command:
    make = canaries.label if chance.random() < 0.7 else canaries.text
    return Command(
        name=make(chance, "command"),
        words=[canaries.text(chance, "argument") for _ in range(chance.randint(0, 3))],
        variables=_variables(chance, canaries),
        folder=canaries.path(chance, "directory") if chance.random() < 0.7 else None,
        code=chance.choice((0, 0, 0, 1, 7)),
        triggers=list(triggers),
    )

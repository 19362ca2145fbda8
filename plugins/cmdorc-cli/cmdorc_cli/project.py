"""The project: a cmdorc TOML, where it is found, what is in it. Errors are worded by cmdorc where it found them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cmdorc

from cmdorc_telemetry.errors import nearest

from .report import Problem, Unheard

DEFAULTS = ("cmdorc.toml", "config.toml")
_OUTCOMES = ("started", "success", "failed", "cancelled")
STARTUP, SHUTDOWN = "orchestrator_started", "orchestrator_shutdown"


@dataclass(frozen=True)
class Project:
    """One cmdorc TOML, read and checked by cmdorc."""

    path: Path
    runner: cmdorc.RunnerConfig

    @classmethod
    def load(cls, config: Path | None) -> Project:
        """The project in ``config``, or in this directory. Raises Problem."""
        path = config or next((Path(name) for name in DEFAULTS if Path(name).is_file()), None)
        if path is None:
            raise Problem(f"no {' or '.join(DEFAULTS)} in {Path.cwd()}; name the file with --config FILE")
        try:
            runner = cmdorc.load_config(path)
        except FileNotFoundError:
            raise Problem(f"{path}: no such file") from None
        except OSError as fault:
            raise Problem(f"{path}: {fault.strerror or fault}") from None
        except cmdorc.CmdorcError as fault:
            raise Problem(f"{path}: {fault}") from None
        except ValueError as fault:
            raise Problem(f"{path} is not valid TOML: {fault}") from None
        except (AttributeError, KeyError, TypeError) as fault:  # tables of a shape that cmdorc does not check
            raise Problem(f"{path} is not a cmdorc configuration: {fault}") from None
        for command in runner.commands:
            if not isinstance(command.name, str):
                raise Problem(f"{path}: found the command name {command.name!r}; expected a string")
        return cls(path, runner)

    def require(self, name: str) -> None:
        """Raise Problem unless ``name`` is a command."""
        names = [command.name for command in self.runner.commands]
        if name not in names:
            raise Problem(f"{self.path} has no command {name!r}{_hint(name, names)}")

    def require_listener(self, event: str) -> None:
        """Raise Unheard unless ``event`` starts or cancels something."""
        events = [each for command in self.runner.commands for each in (*command.triggers, *command.cancel_on_triggers)]
        if event not in events:
            raise Unheard(f"no command in {self.path} listens to {event!r}{_hint(event, events)}")

    def _started_by(self, event: str) -> list[str]:
        return [command.name for command in self.runner.commands if event in command.triggers]

    def reachable(self, names: Iterable[str], events: Iterable[str]) -> list[str]:
        """All commands that may run when ``names`` are run and ``events`` are fired."""
        reached: dict[str, None] = {}
        waiting = [*names, *(name for event in events for name in self._started_by(event))]
        while waiting:
            name = waiting.pop()
            if name not in reached:
                reached[name] = None
                for outcome in _OUTCOMES:
                    waiting += self._started_by(f"command_{outcome}:{name}")
        return list(reached)

    def listing(self) -> str:
        """One aligned line a command: its name, its triggers, what cancels it."""
        width = max(len(command.name) for command in self.runner.commands)
        lines = []
        for command in self.runner.commands:
            cancels = f"cancelled by {', '.join(command.cancel_on_triggers)}" if command.cancel_on_triggers else ""
            parts = [part for part in (", ".join(command.triggers), cancels) if part]
            lines.append(f"{command.name:{width}}  {'; '.join(parts)}".rstrip())
        return "\n".join(lines)

    def listing_json(self) -> str:
        """The same, with the shell command, as a JSON array."""
        keys = ("name", "command", "triggers", "cancel_on_triggers")
        table = [{key: getattr(command, key) for key in keys} for command in self.runner.commands]
        return json.dumps(table, indent=2, ensure_ascii=False)


def _hint(word: str, known: Iterable[str]) -> str:
    near = nearest(word, known)
    return f". Did you mean {near!r}?" if near else ". `cmdorc list` shows what there is"

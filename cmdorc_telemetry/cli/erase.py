"""``erase``: asks again who has not confirmed that this install, or one before it, is erased; or gives that up.

Every other command asks again, too, once its own work is done: that is ``Retry``.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress

import click

from ..errors import ConfigError, TelemetryError
from ..home import Home
from .machine import Machine
from .wording import application, clean, command_line

RETRY_SECONDS = 2.0
"""How long a command stays for the answers when its own work is done."""
_NOTHING = "Nothing is left to be erased."
ASK_THEMSELVES = ("opt-out", "reset-id", "erase")
"""Commands whose own work it is to ask."""


@click.command()
@click.option("--forget", is_flag=True, help="Ask nobody any more, and drop the ids that were kept for it.")
def erase(forget: bool) -> None:
    """Ask again the servers that did not confirm an erasure.

    What opt-out and reset-id ask for is kept until each server has confirmed it: the id, and where. Any command asks
    again; this one has more patience, and says what came of it.

    \b
    Exit code:
      0    nothing is left to be erased, or it was given up
      1    a server did not confirm
      130  ended by Ctrl-C
    """
    from .. import erasure
    from .erasure import ERASE_SECONDS, told

    home = Home.of(application())
    if forget:
        dropped = erasure.forget(home)
        click.echo("Dropped. Nobody is asked any more." if dropped else _NOTHING)
        return
    if not erasure.load_owed(home):
        click.echo(_NOTHING)
        click.echo(f"To stop, and have this install erased: {command_line('opt-out')}", err=True)
        return
    code = told(Machine(), ERASE_SECONDS)
    if code == 0:
        click.echo(_NOTHING)
    click.get_current_context().exit(code)


class Retry:
    """Asks again behind a command that has done its own work; the answers go to standard error."""

    def __init__(self, ctx: click.Context) -> None:
        self._ctx = ctx
        self._lines: list[str] = []

    @classmethod
    def after(cls, ctx: click.Context) -> None:
        """Ask again when ``ctx`` is closed, if there is anybody to ask: that costs one look at the disk."""
        with suppress(TelemetryError, OSError):
            if ctx.invoked_subcommand not in ASK_THEMSELVES and Home.of(application()).erasure.exists():
                ctx.call_on_close(cls(ctx)._run)

    def _run(self) -> None:
        """On a thread, which is left behind where it takes too long: not even its imports hold up anybody."""
        thread = threading.Thread(target=self._asked, name="erase", daemon=True)
        thread.start()
        with suppress(KeyboardInterrupt):  # the command has done what it was to do
            thread.join(RETRY_SECONDS + 0.1)
        for line in dict.fromkeys(self._lines):
            click.echo(clean(line), err=True)

    def _asked(self) -> None:
        from .erasure import ask

        log, silent = logging.getLogger("cmdorc_telemetry"), logging.NullHandler()
        log.addHandler(silent)  # what is wrong with plugins was said by the command, or is none of its business
        try:
            with self._ctx.scope(cleanup=False):
                answers = ask(Machine(), RETRY_SECONDS)
                self._lines += [str(answer) for answer in answers if answer.done]
                left = sorted({answer.name for answer in answers if not answer.done})
                if left and self._ctx.invoked_subcommand != "status":  # which shows it
                    self._lines.append(f"{', '.join(left)}: not erased yet. {command_line('erase')} says why.")
        except ConfigError:
            pass  # what the command says, too
        except TelemetryError as fault:
            self._lines.append(f"error: {fault}")
        finally:
            log.removeHandler(silent)

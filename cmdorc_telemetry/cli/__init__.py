"""The command group ``telemetry``, for cmdorc and for any other application: what it is made of is in a file each.

cmdorc's is public to ``cmdorc-cli`` alone, which mounts it; others get theirs from ``Application.commands``. Says what
went wrong in one line; exit code 2 for wrong input or
configuration, 1 for a failure. Whatever is heavy is imported inside the commands, so that help comes at once.
"""

from __future__ import annotations

import errno
import logging
from typing import Any, NoReturn

import click

from .. import __version__
from ..application import CMDORC, Application
from ..errors import ConfigError, TelemetryError
from . import (
    audit,
    counts,
    createspec,
    deadletters,
    erase,
    execute,
    flush,
    newplugin,
    optin,
    optout,
    payload,
    plugins,
    resetid,
    review,
    specs,
    stats,
    status,
    view,
)
from .wording import clean, place

__all__ = ["group", "telemetry"]

_SPEAK_FOR_THEMSELVES = ("status", "plugins")
"""Commands that show what is wrong with plugins in their own output."""


class _Group(click.Group):
    """Turns what a command raises into one line and an exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigError as fault:
            _end(ctx, fault, 2)
        except TelemetryError as fault:
            _end(ctx, fault, 1)
        except OSError as fault:
            if fault.errno == errno.EPIPE:  # whoever read our output is gone: click knows what to do
                raise
            _end(ctx, fault, 1)


def _end(ctx: click.Context, fault: Exception, code: int) -> NoReturn:
    click.echo(f"error: {place(clean(str(fault)))}", err=True)
    ctx.exit(code)


class _Warnings(logging.Handler):
    """Shows what the core warns of."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"warning: {place(clean(record.getMessage()))}", err=True)


def group(application: Application) -> click.Group:
    """The commands for the home of ``application``, to be mounted in its command line."""

    @click.group("telemetry", cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
    @click.version_option(__version__, prog_name="cmdorc-telemetry")
    @click.pass_context
    def made(ctx: click.Context) -> None:
        ctx.obj = application
        _prepare(ctx)

    runs = "your runs" if application.is_cmdorc else f"your use of {application.name}"
    made.help = f"See, decide and use what is recorded about {runs}. Off until you say yes."
    for command in (*_COMMANDS, *(_OF_CMDORC if application.is_cmdorc else (counts.counts,))):
        made.add_command(command)
    return made


def _prepare(ctx: click.Context) -> None:
    """What every command needs; what it leaves behind ends with ``ctx``."""
    erase.Retry.after(ctx)
    handler = logging.NullHandler() if ctx.invoked_subcommand in _SPEAK_FOR_THEMSELVES else _Warnings(logging.WARNING)
    log = logging.getLogger("cmdorc_telemetry")
    log.addHandler(handler)
    ctx.call_on_close(lambda: log.removeHandler(handler))


_COMMANDS = (
    status.status, optin.opt_in, review.review, optout.opt_out, payload.show_payload, audit.audit, flush.flush,
    deadletters.dead_letters, plugins.plugins, plugins.enable, plugins.disable,
    resetid.reset_id, erase.erase, view.view, createspec.create_spec, specs.spec,
)  # fmt: skip
_OF_CMDORC = (stats.stats, execute.execute, newplugin.new_plugin)
telemetry = group(CMDORC)

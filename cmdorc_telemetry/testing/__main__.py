"""The servers as processes of their own: ``python -m cmdorc_telemetry.testing``, and ``… collector``.

Their first line of output says where they listen. Each line of input of the fault-injecting server says what goes
wrong from then on; it ends with its input, and prints what it did. The collector ends when it is told to.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import click
from click.core import ParameterSource

from ..errors import TelemetryError
from .collector import Collector
from .faults import FAULTS, randomly
from .messages import Answer, Forward, Request
from .script import Faults
from .server import FaultServer

_port = click.option("--port", default=0, show_default=True, type=click.IntRange(0, 65535), help="0 for a free one.")
_fail = click.option("--fail", "faults", default="", metavar="FAULTS", help="What goes wrong at first.")


@click.group(invoke_without_command=True)
@_port
@click.option("--tls", is_flag=True, help="Speak TLS; the second line of output is the file of its authority.")
@click.option("--forward", metavar="URL", help="Pass requests on to this server instead of keeping them in memory.")
@_fail
@click.option("--list", "listing", is_flag=True, help="Print every fault and what it does.")
@click.pass_context
def main(ctx: click.Context, port: int, tls: bool, forward: str | None, faults: str, listing: bool) -> None:
    """A server on loopback that fails as it is told; or, as a command, one that checks events against their spec.

    FAULTS, here and in each line of input: a name, for every request; several with commas, one a request; random=SEED;
    or nothing.
    """
    if ctx.invoked_subcommand is not None:
        given = [name for name in ctx.params if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE]
        if given:
            raise click.UsageError(f"options of {ctx.invoked_subcommand} go behind it; found {', '.join(given)} before")
        return
    if listing:
        for fault in FAULTS.values():
            click.echo(f"{fault.name:<24}{fault.what}")
        return
    answer: Callable[[Request], Answer] | None = Forward(forward) if forward else None
    try:
        server = FaultServer(faults=_faults(faults), answer=answer, tls=tls, port=port)
        with server:
            click.echo(f"listening on {server.endpoint}")
            if tls:
                click.echo(str(server.authority))
            sys.stdout.flush()
            for line in sys.stdin:
                server.fail(_faults(line.strip()))
                click.echo(f"failing: {line.strip() or 'no'}")
                sys.stdout.flush()
    except ValueError as fault:
        raise click.UsageError(str(fault)) from None
    except OSError as fault:
        raise click.UsageError(str(fault.strerror)) from None
    click.echo(
        json.dumps({"seen": len(server.seen), "stored": len(server.receiver.stored), "injected": server.injected})
    )


@main.command()
@click.argument("specs", nargs=-1, metavar="[SPEC]...", type=click.Path(path_type=Path))
@_port
@_fail
@click.option("--fail-on-bad", is_flag=True, help="End with exit code 1 where a bad event came since the last reset.")
@click.option("--accept-private", is_flag=True, help="Private properties are good, as on a server of one's own.")
@click.option("--keep", default=10_000, show_default=True, type=click.IntRange(1), metavar="N",
              help="The last N good and the last N bad events; all are counted.")  # fmt: skip
def collector(
    specs: tuple[Path, ...], port: int, faults: str, fail_on_bad: bool, accept_private: bool, keep: int
) -> None:
    """Take events on loopback and say which are good by the spec files SPEC, and which are bad, and why.

    Ends on SIGTERM or SIGINT, with a line of counts on stdout and what was bad on stderr. Until then ask it: GET /,
    GET /good, GET /bad (each also with ?event=NAME), GET /counts, POST /reset.
    """
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    try:
        server = Collector(*specs, keep=keep, accept_private=accept_private, faults=_faults(faults), port=port)
        with server:
            click.echo(f"listening on {server.endpoint}")
            sys.stdout.flush()
            ended.wait()
    except (ValueError, TelemetryError) as fault:
        raise click.UsageError(str(fault)) from None
    except OSError as fault:
        raise click.UsageError(str(fault.strerror)) from None
    click.echo(json.dumps(server.counts))
    if server.counts["bad"]:
        click.echo(server.report(), err=True, nl=False)
    click.get_current_context().exit(int(fail_on_bad and server.counts["bad"] > 0))


def _faults(text: str) -> Faults:
    if text.startswith("random="):
        return randomly(int(text.partition("=")[2]))
    return text.split(",") if "," in text else text or None


if __name__ == "__main__":  # pragma: no branch - nobody imports it
    main(prog_name="python -m cmdorc_telemetry.testing")

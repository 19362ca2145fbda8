"""The fault-injecting server as a process of its own: ``python -m cmdorc_telemetry.testing``.

Its first line of output says where it listens. Each line of its input says what goes wrong from then on; it ends with
its input, and prints what it did.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import click

from .faults import FAULTS, randomly
from .messages import Answer, Forward, Request
from .script import Faults
from .server import FaultServer


@click.command()
@click.option("--port", default=0, show_default=True, type=click.IntRange(0, 65535), help="0 for a free one.")
@click.option("--tls", is_flag=True, help="Speak TLS; the second line of output is the file of its authority.")
@click.option("--forward", metavar="URL", help="Pass requests on to this server instead of keeping them in memory.")
@click.option("--fail", "faults", default="", metavar="FAULTS", help="What goes wrong at first.")
@click.option("--list", "listing", is_flag=True, help="Print every fault and what it does.")
def main(port: int, tls: bool, forward: str | None, faults: str, listing: bool) -> None:
    """A server on loopback that fails as it is told.

    FAULTS, here and in each line of input: a name, for every request; several with commas, one a request; random=SEED;
    or nothing.
    """
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
    click.echo(
        json.dumps({"seen": len(server.seen), "stored": len(server.receiver.stored), "injected": server.injected})
    )


def _faults(text: str) -> Faults:
    if text.startswith("random="):
        return randomly(int(text.partition("=")[2]))
    return text.split(",") if "," in text else text or None


if __name__ == "__main__":  # pragma: no branch - nobody imports it
    main()

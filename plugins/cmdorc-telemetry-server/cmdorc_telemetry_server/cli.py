"""The command ``cmdorc-telemetry-server``: reads arguments, calls the rest, prints."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from cmdorc_telemetry import clock
from cmdorc_telemetry.errors import ConfigError, TelemetryError
from cmdorc_telemetry.spec import BASE, TelemetryRegistry, load_spec

from . import __version__
from .policy import load_policy
from .retention import purge as purge_store
from .settings import Settings
from .sqlite import SQLiteStore

if TYPE_CHECKING:
    from .store import Stored


def _store_path(ctx: click.Context, param: click.Parameter, value: str) -> Path:
    """``sqlite:///relative``, ``sqlite:////absolute``, or a plain path."""
    scheme, mark, rest = value.partition("://")
    if not mark:
        return Path(value).expanduser()
    if scheme != "sqlite" or not rest.startswith("/") or rest == "/":
        raise click.BadParameter(
            f"{value!r} is no store; expected sqlite:///PATH (four slashes where PATH is absolute) or a path"
        )
    return Path(rest[1:]).expanduser()


def _store_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--store", callback=_store_path, default="cmdorc-telemetry.db", show_default=True, metavar="STORE",
        help="sqlite:///PATH or a path.",
    )(command)  # fmt: skip


def _spec_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--spec", "specs", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
        help="A further spec in TOML; repeat for more. cmdorc's own is always there.",
    )(command)  # fmt: skip


def _registry(specs: tuple[Path, ...]) -> TelemetryRegistry:
    registry = TelemetryRegistry.with_core()
    for path in specs:
        registry.register(load_spec(path), str(path))
    return registry


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="cmdorc-telemetry-server")
def cli() -> None:
    """Receive telemetry reports, keep them, answer with a percentile."""


@cli.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 for a free one.")
@_store_option
@click.option("--k", default=10, show_default=True, type=click.IntRange(1),
              help="The smallest number of installs that a percentile is computed over.")  # fmt: skip
@click.option("--accept-private", is_flag=True, help="Accept private properties: for a server of your own alone.")
@click.option("--rate-limit", default=6000, show_default=True, type=click.IntRange(0), metavar="N",
              help="Events a minute and install; 0 for no limit.")  # fmt: skip
@click.option("--policy", type=click.Path(path_type=Path), metavar="FILE", help="TOML: what you want less of.")
@_spec_option
def serve(
    host: str, port: int, store: Path, k: int, accept_private: bool, rate_limit: int, policy: Path | None,
    specs: tuple[Path, ...],
) -> None:  # fmt: skip
    """Serve until interrupted. The first line of output says where: listening on URL."""
    from . import serving
    from .api import create_app

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    registry = _registry(specs)
    settings = Settings(k=k, accept_private=accept_private, rate_limit=rate_limit, registry=registry,
                        policy=load_policy(policy, registry) if policy is not None else {})  # fmt: skip

    async def run() -> None:
        keeper = SQLiteStore(store)
        await keeper.open()
        try:
            with serving.listen(host, port) as listener:
                if not serving.is_local(listener):
                    click.echo("others can reach this address; clients want a TLS proxy before it", err=True)
                ready = f"listening on {serving.url(listener)}"
                server = serving.Server(create_app(settings, keeper), lambda: click.echo(ready))
                serving.end_quietly()
                await server.serve([listener])
        finally:
            await keeper.close()

    asyncio.run(run())


@cli.command()
@_store_option
@click.argument("file", type=click.Path(path_type=Path))
def backup(store: Path, file: Path) -> None:
    """Copy the store into FILE, which must not exist. Safe while the server runs."""
    SQLiteStore(store).backup(file)
    click.echo(f"backed up to {file}")


@cli.command()
@_store_option
@_spec_option
def purge(store: Path, specs: tuple[Path, ...]) -> None:
    """Delete events that were kept as long as their spec allows. The server does so by itself every day."""

    async def run() -> int:
        keeper = SQLiteStore(store)
        await keeper.open()
        try:
            return await purge_store(keeper, _registry(specs), clock.wall())
        finally:
            await keeper.close()

    if not store.is_file():
        raise ConfigError("--store", str(store), "there is no store")
    click.echo(f"deleted {asyncio.run(run())} events")


@cli.command()
@_store_option
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), metavar="N", help="The newest N.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array, one row a line.")
def rows(store: Path, limit: int, as_json: bool) -> None:
    """List stored events, oldest first."""

    async def read() -> tuple[list[Stored], int, int]:
        keeper = SQLiteStore(store)
        lost = sum(sum(drops.counts.values()) for drops in await keeper.drops())
        total = sum((await keeper.aggregate()).values())
        return [row async for row in keeper.export(limit)], total, lost

    found, total, lost = asyncio.run(read())
    bodies = [msgspec.json.decode(row.body) for row in found]
    if as_json:
        lines = [
            json.dumps({"received": clock.iso(row.received), "body": body})
            for row, body in zip(found, bodies, strict=True)
        ]
        click.echo("[" + ",\n ".join(lines) + "]")
        return
    shown = f", the newest {len(found)} of them here" if len(found) < total else ""
    click.echo(f"{total} events stored{shown}; clients say they dropped {lost}")
    for row, body in zip(found, bodies, strict=True):
        # json.dumps keeps control characters of private values off the terminal.
        own = " ".join(f"{name}={json.dumps(value)}" for name, value in body.items() if name not in BASE)
        level = body.get("level", "private")
        click.echo(f"{clock.iso(row.received)}  {row.install[:8]}  {row.event:<20}  {level:<8}  {own}".rstrip())


def main() -> None:
    """Run the command; what was wrong with the arguments is one line on stderr and exit code 2."""
    try:
        sys.exit(cli(standalone_mode=False))
    except click.ClickException as fault:
        click.echo(f"Error: {fault.format_message()}", err=True)
        sys.exit(2)
    except TelemetryError as fault:
        click.echo(f"Error: {fault}", err=True)
        sys.exit(2)
    except click.Abort:
        sys.exit(130)

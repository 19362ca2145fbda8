"""What commands work with: this machine's decision, its plugins, the stages behind the journal; made when asked for."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..config import ADDRESS, DestinationConfig, Layer, load_layer
from ..errors import ConfigError, SpecError
from ..home import Home
from ..situation import Situation
from .wording import address, application, command_line, place

if TYPE_CHECKING:
    from ..pipeline import Pipeline
    from ..plugins import PluginHost
    from ..spool import Spool

log = logging.getLogger("cmdorc_telemetry")

HISTORY_SECONDS = 30.0
"""How long to wait for the history, which another process may be writing."""

config_option = click.option(
    "-c", "--config", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE",
    help="The project's TOML file; otherwise the one that is found in this directory.",
)  # fmt: skip


class Unread(NamedTuple):
    """Journal segments with something that is not imported yet, and how far each was read."""

    left: list[tuple[Path, int]]
    """Of processes that are gone."""
    live: list[tuple[Path, int]]


class Machine:
    """Raises ConfigError for the user's (or an operator's) file."""

    def __init__(self, *, project: Layer | None = None, own: bool = False) -> None:
        """``own``: the user's own file counts, whatever an operator's variable names, and what a project adds is asked
        for, too."""
        self.application, self.own = application(), own
        hidden = self.application.config_variable if own else ""
        environ = {key: value for key, value in os.environ.items() if key != hidden}
        self.situation = Situation.read(environ, application=self.application, project=project)
        self.home: Home = self.situation.home

    @cached_property
    def host(self) -> PluginHost:
        """The enabled plugins."""
        from ..plugins import PluginHost

        user = self.situation.user
        return PluginHost(user.plugins, destinations=[to.plugin for to in user.destinations])

    @cached_property
    def pipeline(self) -> Pipeline:
        """The stages. To make it writes nothing."""
        from ..pipeline import Pipeline

        return Pipeline(self.situation, self.host)

    def bear(self) -> None:
        """Go on where a spec file of the user's is broken: without all of these, and with nothing recorded or sent.

        So it is for programs, too. Raises SpecError where it is the application's own.
        """
        try:
            self.pipeline  # noqa: B018 - made here, or not at all
        except SpecError as fault:
            situation = self.situation
            self.situation = situation._replace(
                user=situation.user._replace(specs=()),
                other=None if situation.other is None else situation.other._replace(specs=()),
                trouble=situation.trouble or f"{fault}. Nothing is recorded or sent until it is right",
            )
            self.pipeline  # noqa: B018 - likewise

    @property
    def recording(self) -> bool:
        """Whether programs on this machine record; a project's file may switch it off for its own."""
        return self.situation.policy(layered=False).record

    @property
    def trouble(self) -> str:
        """Why the decision cannot be used, in words; mostly empty."""
        return self.situation.policy(layered=False).trouble

    @cached_property
    def usual_event(self) -> str:
        """The event that stands for all of them where none is named. Raises ConfigError where there is none."""
        spec = self.pipeline.registry.get(self.application.spec)
        events = sorted(spec.events if spec else (), key=lambda event: not event.shared_at("debug"))
        if not events:
            raise ConfigError(self.application.spec, "events", "it declares none")
        return "command_completed" if self.application.is_cmdorc else events[0].name

    # -- what was recorded --------------------------------------------------------------------------------------

    def peek(self) -> Spool | None:
        """The spool as it is, for reading alone; None where there is none. Raises StorageError."""
        from ..spool import Spool

        return Spool(self.home.spool, reading=True) if self.home.spool.exists() else None

    @contextmanager
    def spool(self) -> Iterator[Spool]:
        """The spool, with every segment in it whose lock can be had. Only where this machine records."""
        spool = self.pipeline.open_spool()
        try:
            self.pipeline.pump(spool)
            yield spool
        finally:
            spool.close()

    def fill_history(self, spool: Spool) -> None:
        """Bring the history up to date; say so where that cannot be done now."""
        import asyncio

        from .. import files
        from ..delivery import Worker
        from ..history import NAME

        files.own_dir(self.home.locks)
        worker = Worker(self.pipeline.routes()[0], spool, self.home.locks)

        async def drain() -> None:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(worker.drain(), HISTORY_SECONDS)
            await worker.close()

        asyncio.run(drain())
        ledger = spool.ledger()[NAME]
        if ledger.pending:
            log.warning("the history lacks %d events. %s", ledger.pending, ledger.last_error)

    def segments(self, spool: Spool | None) -> Unread:
        """Segments with something that is not imported yet."""
        from .. import files
        from ..segment import HEADER, segments

        found = Unread([], [])
        for path in segments(self.home.journal):
            read = 0 if spool is None else spool.offset(path.name)
            try:
                if read is None or path.stat().st_size <= max(read, HEADER):
                    continue
                fd = os.open(path, os.O_RDONLY)
            except OSError:  # imported this moment
                continue
            try:
                left = files.lock_fd(fd, wait=False)
            except OSError:  # no locks here: nobody can tell
                continue
            finally:
                os.close(fd)
            (found.left if left else found.live).append((path, max(read, HEADER)))
        return found

    # -- destinations -----------------------------------------------------------------------------------------

    @cached_property
    def missing(self) -> dict[str, tuple[str, str]]:
        """Destinations whose reporter is not there → what its plugin lacks, and a line to copy, if one helps."""
        return {name: self._lack(name, fix) for name, fix in self.pipeline.missing().items()}

    def _lack(self, name: str, fix: str) -> tuple[str, str]:
        from ..discovery import installed

        plugin = next(to.plugin for to in self.pipeline.configured if to.name == name)
        if plugin not in [point.name for point in installed()]:
            return f"plugin {plugin} is not installed", fix
        if plugin not in self.situation.user.plugins:
            return f"plugin {plugin} is not enabled", command_line("enable", plugin)
        return f"plugin {plugin} is broken, or has no reporter {plugin}", command_line("plugins")

    @cached_property
    def unplaced(self) -> dict[str, str]:
        """Enabled reporters without a destination, since they need to be told where it is → what to do about it."""
        from msgspec.structs import fields

        user, served = self.situation.user, {to.plugin for to in self.pipeline.configured}
        found = {}
        for name, class_ in self.pipeline.classes.items():
            if name in user.plugins and name not in served:
                keys = [each.encode_name for each in fields(class_.Settings) if each.required]
                needs = f"set {' and '.join(keys) or 'it up'} in [telemetry.to.{name}] of {place(str(user.source))}"
                found[name] = f"{name} has no destination: {needs}"
        return found

    def settings(self, to: DestinationConfig) -> Any:
        """What the reporter of a destination is made with; None where it is not there. Raises ConfigError."""
        from ..decoding import decode

        class_ = self.pipeline.classes.get(to.plugin)
        if class_ is None:
            return None
        return decode(to.resolved(self.situation.environ), class_.Settings, to.where, key=f"telemetry.to.{to.name}")

    def fault(self, to: DestinationConfig) -> ConfigError | None:
        """What is wrong with the settings of a destination; None also where its reporter is not there."""
        try:
            self.settings(to)
        except ConfigError as fault:
            return fault
        return None

    def target(self, to: DestinationConfig) -> str:
        """Where a destination is, and whose there, in words without secrets; a variable's name with its ``$``.

        What its reporter does where nothing is written is an address, too.
        """
        settings = None if self.fault(to) else self.settings(to)
        found = {key: getattr(settings, key, None) for key in ADDRESS}
        found.update({key: to.settings[key] for key in ADDRESS if key in to.settings})
        found.update({key: f"${to.settings[f'{key}_env']}" for key in ADDRESS if f"{key}_env" in to.settings})
        return " ".join((*_places(**found), *to.account))


def _places(endpoint: Any, url: Any, path: Any, host: Any, port: Any) -> Iterator[str]:
    """Where these settings of a destination lead."""
    if endpoint or url:
        yield address(str(endpoint or url))
        return
    if path:
        yield str(path)
    if host and port:
        yield f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    elif host and not path:
        yield address(str(host))


def project_layer(config: Path | None) -> tuple[Layer | None, str]:
    """The ``[telemetry]`` table of the project's file, and what is wrong with it where nobody named it.

    Raises ConfigError for a file that was named. One that was found and is wrong counts as off: so it does to
    programs.
    """
    if config is not None:
        return load_layer(config), ""
    path = next((Path(name) for name in application().project_files if Path(name).is_file()), None)
    if path is None or _is_users(path):
        return None, ""
    try:
        layer = load_layer(path)
    except ConfigError as fault:
        return Layer(source=path, enabled=False, asks=True), str(fault)
    return (layer if layer.asks else None), ""


def _is_users(path: Path) -> bool:
    own = Home.of(application()).config
    return own.exists() and own.samefile(path)

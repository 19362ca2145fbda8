"""Instruments every orchestrator of a program that knows nothing of telemetry: what ``exec`` does inside of it.

``preload/sitecustomize.py`` calls ``prepare`` as soon as a module of cmdorc is loaded in which something is to be
followed, before anybody uses it, however it was imported, and again when it is reloaded. Only classes are touched here
that make something new: what is wrapped of an orchestrator is up to ``instrumentation``.

Such a program gives no configuration, so the project's file is the one that cmdorc loaded. Often it shuts nothing down
either: orchestrators that it drops end with the next one that it makes, all others with the process.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import logging
import os
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from . import clock
from .argument import TelemetryConfig, project_config
from .config import Layer, load_layer
from .errors import ConfigError, told
from .telemetry import Telemetry

if TYPE_CHECKING:
    from .lifecycle import Session
    from .reporter import TelemetryReporter
    from .watch import Watch

_log = logging.getLogger("cmdorc_telemetry")


def prepare(module: Any) -> None:
    """Have every orchestrator that is made of ``module`` from now on instrumented when it is made.

    What ``module`` loads configurations with is remembered. It is ``cmdorc.command_orchestrator``, or
    ``cmdorc.load_config``.
    """
    program = _program()
    if hasattr(module, "CommandOrchestrator"):
        program.follow(module.CommandOrchestrator)
    if hasattr(module, "load_configs"):
        load = module.load_configs
        module.load_configs = program.remembering(load)
        package: Any = sys.modules.get("cmdorc")
        if getattr(package, "load_configs", None) is load:  # it was imported before anybody could wait for it
            package.load_configs = module.load_configs


@functools.cache
def _program() -> Program:
    """The program that runs here."""
    _log.addHandler(logging.NullHandler())  # or Python would print warnings: the terminal is the program's,
    _log.propagate = False  # and so are its handlers
    program = Program()
    atexit.register(program.end)
    if hasattr(os, "register_at_fork"):  # pragma: no branch - but on Windows
        os.register_at_fork(before=program.speak)
    return program


class Program:
    """What there is of orchestrators in this process, and which files they are of."""

    def __init__(self) -> None:
        self._loaded: dict[int, tuple[weakref.ref[Any], Layer | None]] = {}
        """The configurations that cmdorc loaded, by their identity, and what the files they came from lower."""
        self._all: Layer | None = None
        """What all of these files lower together. A program may load many, and delete each when it has loaded it."""
        self._making: dict[int, object] = {}
        """The configurations of the orchestrators that are being made, by the identity of these."""
        self._wrappers: weakref.WeakSet[Callable[..., None]] = weakref.WeakSet()
        """The ``__init__`` that were made here."""
        self._open: dict[int, Unasked] = {}
        self._dropped: deque[int] = deque()
        """Of ``_open``: orchestrators that are gone. Filled by the garbage collector, which does nothing else."""

    # -- configurations ----------------------------------------------------------------------------------------------

    def remembering(self, load: Callable[..., Any]) -> Callable[..., Any]:
        """cmdorc's ``load_configs``; what is lowered by what it was asked to load is remembered."""

        @functools.wraps(load)
        def load_configs(paths: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(paths, Iterator):  # to be had once
                paths = list(paths)
            made = load(paths, *args, **kwargs)
            try:
                self._remember(made, _read(list(_files(paths))))
            except Exception as fault:
                _log.warning("a configuration goes without telemetry's part of it: %s", told(fault))
            return made

        return load_configs

    def _remember(self, made: object, said: Layer | None) -> None:
        if said is not None:
            self._all = said if self._all is None else _lowest([self._all, said])
        self._loaded[id(made)] = weakref.ref(made, functools.partial(self._forget, id(made))), said

    def _forget(self, key: int, _: object) -> None:
        self._loaded.pop(key, None)

    def config_of(self, runner_config: object) -> TelemetryConfig | None:
        """What the files of a configuration lower; None where there are none. Raises ConfigError.

        A configuration that was put together by the program may be made of any that it loaded: then each lowers.
        """
        known = self._loaded.get(id(runner_config))
        said = self._all if known is None else known[1]
        return None if said is None or said.source is None else project_config(said.source, said)

    # -- orchestrators -----------------------------------------------------------------------------------------------

    def follow(self, class_: Any) -> None:
        """Instrument what is made of ``class_`` and of the classes that will be derived from it, when it is made."""
        class_.__init__ = self._making_of(class_.__init__, base=True)
        program = self

        def __init_subclass__(cls: Any, **options: Any) -> None:  # noqa: N807
            super(class_, cls).__init_subclass__(**options)
            if cls.__init__ not in program._wrappers:  # its own, or that of a class beside
                cls.__init__ = program._making_of(cls.__init__)

        class_.__init_subclass__ = classmethod(cast(Any, __init_subclass__))

    def _making_of(self, init: Callable[..., None], *, base: bool = False) -> Callable[..., None]:
        """An ``__init__``; the outermost one of an orchestrator has it instrumented when it is done."""

        @functools.wraps(init)
        def __init__(orchestrator: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            key = id(orchestrator)
            outermost = key not in self._making
            if base or outermost:
                self._making[key] = (args[0] if args else kwargs.get("runner_config")) if base else None
            try:
                init(orchestrator, *args, **kwargs)
            finally:
                runner_config = self._making.pop(key) if outermost else None
            if outermost:
                self._made(orchestrator, runner_config)

        self._wrappers.add(__init__)
        return __init__

    def _made(self, orchestrator: Any, runner_config: object) -> None:
        """An orchestrator is complete. Whatever goes wrong here is kept from the program."""
        self._sweep()
        try:
            telemetry = self._attach(orchestrator, runner_config)
        except Exception as fault:
            _log.warning("an orchestrator goes without telemetry: %s", told(fault))
            return
        if telemetry is not None:
            self._open[id(telemetry)] = telemetry
            weakref.finalize(orchestrator, self._dropped.append, id(telemetry))

    def _attach(self, orchestrator: Any, runner_config: object) -> Unasked | None:
        from .instrumentation import THIS, TelemetryOrchestrator, attach, attached

        if isinstance(orchestrator, TelemetryOrchestrator) or attached(orchestrator) is not None:
            return None  # it has telemetry of its own
        config = self.config_of(runner_config)
        telemetry = cast(Unasked, Unasked.start(THIS, config=config))
        if not telemetry.listening:
            return None
        watch = attach(orchestrator, telemetry, config)
        if watch is None:
            return None
        telemetry.begin(watch)
        return telemetry

    # -- the end -----------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        """End what belongs to orchestrators that are gone."""
        while True:
            try:
                key = self._dropped.popleft()
            except IndexError:  # and another thread may be at it
                return
            self._end_of(key)

    def speak(self) -> None:
        """There will be a copy of the process: begins that are held back are said before both would say them."""
        for telemetry in list(self._open.values()):
            try:
                telemetry.speak()
            except Exception as fault:
                _log.warning("an orchestrator's begin goes without telemetry: %s", told(fault))

    def end(self) -> None:
        """The process ends."""
        for key in list(self._open):
            self._end_of(key)

    def _end_of(self, key: int) -> None:
        telemetry = self._open.pop(key, None)
        try:
            if telemetry is not None:
                telemetry.end()
        except Exception as fault:
            _log.warning("an orchestrator's end goes without telemetry: %s", told(fault))


class Unasked(Telemetry):
    """The telemetry of an orchestrator whose program did not ask for it; it may still do so.

    The begin is held back until something else happens, or for one tick of the loop: a program that instruments what
    it just made, with a configuration of its own, has the first word.
    """

    def __init__(self) -> None:
        super().__init__()
        self._watch: Callable[[], Watch | None] = lambda: None
        self._begin: Session | None = None
        """What is held back."""
        self._last: Session | None = None
        """The session as it was when it began; None when it is over."""
        self._process, self._began = os.getpid(), clock.monotonic()

    def begin(self, watch: Watch) -> None:
        """Say soon that ``watch`` began."""
        self._watch = weakref.ref(watch)
        try:
            asyncio.get_running_loop().call_soon(self.speak)
        except RuntimeError:  # no loop runs here yet
            return

    def fire(self, hook: str, record: object) -> None:
        """Like any other, after what was held back."""
        if hook == "cmdorc_startup":
            self._begin = self._last = record  # type: ignore[assignment]
            return
        self.speak()
        if hook == "cmdorc_shutdown":
            self._last = None
        super().fire(hook, record)

    def speak(self) -> None:
        """Say that it began, if that was not said."""
        begin, self._begin = self._begin, None
        if begin is not None:
            super().fire("cmdorc_startup", begin)

    def settle(
        self, config: TelemetryConfig | None, plugins: Sequence[object], reporters: Sequence[TelemetryReporter]
    ) -> None:  # fmt: skip
        """The program asks for telemetry itself now: what it says holds from here on, and warnings are for it."""
        _log.propagate = True
        if config is None and not plugins and not reporters:
            return
        from .instrumentation import THIS

        super().close()
        asked = Telemetry.start(THIS, config=config, plugins=plugins, reporters=reporters)
        vars(self).update(vars(asked))

    def end(self) -> None:
        """The orchestrator is gone, or the process is about to be, and nobody shut it down."""
        if os.getpid() != self._process:
            return  # a copy, in a child: the original says it
        watch, last = self._watch(), self._last
        if watch is not None and not watch.stopping:
            watch.stopping = True
            watch.stop()
        elif last is not None:
            from msgspec import structs

            self.fire("cmdorc_shutdown", structs.replace(last, uptime=clock.monotonic() - self._began))
        self.close()


def _files(given: Iterable[Any]) -> Iterable[Path]:
    """The paths of what cmdorc was told to load: paths, or files that are open."""
    for each in given:
        name = getattr(each, "name", None) if hasattr(each, "read") else each
        if isinstance(name, str | os.PathLike):
            yield Path(os.path.abspath(name))


def _read(files: Sequence[Path]) -> Layer | None:
    """What all of ``files`` lower together: everything, where one cannot be read. None where there are none."""
    try:
        return _lowest([load_layer(path) for path in files]) if files else None
    except ConfigError as fault:
        _log.warning("telemetry is off: %s", fault)
        return Layer(source=files[0], enabled=False)


def _lowest(layers: Sequence[Layer]) -> Layer:
    """What all of ``layers`` lower together."""
    said = [layer.level for layer in layers if layer.level is not None]
    lowest: Layer = layers[0]._replace(
        enabled=False if any(layer.enabled is False for layer in layers) else layers[0].enabled,
        level=min(said, default=None),
        specs=tuple(dict.fromkeys(spec for layer in layers for spec in layer.specs)),
    )
    return lowest

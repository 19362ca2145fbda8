"""Lets a cmdorc orchestrator be observed: the only file that imports cmdorc.

Owns which of its methods are wrapped, and whether it is a cmdorc that is known well enough for that. What is made of
the calls, and when a run counts as over, is in ``watch``; what becomes of the records is up to ``fire``.

Wrapped are instances, never classes, and only where somebody listens: ``trigger`` and ``shutdown`` of the
orchestrator; ``start_run``, ``cancel_run`` and ``cleanup`` of its executor; the ``mark_*`` methods of a result while
its run is live, and ``cleanup`` of its handle where somebody listens to chains. No task is made and no handle awaited:
awaiting one can kill cmdorc's own monitor.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import cmdorc

from .application import CMDORC
from .errors import told
from .telemetry import Telemetry

if TYPE_CHECKING:
    from msgspec import Struct

    from .argument import TelemetryConfig
    from .lifecycle import Session
    from .reporter import TelemetryReporter
    from .watch import Watch

_log = logging.getLogger("cmdorc_telemetry")
_MARKER = "_cmdorc_telemetry"
_VERSION: str = getattr(cmdorc, "__version__", "")
THIS = CMDORC._replace(version=_VERSION)
"""cmdorc, of the version that runs here."""


def instrument(
    orchestrator: cmdorc.CommandOrchestrator,
    *,
    config: TelemetryConfig | None = None,
    plugins: Sequence[object] = (),
) -> Telemetry:
    """Report what ``orchestrator`` does to the lifecycle hooks, until it is shut down.

    ``config`` can only lower what the user allowed. ``plugins`` are pluggy plugin objects beside the installed ones:
    their lifecycle hooks run whether or not telemetry is on. Where nobody listens, nothing is wrapped. A second call
    for the same orchestrator changes nothing and returns the first Telemetry. A cmdorc of unknown shape is left
    alone, with a warning; the Telemetry is then off.
    """
    return _attach(orchestrator, config, plugins, None)


class TelemetryOrchestrator(cmdorc.CommandOrchestrator):
    """A ``CommandOrchestrator`` that was instrumented when it was made."""

    telemetry: Telemetry

    def __init__(
        self,
        runner_config: cmdorc.RunnerConfig,
        executor: cmdorc.CommandExecutor | None = None,
        *,
        telemetry_reporter: TelemetryReporter | None = None,
        config: TelemetryConfig | None = None,
        plugins: Sequence[object] = (),
    ) -> None:
        """``telemetry_reporter`` lives for this process: it gets shared bodies once the user turned sharing on."""
        super().__init__(runner_config, executor)
        self.telemetry = _attach(self, config, plugins, telemetry_reporter)


def _attach(
    orchestrator: cmdorc.CommandOrchestrator,
    config: TelemetryConfig | None,
    plugins: Sequence[object],
    reporter: TelemetryReporter | None,
) -> Telemetry:
    present, reporters = attached(orchestrator), [] if reporter is None else [reporter]
    if present is not None:
        settle = getattr(present, "settle", None)  # of one that `exec` attached
        if settle is not None:
            settle(config, plugins, reporters)
        return present
    telemetry = Telemetry.start(THIS, config=config, plugins=plugins, reporters=reporters)
    if not telemetry.listening:
        return telemetry
    return Telemetry.off() if attach(orchestrator, telemetry, config) is None else telemetry


def attached(orchestrator: cmdorc.CommandOrchestrator) -> Telemetry | None:
    """What hears of ``orchestrator``; None where nothing does."""
    present: Telemetry | None = getattr(orchestrator, "__dict__", {}).get(_MARKER)
    return present


def attach(
    orchestrator: cmdorc.CommandOrchestrator, telemetry: Telemetry, config: TelemetryConfig | None
) -> Watch | None:
    """Let ``telemetry`` hear of ``orchestrator``, for which it was started. None, and closed, where that cannot be."""
    source = config.source if config is not None else None
    name = source.name if source is not None else None
    chains = telemetry.hears("cmdorc_chain")
    watch = observe(orchestrator, telemetry.fire, config_name=name, farewell=telemetry.aclose, chains=chains)
    if watch is None:
        telemetry.close()
    else:
        setattr(orchestrator, _MARKER, telemetry)
    return watch


def observe(
    orchestrator: cmdorc.CommandOrchestrator,
    fire: Callable[[str, Struct], None],
    *,
    config_name: str | None = None,
    farewell: Callable[[], Awaitable[None]] | None = None,
    chains: bool = False,
) -> Watch | None:
    """Wrap ``orchestrator`` and its executor so that ``fire(hook, record)`` is called for all that they do.

    ``farewell`` is awaited once, at the end of ``shutdown``. ``chains``: whether they are followed, too. None, and
    nothing wrapped, where cmdorc is not as known.
    """
    lacking = _lacking(orchestrator)
    if lacking:
        version = _VERSION or "of unknown version"
        _log.warning("telemetry leaves this orchestrator alone: cmdorc %s has no %s", version, ", ".join(lacking))
        return None
    from .watch import Watch

    watch = Watch(
        fire,
        orchestrator.get_handle_by_run_id,
        functools.partial(_session, orchestrator, config_name),
        leads=functools.partial(_leads, orchestrator) if chains else None,
    )
    _wrap_executor(orchestrator._executor, watch)
    _wrap_orchestrator(orchestrator, watch, farewell)
    watch.start()
    return watch


_NEEDED: Mapping[str, Sequence[str]] = {
    "LocalSubprocessExecutor": (),
    "MockExecutor": (),
    "OrchestratorShutdownError": (),
    "RunHandle": ("cleanup",),
    "ResolvedCommand": ("command", "cwd"),
    "RunResult": (
        *("command_name", "error", "resolved_command", "run_id", "state", "trigger_chain", "trigger_event"),
        *("mark_running", "mark_success", "mark_failed", "mark_cancelled"),
    ),
    "RunState": ("SUCCESS", "FAILED", "CANCELLED"),
    "TriggerContext": ("history", "seen"),
    "TriggerCycleError": (),
}
"""Public names of cmdorc, and what they must have."""
_OF_ORCHESTRATOR = ("_executor", "get_handle_by_run_id", "get_trigger_graph", "list_commands")
_OF_EXECUTOR = ("start_run", "cancel_run", "cleanup")


def _lacking(orchestrator: cmdorc.CommandOrchestrator) -> list[str]:
    """What this module relies on and does not find."""
    executor = getattr(orchestrator, "_executor", None)
    owners: list[tuple[str, object, Sequence[str]]] = [
        ("cmdorc", cmdorc, tuple(_NEEDED)),
        ("orchestrator", orchestrator, _OF_ORCHESTRATOR),
        ("executor", executor, _OF_EXECUTOR),
        *((name, getattr(cmdorc, name, None), needed) for name, needed in _NEEDED.items()),
    ]
    lacking = [
        f"{label}.{name}"
        for label, owner, names in owners
        for name in names
        if not hasattr(owner, name) and name not in getattr(owner, "__dataclass_fields__", ())
    ]
    lacking += [
        f"coroutine orchestrator.{name}"
        for name in ("trigger", "shutdown")
        if not inspect.iscoroutinefunction(getattr(orchestrator, name, None))
    ]
    result: Any = getattr(cmdorc, "RunResult", type(None))
    for target in (orchestrator, executor, result.__new__(result)):
        if not _takes_attributes(target):
            lacking.append(f"room for attributes in {type(target).__name__}")
    return lacking


def _takes_attributes(target: object) -> bool:
    try:
        setattr(target, _MARKER, None)
        taken = _MARKER in vars(target)  # not so in a proxy that hands them on
        delattr(target, _MARKER)
    except Exception:
        return False
    return taken


def _session(orchestrator: cmdorc.CommandOrchestrator, config_name: str | None, watch: Watch, uptime: float) -> Session:
    from .lifecycle import Session

    commands, patterns = orchestrator.list_commands(), sorted(orchestrator.get_trigger_graph())
    # No public method of the orchestrator gives a command's policy.
    find = getattr(getattr(orchestrator, "_runtime", None), "get_command", lambda name: None)
    policies = [getattr(find(name), "on_retrigger", None) for name in commands]
    return Session(
        id=watch.session_id,
        started_at=watch.started_at,
        uptime=uptime,
        command_count=len(commands),
        has_triggers=bool(patterns),
        trigger_count=len(patterns),
        trigger_patterns=tuple(patterns),
        executor_type=_executor_type(orchestrator._executor),
        retrigger_policies=tuple(policy for policy in policies if policy is not None),
        cmdorc_version=_VERSION,
        config_name=config_name,
    )


def _executor_type(executor: object) -> Literal["local_subprocess", "mock", "custom"]:
    if isinstance(executor, cmdorc.LocalSubprocessExecutor):
        return "local_subprocess"
    return "mock" if isinstance(executor, cmdorc.MockExecutor) else "custom"


def _leads(orchestrator: cmdorc.CommandOrchestrator, event: str) -> bool:
    """Whether ``event`` would start a command: cmdorc allows no wildcards there."""
    return event in orchestrator.get_trigger_graph()


def _argument(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str) -> Any:
    """An argument of a wrapped call; None where it was left out."""
    return args[place] if len(args) > place else kwargs.get(name)


def _wrap_executor(executor: cmdorc.CommandExecutor, watch: Watch) -> None:
    """Wrap an executor once, however many orchestrators share it."""
    from .watch import Watches

    present = getattr(vars(executor).get("start_run"), "watches", None)
    if isinstance(present, Watches):
        present.add(watch)
        return
    watches = Watches()
    watches.add(watch)
    start, cancel, clean = executor.start_run, executor.cancel_run, executor.cleanup

    @functools.wraps(start)
    async def start_run(*args: Any, **kwargs: Any) -> Any:
        result = _argument(args, kwargs, 0, "result")
        watches.follow(result)
        try:
            return await start(*args, **kwargs)
        except BaseException:
            watches.unstarted(result)
            raise

    @functools.wraps(cancel)
    async def cancel_run(*args: Any, **kwargs: Any) -> Any:
        with watches.held(_argument(args, kwargs, 0, "result")):
            return await cancel(*args, **kwargs)

    @functools.wraps(clean)
    async def cleanup(*args: Any, **kwargs: Any) -> Any:
        with watches.held():
            return await clean(*args, **kwargs)

    vars(start_run)["watches"] = watches
    for name, wrapper in zip(_OF_EXECUTOR, (start_run, cancel_run, cleanup), strict=True):
        setattr(executor, name, wrapper)


def _wrap_orchestrator(
    orchestrator: cmdorc.CommandOrchestrator, watch: Watch, farewell: Callable[[], Awaitable[None]] | None
) -> None:
    trigger_event, shut_down = orchestrator.trigger, orchestrator.shutdown

    @functools.wraps(trigger_event)
    async def trigger(*args: Any, **kwargs: Any) -> Any:
        event = _argument(args, kwargs, 0, "event_name")
        with watch.trigger(event, _argument(args, kwargs, 1, "context")) as call:
            try:
                return await trigger_event(*args, **kwargs)
            except cmdorc.TriggerCycleError as error:
                if error.event_name == event:  # otherwise a callback called trigger
                    call.outcome = "cycle"
                raise
            except cmdorc.OrchestratorShutdownError:
                call.outcome = "refused"
                raise

    @functools.wraps(shut_down)
    async def shutdown(*args: Any, **kwargs: Any) -> Any:
        first, watch.stopping = not watch.stopping, True
        try:
            return await shut_down(*args, **kwargs)
        finally:
            if first:
                watch.stop()
                # A coroutine that is being destroyed cannot await any more.
                if farewell is not None and sys.exc_info()[0] is not GeneratorExit:
                    try:
                        await farewell()
                    except Exception as fault:
                        _log.warning("telemetry could not be closed: %s", told(fault))

    for name, wrapper in (("trigger", trigger), ("shutdown", shutdown)):
        setattr(orchestrator, name, wrapper)

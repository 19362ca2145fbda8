"""Every error this project raises on purpose.

    TelemetryError
    ├── ConfigError            a configuration file, variable or argument (also a ValueError)
    │   ├── NoHome             there is no home directory, and no variable that names one
    │   └── SpecError          a telemetry spec
    ├── ConsentError           the recorded decision cannot be read or may not be used
    ├── PluginError            an installed plugin that cannot be used
    ├── TelemetryViolation     an event that its spec does not allow, tracked strictly (also a ValueError)
    ├── OperationError         an operation that cannot be run as it was asked to
    │   └── OperationDenied    whoever asked may not
    ├── StorageError           the home directory, journal or spool cannot be used
    └── DeliveryError          raised by a reporter to say what became of a batch
        ├── RetryLater         not now: nothing is lost, the batch comes again
        ├── TooLarge           the batch must be split
        └── Rejected           the receiver will never take this batch

A message says what is wrong, where, and what would be right.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False  # typing takes longer than what `exec` does before it becomes the program
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .results import Violation


class TelemetryError(Exception):
    """The base of all errors of this project."""


class ConfigError(TelemetryError, ValueError):
    """A value that a person wrote cannot be used.

    ``where`` names the file (or variable, or argument), ``key`` the path to the value inside it.
    """

    def __init__(
        self,
        where: object,
        key: str,
        found: str,
        expected: str = "",
        *,
        nearest: str | None = None,
    ) -> None:
        self.where, self.key, self.found, self.expected, self.nearest = str(where), key, found, expected, nearest
        text = ": ".join(part for part in (self.where, key, found) if part)
        if expected:
            text += f"; expected {expected}"
        if nearest:
            text += f". Did you mean {nearest!r}?"
        super().__init__(text)


class NoHome(ConfigError):
    """There is no home directory."""


class SpecError(ConfigError):
    """A telemetry spec breaks a rule of the spec format."""


class ConsentError(TelemetryError):
    """The recorded decision cannot be read, or belongs to somebody else: nothing is shared."""


class PluginError(TelemetryError):
    """A plugin is missing, broken, or offers something else than it was enabled for."""


class TelemetryViolation(TelemetryError, ValueError):
    """An event was tracked strictly, and is not as its spec has it. ``violations`` are all of them."""

    def __init__(self, *violations: Violation) -> None:
        self.violations = violations
        super().__init__("\n".join(map(str, violations)))


class OperationError(TelemetryError):
    """An operation cannot be run: nobody knows it, or its arguments or its result do not fit."""


class OperationDenied(OperationError):
    """Whoever asked for an operation may not."""


class StorageError(TelemetryError):
    """A directory or file of the telemetry home cannot be created, read or written."""


def newer(path: object, found: int, known: int) -> StorageError:
    """What to raise for a file of a later version, which is left as it is."""
    return StorageError(
        f"{path} was made by a newer version of cmdorc-telemetry (schema {found}; known here: {known}). "
        "Upgrade this one, with `pip install --upgrade cmdorc-telemetry`; until then the file stays as it is"
    )


class DeliveryError(TelemetryError):
    """The base of what a reporter raises to say what became of a batch."""


class RetryLater(DeliveryError):
    """The receiver asks to be left alone for a while; ``after`` is in seconds, or None for the usual backoff."""

    def __init__(self, message: str, after: float | None = None) -> None:
        super().__init__(message)
        self.after = after


class TooLarge(DeliveryError):
    """The receiver takes smaller batches only: it is split; one event that is too large is dropped."""


class Rejected(DeliveryError):
    """The receiver understood the batch and will never take it."""


def told(fault: BaseException, *, ours: bool = False) -> str:
    """What a log may say of an exception: its type, and where it was raised.

    What it says itself may hold anything that was passed to who raised it, and logs are read by others. ``ours``: no
    plugin can have raised it; then what was raised on purpose, or by the system, is quoted.
    """
    if ours and isinstance(fault, TelemetryError | OSError):
        return str(fault)
    trace, place = fault.__traceback__, ""
    while trace is not None:
        place = f" at {os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"
        trace = trace.tb_next
    return type(fault).__name__ + place


_KINDS = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "a table"}


def kind(value: object) -> str:
    """What a value that a person wrote is, to be said in its place where it may be a secret."""
    return _KINDS.get(type(value), "a date or time")


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word most like ``word``, in capitals or not, or None where none is similar."""
    import difflib

    words = {each.lower(): each for each in known}
    found = difflib.get_close_matches(word.lower(), words, n=1, cutoff=0.6)
    return words[found[0]] if found else None

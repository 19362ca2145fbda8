"""What is still to be erased elsewhere: ids that this install gave up, and who has not confirmed that they are gone.

Owns ``erasure.toml``, which exists only while somebody is owed an answer. An id in it is nobody's any more: with the
one write that puts it there, ``identity.py`` stops giving it out. Who is asked, how and when is not known here.
"""

# Annotations are evaluated here: as strings they would make each NamedTuple ten times as dear to import.
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from . import files
from .config import read_table
from .errors import ConfigError, StorageError
from .home import Home

log = logging.getLogger("cmdorc_telemetry")


class Owed(NamedTuple):
    """One id that was given up."""

    install_id: str
    generation: str = ""
    """The decision under which it was last used: while something recorded under it may be sent, nobody is asked."""
    since: str = ""
    destinations: Mapping[str, str] = {}
    """Name → where it led, of those that have not confirmed: nobody else is ever told of the id."""


def load_owed(home: Home) -> tuple[Owed, ...]:
    """What is owed, oldest first. Raises StorageError."""
    try:
        if not home.erasure.exists():
            return ()
        return tuple(_owed(entry) for entry in read_table(home.erasure)["install"])
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError, OSError) as fault:
        raise StorageError(
            f"{home.erasure} cannot be used ({fault}): it says which ids are still to be erased, and by whom. "
            f"`{home.application.command} erase --forget` drops it"
        ) from fault


def _owed(entry: Mapping[str, Any]) -> Owed:
    owed = Owed(entry["id"], entry["generation"], entry["since"], dict(entry["destinations"]))
    if not all(isinstance(text, str) for text in (*owed[:3], *owed.destinations.values())):
        raise ValueError("a value of the wrong type")
    return owed


def note(home: Home, owed: Owed) -> None:
    """From now on that id is nobody's, and its destinations owe an answer. Raises StorageError: then nothing is."""
    _rewrite(home, lambda before: (*(each for each in before if each.install_id != owed.install_id), owed))


def strike(home: Home, install_id: str, name: str) -> None:
    """A destination has confirmed. Raises StorageError: then it will be asked once more."""

    def struck(each: Owed) -> Owed:
        left = {key: value for key, value in each.destinations.items() if key != name}
        return each._replace(destinations=left) if each.install_id == install_id else each

    _rewrite(home, lambda before: tuple(each for each in map(struck, before) if each.destinations))


def forget(home: Home) -> bool:
    """Drop all that is owed, whatever the file holds. Whether there was something. Raises StorageError."""
    if not home.erasure.exists():
        return False
    with _alone(home):
        home.erasure.unlink(missing_ok=True)
    return True


def _rewrite(home: Home, change: Callable[[tuple[Owed, ...]], tuple[Owed, ...]]) -> None:
    """Replace the file by what ``change`` makes of it; without an entry there is no file."""
    files.private_dir(home.root)
    files.private_dir(home.telemetry)
    with _alone(home):
        owed = change(_before(home))
        if owed:
            files.replace(home.erasure, _document(owed, home.application.command).encode())
        else:
            home.erasure.unlink(missing_ok=True)


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """One process at a time; the lock goes with the file."""
    lock = files.FileLock(home.telemetry / "erasure.lock")
    try:
        lock.acquire()
        try:
            yield
        finally:
            lock.release(unlink=not home.erasure.exists())
    except OSError as fault:
        raise StorageError(f"{home.erasure} cannot be written: {fault.strerror}") from fault


def _before(home: Home) -> tuple[Owed, ...]:
    try:
        return load_owed(home)
    except StorageError as fault:  # what is noted now must not be lost for it
        log.warning("%s was moved to %s: %s", home.erasure, files.set_aside(home.erasure), fault.__cause__)
        return ()


def _document(owed: tuple[Owed, ...], command: str) -> str:
    import tomlkit

    document = tomlkit.document()
    document.add(tomlkit.comment(f"Ids that are still to be erased, and by whom. `{command} erase` asks now;"))
    document.add(tomlkit.comment(f"`{command} erase --forget` drops even this."))
    document["install"] = [
        {"id": each.install_id, "generation": each.generation, "since": each.since,
         "destinations": dict(each.destinations)}
        for each in owed
    ]  # fmt: skip
    return tomlkit.dumps(document)

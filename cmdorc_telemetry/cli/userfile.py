"""Edits the user's ``config.toml``: whole or not at all; comments, order and unknown tables stay."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from .. import files, toml
from ..config import load_layer, read_table
from ..errors import ConfigError, StorageError
from ..situation import config_exposure
from .arrays import taken_out, with_one_more

Table = MutableMapping[str, Any]

_TABLE = "telemetry"
_HEADER = re.compile(rf"^[ \t]*\[[ \t]*(?P<quote>[\"']?){_TABLE}(?P=quote)[ \t]*\][^\n]*(\n|\Z)", re.MULTILINE)
_KEY = re.compile(rf"^[ \t]*{_TABLE}\b", re.MULTILINE)


def edit(path: Path, change: Callable[[Table], None]) -> None:
    """Let ``change`` work on the ``[telemetry]`` table of ``path``; both are made where they are missing.

    Raises ConfigError for a file that is wrong already, that is read-only, that others may have written, or that is
    written in a way that cannot be changed here; StorageError where it cannot be written.
    """
    if _wanted(path, change) is None:
        return
    target = path.resolve()  # a link to a file that is kept elsewhere stays one
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o600
    if not mode & 0o222:
        raise ConfigError(path, "", "is read-only", "a file that you may write to")
    files.private_dir(target.parent)
    with _alone(target):
        if (wanted := _wanted(path, change)) is not None:
            files.replace(target, _text(path, change, wanted).encode())
            target.chmod(mode)


def _wanted(path: Path, change: Callable[[Table], None]) -> dict[str, Any] | None:
    """What is to be in the file; None where it is."""
    load_layer(path)
    check_owner(path)
    wanted = deepcopy(there := read_table(path))
    change(wanted.setdefault(_TABLE, {}))
    return None if wanted == there else wanted


def _text(path: Path, change: Callable[[Table], None], wanted: Mapping[str, Any]) -> str:
    text = path.read_bytes().decode("utf-8-sig") if path.exists() else ""
    edited = _edited(text, change, read_table(path).get(_TABLE, {}), wanted)
    if edited is None:
        raise ConfigError(path, _TABLE, "is written in a way that cannot be changed from here", "an edit by hand")
    return edited


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One at a time edits a file. The lock's own file is gone afterwards."""
    lock = files.FileLock(path.with_name(f".{path.name}.lock"))
    try:
        while lock.acquire() and not lock.is_current():  # whoever had it took the file away
            lock.release()
    except OSError as fault:
        raise StorageError(f"{path} cannot be written: {fault.strerror}") from fault
    try:
        yield
    finally:
        lock.release(unlink=True)


def _edited(
    text: str, change: Callable[[Table], None], there: Mapping[str, Any], wanted: Mapping[str, Any]
) -> str | None:
    """The text with ``change``; None where that does not come to what is ``wanted``, or is no TOML."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(_with_room(text.replace("\r\n", "\n"), there, wanted[_TABLE]))
        change(document[_TABLE])
        edited = tomlkit.dumps(document)
        if toml.loads(edited) != wanted:
            return None
    except (TOMLKitError, ValueError):
        return None
    return edited.replace("\n", "\r\n") if "\r\n" in text else edited


def _with_room(text: str, there: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """With new keys right below the header: tomlkit has them at the end, behind comments that belong to what follows.

    Without a header, where there is none of the table or only tables below it, it is at the end.
    """
    import tomlkit

    lines = "".join(f"{key} = {tomlkit.item(value).as_string()}\n" for key, value in wanted.items() if key not in there)
    if header := _HEADER.search(text):
        end = header.end()
        return text[:end] + ("" if header[0].endswith("\n") else "\n") + lines + text[end:]
    if all(isinstance(value, dict) for value in there.values()) and not _KEY.search(text):
        above = text.rstrip("\n") + "\n\n" if text.strip() else ""
        return f"{above}[{_TABLE}]\n{lines}"
    return text


def check_owner(path: Path) -> None:
    """Raise ConfigError where somebody else may have written the user's file: nothing is to come of what is in it."""
    if exposed := config_exposure(path):
        raise ConfigError(path, "", exposed, "a file of your own that only you can write to")


def setting(**values: object) -> Callable[[Table], None]:
    """The change that gives keys these values; None takes a key away."""

    def change(table: Table) -> None:
        for key, value in values.items():
            if value is not None:
                table[key] = value
            elif key in table:
                del table[key]

    return change


def listing(plugin: str, *, enabled: bool) -> Callable[[Table], None]:
    """The change that puts ``plugin`` into ``plugins``, or takes it out."""

    def change(table: Table) -> None:
        names = table.get("plugins", [])
        if enabled and plugin not in names:
            table["plugins"] = with_one_more(names, plugin)
        elif not enabled and plugin in names:
            table["plugins"] = taken_out(names, plugin)

    return change

"""TOML → a table. What parses it is imported when there is something to parse: mostly there is no file at all."""

import sys
from typing import Any


def loads(text: str) -> dict[str, Any]:
    """The table that ``text`` holds. Raises ValueError, RecursionError."""
    if sys.version_info >= (3, 11):  # pragma: no cover - which of the two is there depends on the Python version
        import tomllib
    else:  # pragma: no cover - likewise
        import tomli as tomllib
    table: dict[str, Any] = tomllib.loads(text)
    return table

"""Versions of specs and events: whole numbers, or three numbers after https://semver.org (2.0.0)."""

import re
from functools import lru_cache

Version = int | str
"""``1``, or ``"1.2.0"``: the two spellings that are in use."""
MOST = 999_999

_SEMVER = re.compile(
    r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})"
    r"(?:-((?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*)(?:\.(?:0|[1-9]\d*|\d*[A-Za-z-][0-9A-Za-z-]*))*))?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)
Order = tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]


def check(version: Version) -> None:
    """Raises ValueError for what is no version."""
    if isinstance(version, int):
        if not 1 <= version <= MOST:
            raise ValueError(f"found version {version}; expected 1 to {MOST}")
    elif not _SEMVER.fullmatch(version):
        raise ValueError(f"found version {version!r}; expected a whole number, or three such as '1.0.0'")


def major(version: Version) -> int:
    """What frames and bodies carry of a version: its first number."""
    return order(version)[0]


@lru_cache(maxsize=256)
def order(version: Version) -> Order:
    """What versions are sorted by: semver's precedence; a whole number is the first of that major version."""
    if isinstance(version, int):
        return version, 0, 0, True, ()
    found = _SEMVER.fullmatch(version)
    if found is None:
        raise ValueError(f"{version!r} is no version")
    first, second, third, pre = found.groups()
    parts = () if pre is None else tuple(
        (not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in pre.split(".")
    )  # fmt: skip
    return int(first), int(second), int(third), pre is None, parts


def same(one: Version, other: Version) -> bool:
    """Whether two spellings mean the same version: ``1`` and ``"1.0.0"`` do."""
    return order(one) == order(other)


def plain(version: Version) -> Version:
    """``version`` in its simplest spelling: ``"1.0.0"`` as ``1``."""
    first = order(version)[0] if isinstance(version, int) or _SEMVER.fullmatch(version) else 0
    return first if first and version == f"{first}.0.0" else version

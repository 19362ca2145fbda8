"""Versions of specs and events: whole numbers, or three numbers after https://semver.org (2.0.0)."""

import re
from functools import lru_cache
from typing import Literal

Version = int | str
"""``1``, or ``"1.2.0"``: the two spellings that are in use."""
MOST = 999_999
Step = Literal["major", "minor", "patch"]

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
            raise ValueError(f"found version {version!s:.60}; expected 1 to {MOST}")
    elif not _SEMVER.fullmatch(version):
        raise ValueError(f"found version {version!r:.60}; expected a whole number, or three such as '1.0.0'")


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


def raised(version: Version, step: Step) -> Version:
    """The version that ``step`` leads to. A whole number has but major steps: with any other it stays as it is."""
    if isinstance(version, int):
        return version + 1 if step == "major" else version
    first, second, third, released, _ = order(version)
    if step == "major":
        return f"{first + 1}.0.0"
    if step == "minor":
        return f"{first}.{second}.0" if _opens_minor(version) else f"{first}.{second + 1}.0"
    return f"{first}.{second}.{third + released}"


def reaches(old: Version, new: Version, step: Step | None) -> bool:
    """Whether from ``old`` to ``new`` is as large a step; None: whether ``new`` is not behind."""
    before, after = order(old), order(new)
    if step == "major":
        return after[0] > before[0]
    if step is None or (isinstance(old, int) and isinstance(new, int)):
        return after >= before
    return after > before and (step == "patch" or after[:2] > before[:2] or _opens_minor(old))


def _opens_minor(version: Version) -> bool:
    """Whether it is before the first of a minor version, such as ``"1.2.0-beta"``: until then anything may be added."""
    _, _, third, released, _ = order(version)
    return third == 0 and not released

"""The figures as people read them, and as programs do."""

from __future__ import annotations

import os
import platform
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import validation
from figures import FIGURES, LONGEST_EXIT, Figure, Key, Values
from subjects import CLIENTS, CONFIGS, NONE, OURS, PEERS

Found = Mapping[str, Values]
LOAD = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
"""What else the machine had to do when the run began."""
KEYS = [Key(subject, config) for subject in CLIENTS for config in CONFIGS[subject]]


def as_json(found: Found) -> list[dict[str, Any]]:
    """A list of records, one a value."""
    return [
        {"figure": name, "subject": key.subject, "config": key.config, "value": round(values[key], 4),
         "unit": FIGURES[name].unit}
        for name, values in found.items() for key in KEYS if key in values
    ]  # fmt: skip


def _number(figure: Figure, value: float | None) -> str:
    if value is None:
        return "–"
    ended = figure.name.startswith("exit_down") and value in [most * 1e3 for most in LONGEST_EXIT.values()]
    return f"{'> ' if ended else ''}{value:.{figure.digits}f}"


def _own(values: Values) -> dict[str, float]:
    return {key.config: value for key, value in values.items() if key.subject == OURS}


def _verdict(figure: Figure, values: Values) -> str:
    """Whether ours reaches what it has to: in a default configuration, or at least in the best."""
    own, limits = _own(values), figure.limits(values)
    if not own or not limits:
        return ""
    fits = {config: all(round(value, 6) <= most for _, most in limits) for config, value in own.items()}
    if all(fits.values()):
        return "reached"
    return (
        f"reached in {', '.join(config for config, fit in fits.items() if fit)}"
        if any(fits.values())
        else "not reached"
    )


def _our_rows(found: Found) -> list[list[str]]:
    rows = []
    for name, values in found.items():
        figure, own = FIGURES[name], _own(values)
        if not own:
            continue
        peers = {key: value for key, value in values.items() if key.subject in PEERS}
        best = min(peers, key=lambda key: peers[key], default=None)
        rows.append([
            name, " | ".join(_number(figure, own[config]) for config in CONFIGS[OURS] if config in own), figure.unit,
            " and ".join(f"≤ {text}" if text == f"{most:g}" else f"≤ {text} = {_number(figure, most)}"
                         for text, most in figure.limits(values)),
            _verdict(figure, values),
            "" if best is None else f"{_number(figure, peers[best])} {best.subject} ({best.config})",
        ])  # fmt: skip
    return rows


def _measured(found: Found) -> list[str]:
    there = {key.subject for values in found.values() for key in values}
    return [subject for subject in CLIENTS if subject in there]


def _all_rows(found: Found) -> list[list[str]]:
    rows = []
    for name, values in found.items():
        figure = FIGURES[name]
        cells = []
        for subject in _measured(found):
            own = {config: values.get(Key(subject, config)) for config in CONFIGS[subject]}
            there = [_number(figure, value) for value in own.values() if value is not None]
            if len(there) == 1 and len(own) == 2 and own["default"] is None:
                there.insert(0, "–")
            cells.append(" | ".join(there) or "–")
        rows.append([f"{name} [{figure.unit}]", *cells])
    return rows


_OUR_HEAD = ["figure", "ours", "unit", "to reach", "", "the best peer"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in (head, *rows)
    ]
    return "\n".join([lines[0], "─" * max(map(len, lines)), *lines[1:]])


def ours(found: Found) -> str:
    """This project against what is to be reached."""
    return f"\n{_table(_OUR_HEAD, _our_rows(found))}\n"


def everybody(found: Found) -> str:
    """Every subject, default and best configuration."""
    return f"{_table(['default | best', *_measured(found)], _all_rows(found))}\n"


def validators(found: validation.Costs) -> str:
    """``track()`` beside libraries that only check."""
    return f"{_table(validation.HEAD, validation.rows(found))}\n"


def machine() -> str:
    """On what this ran, without names."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {version}; load before: {LOAD:.1f}"
    )


def busy() -> str:
    """A warning where the machine had other things to do."""
    if (os.cpu_count() or 1) / 2 >= LOAD:
        return ""
    return f"The machine was busy (load {LOAD:.1f}): times of whole processes say little; CPU and losses do."


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", "·") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_docs(page: Path, found: Found, checked: validation.Costs) -> None:
    """Put the tables between the marks of a page: those that were measured."""
    configs = [[name, *configs.values()] for name, configs in CONFIGS.items() if name != NONE]
    meanings = [[name, FIGURES[name].unit, FIGURES[name].what] for name in found]
    when = f"Measured on {time.strftime('%Y-%m-%d')}: {machine()}. {busy()}".strip()
    if found:
        _replace(page, "results", [
            when,
            _markdown(_OUR_HEAD, _our_rows(found)),
            "Everybody, default · best configuration:",
            _markdown(["default · best", *_measured(found)], _all_rows(found)),
            "What each figure is:",
            _markdown(["figure", "unit", "what"], meanings),
            "The configurations:",
            _markdown(["subject", "default", "best"], configs),
        ])  # fmt: skip
    if checked:
        _replace(page, "track", [
            when,
            _markdown(validation.HEAD, validation.rows(checked)),
            "What each does:",
            _markdown(["a call", "what it does"], [[name, what] for name, what in validation.SUBJECTS.items()]),
        ])  # fmt: skip


def _replace(page: Path, mark: str, parts: Sequence[str]) -> None:
    text = page.read_text(encoding="utf-8")
    marked = re.compile(rf"(<!-- {mark} -->\n).*(<!-- end of {mark} -->)", re.DOTALL)
    new = marked.sub(lambda found: found[1] + "\n" + "\n\n".join(parts) + "\n\n" + found[2], text)
    page.write_text(new, encoding="utf-8")

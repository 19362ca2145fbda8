"""What a user waits for when a program starts: with telemetry, with plugins, and by ``exec``.

Ten plugins that do next to nothing, installed as pip would, and homes of users who enabled some of them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from rig import HERE, SETTLING, Rig, Spent

COUNTS = (0, 1, 10)
_CODE = """
from cmdorc_telemetry import hookimpl

@hookimpl
def cmdorc_completed(run):
    pass
"""
_NAMES = [f"bench-{number}" for number in range(max(COUNTS))]
_FIRST = str(HERE / "first.py")
_EXEC = ("-m", "cmdorc_telemetry", "exec", sys.executable)


class Crowd:
    """The plugins, and a home for each number of them; made when first asked for."""

    def __init__(self, rig: Rig) -> None:
        self._rig, self._site = rig, rig.new("site")
        self._homes: dict[int, Path] = {}
        self._made = time.monotonic()
        for name in _NAMES:
            module = name.replace("-", "_")
            info = self._site / f"{module}-1.0.dist-info"
            info.mkdir(parents=True)
            (self._site / f"{module}.py").write_text(_CODE)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            (info / "entry_points.txt").write_text(f"[cmdorc_telemetry]\n{name} = {module}\n")

    def start(self, count: int | None) -> Spent:
        """A process from its start to the end of its first run, with so many plugins; None: without telemetry."""
        home = self._home(count or 0)
        words = [_FIRST] if count is None else [_FIRST, "instrumented"]
        return self._rig.spend([sys.executable, *words], self._rig.environ(home, self._site), home)

    def executed(self, program: str, by: str) -> Spent:
        """A program, ``nothing`` or a ``first`` run, and by whom it was started.

        By ``itself``, or by ``exec`` where telemetry is ``on`` or ``off``, or nobody ever decided.
        """
        home = self._home(0) if by == "on" else self._rig.new("home")
        home.mkdir(exist_ok=True)
        environ = self._rig.environ(home)
        if by == "undecided":
            environ = {**environ, "HOME": str(home)}
            del environ["CMDORC_HOME"]
        words = ["-c", "pass"] if program == "nothing" else [_FIRST]
        before = () if by == "itself" else _EXEC
        return self._rig.spend([sys.executable, *before, *words], environ, home)

    def _home(self, count: int) -> Path:
        """Where nothing waits for a process that starts."""
        return Path(shutil.copytree(self._template(count), self._rig.new("home")))

    def _template(self, count: int) -> Path:
        """A home whose user agreed and has used it before: what is installed is remembered."""
        if count in self._homes:
            return self._homes[count]
        home = self._homes[count] = self._rig.new("template")
        home.mkdir()
        names = ", ".join(f'"{name}"' for name in _NAMES[:count])
        (home / "config.toml").write_text(f"[telemetry]\nplugins = [{names}]\n")
        environ = self._rig.environ(home, self._site)
        subprocess.run([sys.executable, "-m", "cmdorc_telemetry", "opt-in", "--level", "standard", "--yes"],
                       env=environ, cwd=home, check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)  # fmt: skip
        # What was installed a moment ago is not remembered yet, and would be looked for at each start.
        while time.monotonic() < self._made + SETTLING / 2:
            time.sleep(0.1)
        for _ in range(2):
            self._rig.spend([sys.executable, _FIRST, "instrumented"], environ, home)
        return home

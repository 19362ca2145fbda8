"""Ten plugins that do next to nothing, installed as pip would, and homes of users who enabled some of them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

from rig import SETTLING, Rig
from subjects import OURS

COUNTS = (0, 1, 10)
_CODE = """
from cmdorc_telemetry import hookimpl

@hookimpl
def cmdorc_completed(run):
    pass
"""
_NAMES = [f"bench-{number}" for number in range(max(COUNTS))]


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

    def start_ms(self, count: int, subject: str, config: str) -> float:
        """What a process takes that imports, starts with so many plugins, and ends."""
        if subject != OURS:
            return self._rig.work("import_on", subject, config, 1).seconds * 1e3
        home = Path(shutil.copytree(self._template(count, config), self._rig.new("home")))
        ended = self._rig.work("import_on", subject, config, 1, home=home, path=self._site)
        return ended.seconds * 1e3

    def _template(self, count: int, config: str) -> Path:
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
            self._rig.work("import_on", OURS, config, 1, home=home, path=self._site)
        return home

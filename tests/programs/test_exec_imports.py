"""``exec``: a program is recorded however it comes by cmdorc, and every import is what it was."""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path
from typing import Any

import cmdorc
import pytest

from .conftest import OURS, having
from .sources import COMMANDS, ONE, WHOLE

GONE = "for name in [name for name in sys.modules if name.partition('.')[0] == 'cmdorc']: del sys.modules[name]"


@pytest.mark.parametrize(
    "begin",
    [
        "import cmdorc; Orchestrator = cmdorc.CommandOrchestrator",
        "from cmdorc import CommandOrchestrator as Orchestrator",
        "from cmdorc.command_orchestrator import CommandOrchestrator as Orchestrator",
        "import importlib; Orchestrator = importlib.import_module('cmdorc').CommandOrchestrator",
        "import importlib.util as u; u.find_spec('cmdorc.load_config') and u.find_spec('cmdorc.command_orchestrator')",
        f"import cmdorc, sys\n{GONE}",
        "import cmdorc, importlib; importlib.reload(cmdorc)",
        "import cmdorc, cmdorc.command_orchestrator as c, importlib; importlib.reload(c); importlib.reload(cmdorc)",
        "from cmdorc_telemetry import TelemetryOrchestrator",
    ],
)  # fmt: skip
def test_however_it_comes_by_the_class(place: Any, begin: str) -> None:
    code = ONE.replace("import asyncio, cmdorc", f"{begin}\nimport asyncio, cmdorc")
    if "Orchestrator = " in begin:
        code = code.replace("cmdorc.CommandOrchestrator(", "Orchestrator(")
    assert place(sys.executable, place.script(code)) == (0, "", "")
    assert place.counts() == WHOLE


def test_a_reloaded_class_is_recorded_once_and_files_still_count(place: Any) -> None:
    (place.work / "cmdorc.toml").write_text(
        '[[command]]\nname = "A"\ncommand = "true"\ntriggers = []\n[telemetry]\nenabled = false\n'
    )
    code = (
        f"import importlib, sys\n{COMMANDS}"
        + """
import cmdorc.load_config
def both():
    asyncio.run(run(cmdorc.CommandOrchestrator(config("A")), "A"))
    asyncio.run(run(cmdorc.CommandOrchestrator(cmdorc.load_config("cmdorc.toml")), "A"))
importlib.reload(sys.modules["cmdorc.command_orchestrator"])
importlib.reload(sys.modules["cmdorc.load_config"])
importlib.reload(cmdorc)
asyncio.run(run(cmdorc.CommandOrchestrator(config("A")), "A"))
asyncio.run(run(cmdorc.CommandOrchestrator(cmdorc.load_config("cmdorc.toml")), "A"))
"""
    )
    assert place(sys.executable, "-W", "ignore", place.script(code)) == (0, "", "")
    assert place.counts() == WHOLE, "the other one's file says no"


OTHERS = """
import sys
class Old:
    def find_module(self, *_): return None
class Narrow:
    __slots__ = ("real",)
    def __init__(self, real): self.real = real
    def create_module(self, spec): return None
    def exec_module(self, module): self.real.exec_module(module)
class Tight:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("cmdorc."):
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            spec.loader = Narrow(spec.loader)
            return spec
import importlib.machinery
"""


def test_finders_and_loaders_of_the_program(place: Any) -> None:
    old = "sys.meta_path.insert(1, Old())\n"
    assert place(sys.executable, "-W", "ignore", place.script(OTHERS + old + ONE)) == (0, "", ""), "of another time"
    assert place.counts() == WHOLE
    tight = "sys.meta_path.insert(1, Tight())\n"
    assert place(sys.executable, place.script(OTHERS + tight + ONE + "print(1)")) == (0, "1\n", ""), "with no room"
    assert place.counts() == WHOLE


def test_a_cmdorc_in_a_zip(place: Any) -> None:
    folder = Path(str(cmdorc.__file__)).parent
    with zipfile.ZipFile(place.work / "app.pyz", "w") as app:
        for file in folder.rglob("*.py"):
            app.write(file, Path("cmdorc", file.relative_to(folder)))
        look = "import importlib.util as u\nu.find_spec('cmdorc.load_config')\nimport cmdorc.types\n"
        app.writestr("__main__.py", f"{look}{ONE}print('app.pyz' in cmdorc.__file__)")
    assert place(sys.executable, "app.pyz") == (0, "True\n", "")
    assert place.counts() == WHOLE


def test_loaders_are_left_as_they_were(place: Any) -> None:
    code = """
import sys
import cmdorc.load_config
for name in ("cmdorc", "cmdorc.load_config", "cmdorc.command_orchestrator"):
    loader = sys.modules[name].__loader__
    print(type(loader).__name__, sorted(vars(loader)), loader is sys.modules[name].__spec__.loader)
"""
    plain = place(sys.executable, place.script(code), plain=True)
    assert plain[0] == 0
    assert place(sys.executable, place.script(code)) == plain


def test_whatever_goes_wrong_the_program_goes_on(place: Any) -> None:
    (place.work / "app" / "cmdorc_telemetry").mkdir(parents=True)
    place.script("", "app/cmdorc_telemetry/__init__.py")
    assert place(sys.executable, place.script(ONE + "print('ran')", "app/program.py")) == (0, "ran\n", "")
    assert place.counts() == {}, "what is imported there is not ours"


def test_a_cmdorc_that_was_imported_before_anybody_could_wait_for_it(place: Any, elsewhere: Path) -> None:
    program = place.script(COMMANDS + """
import sys
made = cmdorc.load_configs(["cmdorc.toml"]) if sys.argv[1:] else config("A")
asyncio.run(run(cmdorc.CommandOrchestrator(made), "A"))
""")  # fmt: skip
    (place.work / "cmdorc.toml").write_text(
        '[[command]]\nname = "A"\ncommand = "true"\ntriggers = []\n[telemetry]\nenabled = false\n'
    )
    with having(elsewhere, *OURS, "import cmdorc"):
        assert place(elsewhere, program, "file")[:2] == (0, "")
        assert place.counts() == {}
        assert place(elsewhere, program)[:2] == (0, "")
        assert place.counts() == WHOLE


SITE = "import os, sys\nos.environ['OWN_SITE'] = __name__ + ' ' + os.path.dirname(__file__)\n"


def test_the_sitecustomize_of_the_environment_is_imported_too(place: Any) -> None:
    place.script(SITE, "sitecustomize.py")
    code = COMMANDS + "import os, sys\nprint(os.environ['OWN_SITE'], sys.modules['sitecustomize'].__file__)\n" + ONE
    environ = {**place.on, "PYTHONPATH": str(place.work)}
    done = place(sys.executable, place.script(code), env=environ)
    assert done == (0, f"sitecustomize {place.work} {place.work}/sitecustomize.py\n", "")
    assert place.counts() == WHOLE


def test_a_sitecustomize_that_fails_says_so_as_without(place: Any) -> None:
    place.script("1 / 0", "sitecustomize.py")
    words, environ = [sys.executable, "-c", "print(1)"], {**place.on, "PYTHONPATH": str(place.work)}
    plain = place(*words, plain=True, env=environ)
    assert "Error in sitecustomize" in plain[2]
    assert place(*words, env=environ) == (*plain[:2], plain[2] * 2), "exec itself, and the program"


def test_an_import_of_cmdorc_that_fails_says_so_as_without(place: Any) -> None:
    (place.work / "cmdorc").mkdir()
    place.script("raise ValueError('not today')", "cmdorc/__init__.py")
    words = [sys.executable, "-c", "import cmdorc"]
    plain = place(*words, plain=True)
    assert "ValueError: not today" in plain[2]
    code, out, err = place(*words)
    assert (code, out, err.splitlines()[-1]) == (1, "", "ValueError: not today")
    place.script("__version__ = '99'", "cmdorc/__init__.py")  # one of another shape
    assert place(*words) == (0, "", "")
    (place.work / "cmdorc" / "__init__.py").unlink()
    assert place(*words) == (0, "", ""), "a folder without a file is a package too"
    (place.work / "cmdorc" / "load_config").mkdir()
    assert place(*words[:-1], "import cmdorc.load_config") == (0, "", "")


def test_a_cmdorc_that_is_not_there_is_missed_as_without(place: Any) -> None:
    code = "import sys; sys.path[:] = []\ntry:\n import cmdorc\nexcept ImportError as fault: print(fault)"
    assert place(sys.executable, "-c", code) == (0, "No module named 'cmdorc'\n", "")

"""The tutorial, done as a reader would: every block in its order, in a fresh directory, and what is shown compared."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from queue import Empty, Queue
from threading import Thread

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "tutorial.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PORTS = ("18765", "18080")
END = "--- that was it ---"
DEADLINE = 30.0
CURL = "import sys, urllib.request as r; print(r.urlopen(sys.argv[-1]).read().decode())"
"""What does instead of the program, where that is not there."""


def blocks() -> Iterator[tuple[int, str, str]]:
    """Line, kind and text of each block of the page."""
    page = PAGE.read_text(encoding="utf-8")
    for found in BLOCK.finditer(page):
        yield page.count("\n", 0, found.start()) + 1, found[1], found[2]


class Shell:
    """One bash, to which commands are given one after the other."""

    def __init__(self, folder: Path, environ: dict[str, str]) -> None:
        self._bash = subprocess.Popen(
            ["bash", "--norc"], cwd=folder, env=environ, text=True, bufsize=1, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._lines: Queue[str] = Queue()
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._bash.stdout is not None
        for line in self._bash.stdout:
            self._lines.put(line.rstrip("\n"))

    def __call__(self, command: str, *, lines: int | None = None) -> list[str]:
        """What a command prints; of one that goes on in the background the first ``lines``."""
        assert self._bash.stdin is not None
        end = "" if lines is not None else f"; printf '\\n%s\\n' '{END}'"
        self._bash.stdin.write(f"{command}{end}\n")
        printed: list[str] = []
        while lines is None or len(printed) < lines:
            try:
                line = self._lines.get(timeout=DEADLINE)
            except Empty:
                raise AssertionError(f"{command}: nothing more came after {printed}") from None
            if line == END:
                return printed[:-1] if printed[-1] == "" else printed
            printed.append(line)
        return printed

    def close(self) -> None:
        os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.wait()
        self._thread.join(DEADLINE)
        for file in (self._bash.stdin, self._bash.stdout):
            assert file is not None
            file.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture
def shell(tmp_path: Path, home: Path) -> Iterator[Shell]:
    work = tmp_path / "work"
    work.mkdir()
    kept = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    shell = Shell(work, {**kept, "PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "TMPDIR": str(tmp_path)})
    if not shutil.which("curl"):
        shell(f"curl() {{ python -c '{CURL}' \"$@\"; }}")
    yield shell
    shell.close()


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def is_installed(requirement: str) -> bool:
    name, _, extra = requirement.rstrip("]").partition("[")
    return not extra or extra in (distribution(name).metadata.get_all("Provides-Extra") or [])


def pattern(lines: list[str]) -> str:
    """What a command has to print: ``…`` is any text in a line, and any lines where it is one by itself."""
    return "".join(
        r"(?:[^\n]*\n)*" if line == "…" else re.escape(line).replace("…", r"[^\n]*") + r"\n" for line in lines
    )


def write(text: str, home: Path, work: Path) -> None:
    """The file of a block, which its first line names; or what is added to one."""
    first, _, rest = text.partition("\n")
    name, _, place = first.removeprefix("# ").partition(", ")
    path = home / name.removeprefix("~/") if name.startswith("~/") else work / name
    if place:
        assert place == "at its end"
        path.write_text(path.read_text(encoding="utf-8") + rest, encoding="utf-8")
    else:
        path.write_text(text, encoding="utf-8")


@pytest.mark.timeout(180)  # two dozen programs, one after the other
def test_every_block_does_what_the_page_says(shell: Shell, home: Path, tmp_path: Path) -> None:
    ports = {port: free_port() for port in PORTS}
    for place, kind, text in blocks():
        for port, free in ports.items():
            text = text.replace(port, free)  # noqa: PLW2901
        if kind != "console":
            write(text, home, tmp_path / "work")
            continue
        assert text.startswith("$ ")
        for step in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, *expected = step.splitlines()
            if command.startswith("pip install "):
                assert all(map(is_installed, shlex.split(command)[2:])), command
                continue
            printed = shell(command, lines=len(expected) if command.endswith(" &") else None)
            whole = "".join(f"{line}\n" for line in printed)
            assert re.fullmatch(pattern(expected), whole), f"line {place}: $ {command}\n{whole}"

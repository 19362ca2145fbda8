"""Off costs nothing: no file, socket, thread or import, and nothing wrapped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WATCHED = """
import asyncio, json, os, sys, threading
import cmdorc

touched = []
def hook(name, arguments):
    if name == "open" or name.startswith(("socket.", "sqlite3.", "os.mkdir", "os.rename", "os.listdir", "os.scandir")):
        reads = name == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        touched.append((name, str(arguments[0]) if arguments else "", reads))
before = set(sys.modules)
sys.addaudithook(hook)
from cmdorc_telemetry import TelemetryOrchestrator, instrument

config = cmdorc.RunnerConfig(commands=[cmdorc.CommandConfig(name="A", command="true", triggers=["go"])])
async def main():
    plain = cmdorc.CommandOrchestrator(config)
    was = {key: id(value) for key, value in vars(plain).items()}
    executor = {key: id(value) for key, value in vars(plain._executor).items()}
    telemetry = instrument(plain)
    same = (was == {key: id(value) for key, value in vars(plain).items()}
            and executor == {key: id(value) for key, value in vars(plain._executor).items()})
    threads = threading.active_count()
    async with plain:
        await (await plain.run_command("A")).wait()
    return telemetry, same, threads
telemetry, same, threads = asyncio.run(main())
telemetry.close()
print(json.dumps({
    "same": same, "threads": threads, "listening": telemetry.listening, "tracked": bool(telemetry.track("x", {})),
    "modules": sorted(set(sys.modules) - before), "touched": touched,
}))
"""


def watched(tmp_path: Path, **extra: str) -> dict[str, object]:
    script = tmp_path / "watched.py"
    script.write_text(WATCHED)
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("CMDORC", "DO_NOT", "COVERAGE"))}
    done = subprocess.run([sys.executable, script], env={**environ, "CMDORC_HOME": str(tmp_path / "home"), **extra},
                          capture_output=True, text=True, timeout=30, check=False)  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def third_party(modules: object) -> set[str]:
    assert isinstance(modules, list)
    return {name.partition(".")[0] for name in modules} - set(sys.stdlib_module_names)


@pytest.mark.parametrize("extra", [{}, {"DO_NOT_TRACK": "1", "CMDORC_TELEMETRY": "standard"}])
def test_nothing_happens_while_telemetry_is_off(tmp_path: Path, extra: dict[str, str]) -> None:
    seen = watched(tmp_path, **extra)
    assert seen["same"]
    assert not seen["listening"]
    assert not seen["tracked"]
    assert seen["threads"] == 1
    assert third_party(seen["modules"]) <= {"cmdorc_telemetry", "tomli"}
    assert not (tmp_path / "home").exists()
    home = str(tmp_path / "home")
    touched = [entry for entry in seen["touched"] if entry[1].startswith(home)]  # type: ignore[attr-defined]
    assert {Path(entry[1]).name for entry in touched} <= {"config.toml", "consent.toml"}
    assert all(reads for _, _, reads in touched)
    assert not [entry for entry in seen["touched"] if entry[0].startswith(("socket.connect", "sqlite3."))]  # type: ignore[attr-defined]


def test_a_file_that_asks_changes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.toml").write_text("[telemetry]\nenabled = true\nlevel = 'standard'\n")
    seen = watched(tmp_path)
    assert seen["same"]
    assert seen["threads"] == 1
    assert third_party(seen["modules"]) <= {"cmdorc_telemetry", "tomli"}
    assert [path.name for path in home.iterdir()] == ["config.toml"]


def test_a_listener_is_what_changes_it(tmp_path: Path) -> None:
    """The watch above can fail: with a decision recorded, things are wrapped, imported and written."""
    home = tmp_path / "home"
    environ = {"CMDORC_TELEMETRY": "minimal"}
    seen = watched(tmp_path, **environ)
    assert not seen["same"]
    assert seen["listening"]
    assert "msgspec" in third_party(seen["modules"])
    assert (home / "telemetry" / "journal").is_dir()

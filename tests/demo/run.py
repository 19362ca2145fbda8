"""The main job for real: a server, an opt-in, cmdorc runs, what was sent, what came back.

Everything happens on loopback and in a directory that is deleted at the end. Ends with the ledger of the http
destination; exits with 1 where that does not balance or something still waits.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
LEDGER = re.compile(r"http: (recorded (\d+) = acknowledged (\d+) \+ pending (\d+) \+ dropped (\d+).*)")


class Demo:
    """Runs commands as a person would, and shows them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        kept = {key: value for key, value in os.environ.items()
                if key not in ("CI", "DO_NOT_TRACK", "CMDORC_TELEMETRY", "CMDORC_TELEMETRY_CONFIG")}  # fmt: skip
        self.environ = {**kept, "CMDORC_HOME": str(directory / "home"), "PATH": f"{BIN}{os.pathsep}{kept['PATH']}",
                        "COLUMNS": "110"}  # fmt: skip

    def say(self, text: str) -> None:
        print(f"\n── {text}", flush=True)

    def run(self, *command: str, expect: tuple[int, ...] = (0,)) -> str:
        """Run, show and return what a command prints. Ends the demo where it fails."""
        print(f"$ {' '.join(command)}", flush=True)
        done = subprocess.run(command, cwd=self.directory, env=self.environ, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=120, check=False)  # fmt: skip
        print(done.stdout, end="", flush=True)
        if done.returncode not in expect:
            raise SystemExit(f"demo: `{' '.join(command)}` ended with {done.returncode}")
        return done.stdout


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="cmdorc-demo-") as name:
        demo = Demo(Path(name))
        shutil.copy(HERE / "pipeline.toml", demo.directory / "cmdorc.toml")
        store = demo.directory / "reports.db"
        demo.say(
            "A server of its own, on a free loopback port. --k 1 shows groups of a single install: for a demo only."
        )
        server = subprocess.Popen(
            ["cmdorc-telemetry-server", "serve", "--port", "0", "--store", str(store), "--k", "1"],
            env=demo.environ, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            first = server.stdout.readline()
            print(first, end="")
            return show(demo, first.split()[-1], store)
        finally:
            server.terminate()
            server.wait(timeout=10)


def show(demo: Demo, endpoint: str, store: Path) -> int:
    demo.say("Nothing is on yet. This is what one event would look like.")
    demo.run("cmdorc", "telemetry", "status")
    demo.run("cmdorc", "telemetry", "show-payload", "command_completed")

    demo.say("Two lines in the user's own file, and a yes.")
    config = demo.directory / "home" / "config.toml"
    config.parent.mkdir(mode=0o700, exist_ok=True)
    config.write_text(f'[telemetry]\nplugins = ["http"]\nendpoint = "{endpoint}"\n', encoding="utf-8")
    print(config.read_text(encoding="utf-8"), end="")
    demo.run("cmdorc", "telemetry", "opt-in", "--level", "standard", "--yes")

    demo.say("Real runs: a chain by triggers, one command that fails, one that is cancelled.")
    demo.run("cmdorc", "list")
    demo.run("cmdorc", "run", "Lint", expect=(0,))
    demo.run("cmdorc", "trigger", "changed", expect=(0, 1, 3, 143))

    demo.say("What waits, byte for byte, and what leaves.")
    demo.run("cmdorc", "telemetry", "show-payload", "command_completed")
    flushed = demo.run("cmdorc", "telemetry", "flush", "--timeout", "30", expect=(0, 1))

    demo.say("What the server stored, and what it answered.")
    demo.run("cmdorc-telemetry-server", "rows", "--store", str(store), "--limit", "20")
    demo.run("cmdorc", "telemetry", "stats")
    demo.run("cmdorc", "telemetry", "status")

    found = LEDGER.search(flushed)
    if found is None:
        print("demo: no ledger of the http destination")
        return 1
    recorded, acknowledged, pending, dropped = (int(number) for number in found.groups()[1:])
    balanced = recorded == acknowledged + pending + dropped and recorded > 0
    print(f"\n{found[1]}", flush=True)
    return 0 if balanced and not pending and not dropped else 1


if __name__ == "__main__":
    raise SystemExit(main())

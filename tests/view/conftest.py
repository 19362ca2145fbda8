"""Pages of homes in every state, made once, and a Chromium that shows them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cmdorc_telemetry.cli import telemetry as group
from cmdorc_telemetry.home import Home
from cmdorc_telemetry.policy import CI_VARIABLES

from . import homes

BIN = Path(sys.executable).parent
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
SWITCHES = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
"""It may run as root in a container, and of itself it is to look for nothing on the network."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.xdist_group("view"))  # one process makes the pages, and starts the browser


class Person:
    """Somebody at a machine of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, Home(folder / "home")
        (folder / "work").mkdir(parents=True)

    @contextmanager
    def here(self) -> Iterator[pytest.MonkeyPatch]:
        """What happens in here happens on that machine; afterwards this process is as it was."""
        with pytest.MonkeyPatch.context() as patch:
            for name in (*CI_VARIABLES, "DO_NOT_TRACK", "CMDORC_TELEMETRY", "CMDORC_TELEMETRY_CONFIG"):
                patch.delenv(name, raising=False)
            patch.setenv("CMDORC_HOME", str(self.home.root))
            patch.setenv("TZ", "UTC")
            patch.chdir(self.folder / "work")
            time.tzset()
            yield patch
        time.tzset()

    def __call__(self, *args: str) -> str:
        result = CliRunner().invoke(group, args)
        assert result.exception is None, (args, result.output, result.exc_info)
        return result.stdout

    def config(self, text: str) -> None:
        self.home.root.mkdir(exist_ok=True)
        self.home.config.write_text(f"[telemetry]\n{text}", encoding="utf-8")

    def page(self) -> Path:
        path = self.folder / "page.html"
        self("view", "--output", str(path))
        return path


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("view")


@pytest.fixture(scope="session")
def endpoint(folder: Path) -> Iterator[str]:
    """A real server, which shows groups of one install."""
    command = [BIN / "cmdorc-telemetry-server", "serve", "--port", "0", "--store", folder / "reports.db", "--k", "1"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    yield server.stdout.readline().split()[-1]
    server.terminate()
    server.wait(10)
    server.stdout.close()


@pytest.fixture(scope="session")
def off(folder: Path) -> Path:
    person = Person(folder / "off")
    with person.here():
        return person.page()


@pytest.fixture(scope="session")
def new(folder: Path) -> Path:
    person = Person(folder / "new")
    with person.here():
        person("opt-in", "--local", "--yes")
        homes.record(homes.runs(homes.random.Random(1), homes.COMMANDS, 3))
        return person.page()


@pytest.fixture(scope="session")
def person(folder: Path, endpoint: str) -> Person:
    """90 days of 10,000 runs; what was recorded today was sent, but for what waits. A new destination waits, too."""
    person, now = Person(folder / "full"), time.time()
    with person.here() as patch:
        with homes.at(patch, now - 91 * homes.DAY):
            person("opt-in", "--local", "--yes")
        homes.fill(patch, now=now - homes.DAY, days=89, total=10_000)
        files = f'endpoint = "{endpoint}"\nlocal_file = "{person.folder}/events.jsonl"\n'
        person.config(f'plugins = ["http", "file"]\n{files}')
        person("opt-in", "--level", "standard", "--yes")
        chance = homes.random.Random(3)
        for _ in range(6):
            homes.record(homes.runs(chance, homes.COMMANDS, 30), trigger="changed")
        person("flush", "--timeout", "30")
        with person.home.config.open("a") as file:
            for name, audience in (("mine", "private"), ("team", "shared")):
                there = f'plugin = "http"\nendpoint = "https://{name}.example/v1"\naudience = "{audience}"'
                file.write(f"[telemetry.to.{name}]\n{there}\n")
        homes.import_all()  # after which the new one begins
        homes.record(homes.runs(chance, homes.COMMANDS, 12))
        return person


@pytest.fixture(scope="session")
def full(person: Person) -> Path:
    with person.here():
        return person.page()


@pytest.fixture(scope="session")
def mismatch(full: Path, folder: Path) -> Path:
    """The same machine, and somebody took a batch out of the audit."""
    other = Person(folder / "mismatch")
    with other.here():
        shutil.copytree(full.parent / "home", other.home.root)
        audit = other.home.audit / "http.jsonl"
        lines = audit.read_bytes().splitlines(keepends=True)
        audit.write_bytes(b"".join(lines[:1] + lines[2:]))
        return other.page()


@pytest.fixture(scope="session")
def hostile(folder: Path) -> Path:
    """Commands, triggers, files and paths whose names are markup; the commands were run by cmdorc itself."""
    person = Person(folder / "<i>'\"&amp;")
    with person.here():
        local_file = person.folder / "<script>alert(1)<" / "events"
        person.config(f'plugins = ["file"]\nlocal_file = {json.dumps(str(local_file))}\n')
        person("opt-in", "--level", "standard", "--yes")
        written = "".join(
            f'[[command]]\nname = {json.dumps(name)}\ncommand = "true"\ntriggers = ["go"]\n' for name in homes.HOSTILE
        )
        path = Path("cmdorc.toml")
        path.write_text(written, encoding="utf-8")
        done = subprocess.run([BIN / "cmdorc", "trigger", "go"], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        homes.record(homes.runs(homes.random.Random(1), tuple(homes.Command(name, 2.0) for name in homes.HOSTILE), 40))
        return person.page()


class Browser:
    """Chromium, and the one thread that may talk to it: Playwright leaves a running event loop in it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1)
        self.chromium, self._stop = self.do(self._start)

    def do(self, work: Callable[[], Any]) -> Any:
        return self._pool.submit(work).result(60)

    def _start(self) -> tuple[Any, Callable[[], None]]:
        from playwright.sync_api import sync_playwright

        playwright = sync_playwright().start()
        return playwright.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES)), playwright.stop

    def close(self) -> None:
        self.do(self.chromium.close)
        self.do(self._stop)
        self._pool.shutdown()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    pytest.importorskip("playwright")
    pytest.importorskip("axe_playwright_python")
    if not CHROMIUM:
        pytest.skip("there is no Chromium here: on Debian `apt-get install chromium`")
    browser = Browser()
    yield browser
    browser.close()


class Shown:
    """A page in a window, and everything that it asked for or complained about."""

    def __init__(self, browser: Browser, path: Path, scheme: str, width: int, **options: Any) -> None:
        self._browser = browser
        self.said: list[str] = []
        self.asked: list[str] = []

        def open_window() -> tuple[Any, Any]:
            window = {"width": width, "height": 900}
            context = browser.chromium.new_context(viewport=window, color_scheme=scheme, **options)
            page = context.new_page()
            page.on("console", lambda message: self.said.append(message.text))
            page.on("pageerror", lambda error: self.said.append(str(error)))
            page.on("dialog", lambda dialog: (self.said.append(f"dialog {dialog.message}"), dialog.dismiss()))
            page.on("request", lambda request: self.asked.append(request.url))
            page.goto(path.as_uri())
            return context, page

        self._context, self.page = browser.do(open_window)

    def __call__(self, script: str) -> Any:
        """What an expression is in the page."""
        return self._browser.do(lambda: self.page.evaluate(script))

    def unfold(self, what: str = "details") -> None:
        self(f"document.querySelectorAll('{what}').forEach(each => each.open = true)")

    def press(self, key: str) -> None:
        self._browser.do(lambda: self.page.keyboard.press(key))

    def print(self) -> None:
        self._browser.do(lambda: self.page.emulate_media(media="print"))

    def axe(self) -> list[tuple[str, list[str]]]:
        """What axe-core objects to: rule and elements."""
        from axe_playwright_python.sync_playwright import Axe

        found = self._browser.do(lambda: Axe().run(self.page)).response["violations"]
        return [(each["id"], [node["html"] for node in each["nodes"]]) for each in found]

    def tree(self) -> list[tuple[str, str]]:
        """What somebody has read to them: role and name of each part."""

        def ask() -> Any:
            return self._context.new_cdp_session(self.page).send("Accessibility.getFullAXTree")

        nodes = [node for node in self._browser.do(ask)["nodes"] if not node["ignored"]]
        return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes]

    def close(self) -> None:
        self._browser.do(self._context.close)


@pytest.fixture
def show(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Callable[..., Shown]]:
    """Opens the page of a state, such as ``full``, or the one at a path."""
    shown: list[Shown] = []

    def open_page(state: str | Path, scheme: str = "light", width: int = 1280, **options: Any) -> Shown:
        path = state if isinstance(state, Path) else request.getfixturevalue(state)
        shown.append(Shown(browser, path, scheme, width, **options))
        return shown[-1]

    yield open_page
    for each in shown:
        each.close()

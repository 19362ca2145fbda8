"""What every plugin promises, whatever its kind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from ...decoding import decode, secrets
from ...discovery import Installed, installed
from ...errors import ConfigError
from ...plugins import PluginHost
from ...spec import CORE, TelemetrySpec, load_spec
from ..machine import Machine
from ..sandbox import Sandbox

_OURS = {"cmdorc_telemetry", "msgspec", "pluggy", "tomli"}
"""What is imported in any case where telemetry is on."""
_IMPORTED = """
import sys
import cmdorc_telemetry.pipeline
from cmdorc_telemetry.plugins import PluginHost

before = set(sys.modules)
host = PluginHost([sys.argv[1]])
host.reporters(), host.detectors(), host.specs(), host.anonymizers()
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""
_CANARY = "c4n4ry-c4n4ry"
_WRONG = f" {_CANARY}\n"


class PluginContract:
    """What all contracts have in common. ``plugin`` is all that every one of them must be told."""

    plugin: ClassVar[str]
    """The name of the entry point, as users write it into ``plugins``."""
    hooks: ClassVar[Sequence[str]] = ()
    """Hooks that a plugin of that kind must have."""
    share: ClassVar[str | None] = "standard"
    """What the user of the machine agreed to; None for one who never decided."""

    folder: Path
    """A directory of this test's own, for files that the plugin is told to write."""
    machine: Machine
    """A machine on which the plugin is enabled. What it says of itself is in a home that is gone afterwards."""

    @pytest.fixture(autouse=True)
    def _contract(self, tmp_path: Path) -> Iterator[None]:
        with self.prepared(tmp_path):
            yield

    # -- what a subclass may say -------------------------------------------------------------------------------------

    def settings(self) -> Mapping[str, Any]:
        """What its user writes for the plugin. Empty where it needs nothing."""
        return {}

    def specs(self) -> Sequence[TelemetrySpec]:
        """The specs of the events that it is tried with: cmdorc's own, and those that the plugin brings."""
        return [load_spec(CORE), *(spec for _, spec in self.load().specs())]

    @contextmanager
    def prepared(self, folder: Path) -> Iterator[None]:
        """All that a test needs is there. To be extended by those who need more."""
        self.folder = folder / "files"
        self.folder.mkdir()
        with Sandbox(share=self.share, strict=False) as sandbox:
            self.machine = Machine(sandbox, self.load)
            self.enable()
            yield

    # -- what a contract does -----------------------------------------------------------------------------------------

    def load(self) -> PluginHost:
        """The plugin, as a process that starts has it."""
        return PluginHost([self.plugin])

    def table(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """``[telemetry]`` of a user who enabled it with these settings."""
        written = {"settings": {self.plugin: dict(settings)}} if settings else {}
        return {"plugins": [self.plugin], **written}

    def enable(self) -> None:
        """Let the user write that, and agree to it."""
        self.machine.configure(self.table(self.settings()))

    def entry_point(self) -> Installed:
        """Where the plugin comes from."""
        found = [point for point in installed() if point.name == self.plugin]
        assert found, f"no installed distribution has an entry point {self.plugin!r} in the group 'cmdorc_telemetry'"
        assert len(found) == 1, f"several distributions have that entry point: {', '.join(map(str, found))}"
        return found[0]

    # -- the promises -------------------------------------------------------------------------------------------------

    def test_it_is_installed_and_loads(self) -> None:
        """One distribution offers it, it loads, and it has the hooks of its kind."""
        self.entry_point()
        host = self.load()
        assert host.failures == {}
        missing = set(self.hooks) - set(host.hooks_of(self.plugin))
        assert not missing, f"it has no hookimpl of {', '.join(sorted(missing))}"

    def test_it_says_which_api_it_was_written_for(self) -> None:
        """Its distribution has the API version in its metadata, so that a core that has another one can tell."""
        point = self.entry_point()
        assert point.api, (
            f"{point.distribution} does not say which API it was written for: in its pyproject.toml, write\n"
            f'[project.entry-points."cmdorc_telemetry.api"]\n{self.plugin} = "v1"'
        )

    def test_loading_it_imports_nothing_heavy(self) -> None:
        """Libraries of others are imported when there is something to do, not at the start of the user's program."""
        own = self.entry_point().value.partition(":")[0].partition(".")[0]
        command = [sys.executable, "-c", _IMPORTED, self.plugin]
        done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this interpreter
        names = set(done.stdout.split())
        heavy = names - sys.stdlib_module_names - _OURS - {own}
        assert not heavy, f"loading it imports {', '.join(sorted(heavy))}: import them where they are used"


def strangers(class_: Any, settings: Mapping[str, Any]) -> bool:
    """Whether settings with a key that nobody knows can be read into the ``Settings`` of a class."""
    try:
        msgspec.convert({**settings, "no_such_setting": 1}, class_.Settings)
    except msgspec.ValidationError:
        return False
    return True


def shown_secrets(settings: Any) -> list[str]:
    """The settings that hold a secret and show it in ``repr``, which is what logs and tracebacks have."""
    hidden = secrets(type(settings))
    names = [each.name for each in msgspec.structs.fields(settings) if each.encode_name in hidden]
    return [name for name in names if _CANARY in repr(_with(settings, name))]


def _with(settings: Any, name: str) -> Any:
    """Settings with a canary, which might be refused where they are read."""
    made = copy(settings)
    msgspec.structs.force_setattr(made, name, _CANARY)
    return made


def repeated_secrets(class_: Any, settings: Mapping[str, Any]) -> list[str]:
    """The settings that hold a secret, and whose value is repeated where it cannot be right."""
    return [name for name in sorted(secrets(class_.Settings)) if _CANARY in _said(class_, {**settings, name: _WRONG})]


def _said(class_: Any, settings: Mapping[str, Any]) -> str:
    try:
        decode(settings, class_.Settings, "config.toml")
    except ConfigError as fault:
        return str(fault)
    return ""


def strangers_in_table(table: dict[str, Any], plugin: str) -> dict[str, Any]:
    """``[telemetry]`` with a key that nobody knows among the settings of a plugin."""
    settings = table.get("settings", {})
    return {**table, "settings": {**settings, plugin: {**settings.get(plugin, {}), "no_such_setting": 1}}}

"""Anonymizers that are distributions of their own: one that is broken, one that fails, one that does its work."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .conftest import Machine

MASK = """
from cmdorc_telemetry import hookimpl

@hookimpl
def telemetry_anonymize(event):
    {body}
"""


def install(machine: Machine, code: str) -> None:
    """A distribution, as pip would have installed it, with the plugin ``mask``; the user enables it."""
    site = machine.home.root.parent / "site"
    info = site / "mask_dist-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mask-dist\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[cmdorc_telemetry]\nmask = mask_plugin\n")
    (site / "mask_plugin.py").write_text(code)
    machine.environ["PYTHONPATH"] = str(site)
    machine.configure('"http", "mask"')


def delivered(machine: Machine) -> None:
    """One run ends, and all that is to be sent is."""
    machine.decide("standard")
    program = machine.program().run(1)
    assert program.flush()
    program.end()
    assert machine.history().keys() == {1}  # what stays here stays exact


def test_an_enabled_one_that_cannot_be_loaded_holds_everything_shared_back(machine: Machine) -> None:
    install(machine, "import no_such_module")
    delivered(machine)
    assert machine.got == {}
    told = json.loads(machine.command("status", "--json", codes=(0, 1)))
    assert told["withheld"] == {"plugin-not-loaded": 1}
    assert any("Nothing is shared: plugin 'mask' could not be loaded, and may" in each for each in told["problems"])
    assert "No module named 'no_such_module'" in told["broken_plugins"]["mask"]


def test_one_that_raises_holds_the_event_back_and_is_named_in_status(machine: Machine) -> None:
    install(machine, MASK.format(body="return 1 / 0"))
    delivered(machine)
    assert machine.got == {}
    assert json.loads(machine.command("status", "--json"))["withheld"] == {"anonymizer:mask": 1}
    assert "anonymizer:mask 1" in machine.command("status")


def test_one_that_works_takes_its_fields_and_no_more(machine: Machine) -> None:
    install(machine, MASK.format(body="return {'os': None, 'arch': 'a lie', 'secret': event.fields['duration_ms']}"))
    delivered(machine)
    (body,) = machine.got.values()
    assert not {"os", "arch", "secret"} & body.keys()
    assert body["python_version"]

"""Installs that a server knows: made for tests of what gives their ids up."""

from __future__ import annotations

import json
from typing import Any

from cmdorc_telemetry.home import Home
from cmdorc_telemetry.identity import Identity, load_identity
from cmdorc_telemetry.testing import Answer, Request


def erasing(request: Request) -> Answer:
    """What a server says that takes reports and erases."""
    if request.method == "DELETE":
        return Answer.json({"message": "Erased.", "deleted": 1})
    ids = [json.loads(line)["event_id"] for line in request.plain.splitlines()]
    return Answer.json({"message": "Thanks!", "results": [{"event_id": each, "status": "accepted"} for each in ids]})


def reporting(machine: Any, config: str) -> Identity:
    """Say yes to what ``config`` names, and have an event delivered there. The identity."""
    machine.config(config)
    machine.opt_in()
    machine.record()
    machine("flush")
    return identity(machine.home)


def identity(home: Home) -> Identity:
    """That of now."""
    found = load_identity(home)
    assert found is not None
    return found

"""Events with values of all kinds that their specs allow, as they come out of capture, and as they leave the gate."""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from .. import clock
from ..capture import Capture, machine_fields
from ..gate import Anonymizer, Gate
from ..spec import Event, Level, Property, Shapes, TelemetrySpec, bucket_labels
from ..types import Batch, BatchEvent, Row

INSTALL_ID = "3f2b1c9e-7a54-4d0e-8b6f-0c1d2e3f4a5b"
_TEXTS = ("Tests", "build everything", "Übung 測試 🎉", "line\nbreak", "'\"\\;--", "a", "example.com", "a@b.c", "0", "",
          "x" * 200)  # fmt: skip
_MOST = 10_000_000


class Samples:
    """Makes events of some specs; the same ones for the same ``seed``, but for their ids."""

    def __init__(self, specs: Sequence[TelemetrySpec], *, install_id: str = INSTALL_ID, seed: int = 1) -> None:
        self.specs = tuple(specs)
        self._random = random.Random(seed)
        self._shapes = Shapes(self.specs)
        base = {"cmdorc_version": "0.12.4", **machine_fields(), "python_version": "3.12",
                "anonymous_install_id": install_id}  # fmt: skip
        self._capture = Capture(self.specs, base)

    def properties(self, event: Event) -> dict[str, Any]:
        """Values for every property of an event of which a valid one is known, private ones included."""
        made = {name: self._value(prop) for name, prop in event.properties.items()}
        return {name: value for name, value in made.items() if value is not None}

    def record(self, event: str, properties: Mapping[str, Any]) -> bytes:
        """What stands in a journal of such an event. Raises ValueError where its spec does not allow it."""
        record = self._capture.record(event, properties)
        if record is None:
            raise ValueError(f"{event} lacks a property that it requires: {sorted(properties)}")
        return record

    def records(self, count: int) -> Iterator[bytes]:
        """``count`` records of each event of each spec."""
        for spec in self.specs:
            for event in spec.events:
                for _ in range(count):
                    yield self.record(event.name, self.properties(event))

    def rows(
        self, records: Sequence[bytes], level: Level = "standard", anonymizers: Mapping[str, Anonymizer] | None = None,
        complain: Callable[[str, str], None] = lambda name, what: None,
    ) -> tuple[Row, ...]:  # fmt: skip
        """What the gate makes of records where a person agreed to ``level``."""
        gate = Gate(self._shapes, lambda generation, spec: level, anonymizers=anonymizers or {}, complain=complain)
        return gate.gate(records, "generation", "contract").rows

    def batch(self, count: int = 1, level: Level = "standard") -> Batch:
        """A batch as delivery would hand it to a shared destination: ``count`` of each event that is shared."""
        rows = [row for row in self.rows(list(self.records(count)), level) if row.shared is not None]
        return Batch(destination="contract", epoch="e", events=tuple(
            BatchEvent(_id(row.shared), row.event, row.shared, seq) for seq, row in enumerate(rows, 1) if row.shared
        ))  # fmt: skip

    def _value(self, prop: Property) -> Any:
        if prop.max_items is None:
            return self._one(prop)
        items = [self._one(prop) for _ in range(self._random.randint(0, min(prop.max_items, 5)))]
        return [item for item in items if item is not None]

    def _one(self, prop: Property) -> Any:
        chance = self._random
        low, high = prop.min or 0, prop.max if prop.max is not None else _MOST
        match prop.type:
            case "bool":
                return chance.random() < 0.5
            case "count" | "duration_ms":
                return chance.randint(int(low), int(high))
            case "number":
                return round(chance.uniform(low, high), 2)
            case "enum":
                return chance.choice(prop.members)
            case "bucket":
                return chance.choice(bucket_labels(prop.edges))
            case "hash":
                return f"{chance.getrandbits(48):012x}"
            case "version":
                return f"{chance.randint(0, 30)}.{chance.randint(0, 30)}.{chance.randint(0, 30)}"
            case "uuid":
                return str(uuid.UUID(int=chance.getrandbits(128), version=4))
            case "timestamp":
                return clock.iso(chance.randint(0, int(clock.wall())))
            case "string":
                fitting = [text for text in _TEXTS if len(text) <= (prop.max_length or 0)
                           and re.fullmatch(prop.pattern or "", text)]  # fmt: skip
                return chance.choice(fitting) if fitting else None
            case _:  # of unknown shape, and always withheld
                return None


def _id(body: bytes) -> str:
    return str(msgspec.json.decode(body)["event_id"])

"""What may be collected: the model, its files, and what they are compiled to."""

from .model import BASE, LEVELS, Event, Level, Property, TelemetrySpec, bucket_labels
from .projection import project
from .registry import CORE, TelemetryRegistry, load_spec
from .shapes import Body, Shapes, coerce, lower, own_shape, shared_names, value_type, wire_shape

__all__ = [
    "BASE", "CORE", "LEVELS", "Body", "Event", "Level", "Property", "Shapes", "TelemetryRegistry", "TelemetrySpec",
    "bucket_labels", "coerce", "load_spec", "lower", "own_shape", "project", "shared_names", "value_type", "wire_shape",
]  # fmt: skip

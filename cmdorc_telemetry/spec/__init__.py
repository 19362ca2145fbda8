"""What may be collected: the model, its files, and what they are compiled to."""

from .model import BASE, LEVELS, Event, Level, Property, TelemetrySpec, bucket_labels
from .projection import project
from .registry import CORE, SpecFile, TelemetryRegistry, load_spec
from .shapes import Body, Shapes, coerce, lower, own_shape, shared_names, value_type, wire_shape
from .wishes import EVERYTHING, FIXED, Rule, Wishes, keep_policy, kept_policy, read_wishes, sampled

__all__ = [
    "BASE", "CORE", "EVERYTHING", "FIXED", "LEVELS", "Body", "Event", "Level", "Property", "Rule", "Shapes", "SpecFile",
    "TelemetryRegistry", "TelemetrySpec", "Wishes", "bucket_labels", "coerce", "keep_policy", "kept_policy",
    "load_spec", "lower", "own_shape", "project", "read_wishes", "sampled", "shared_names", "value_type",
    "wire_shape",
]  # fmt: skip
